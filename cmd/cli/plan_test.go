package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/cmd/cli/view"
	"millrace/pkg/api"
)

func TestWhatLimitsAJob(t *testing.T) {
	gz := []view.Sized{{Path: "s3://in/x.gz", Size: 4509715661}}
	for _, c := range []struct {
		name string
		plan view.Plan
		want []string
	}{
		{"one wave and more", view.Plan{Splits: 12, Slots: 6, MapWaves: 2, Nodes: 3}, []string{"12 splits on 6 slots: 2 waves"}},
		{"idle slots, little input", view.Plan{Splits: 1, Slots: 3, MapWaves: 1, Nodes: 3}, []string{"1 split on 3 slots: 2 would have nothing to map"}},
		{"idle slots", view.Plan{Objects: 1, LargestSplit: 100 << 20, Splits: 1, Slots: 6, MapWaves: 1, Nodes: 3}, []string{"1 split on 6 slots: 5 would have nothing to map (a smaller --split-size makes more splits)"}},
		{"no bytes", view.Plan{Slots: 6}, []string{"the input has no bytes: no map, and empty output"}},
		{"no node", view.Plan{Splits: 12, DiskNeeded: 5}, []string{"no node is up: the job would wait for one (millrace node list)"}},
		{"one that cannot be cut", view.Plan{Objects: 3, Splits: 6, Slots: 6, MapWaves: 1, Unsplittable: 1, LargestUnsplittable: gz},
			[]string{"1 of 3 objects cannot be split (s3://in/x.gz, 4.2 GiB): it alone is one map", "6 splits on 6 slots: 1 wave"}},
		{"several that cannot be cut", view.Plan{Objects: 3, Splits: 6, Slots: 6, MapWaves: 1, Unsplittable: 2, LargestUnsplittable: gz},
			[]string{"2 of 3 objects cannot be split (the biggest: s3://in/x.gz, 4.2 GiB): each alone is one map", "6 splits on 6 slots: 1 wave"}},
		{"disk", view.Plan{Splits: 6, Slots: 6, MapWaves: 1, Nodes: 1, DiskNeeded: 3 << 30, DiskFree: 1 << 30},
			[]string{"disk: it needs about 3.0 GiB, and 1.0 GiB are free: tasks may have to wait for room", "6 splits on 6 slots: 1 wave"}},
		{"others, and many reduces", view.Plan{Splits: 6, Slots: 6, MapWaves: 1, Reduces: 7, ReduceWaves: 2, SlotsTaken: 4, TasksWaiting: 30},
			[]string{"6 splits on 6 slots: 1 wave", "7 reduces on 6 slots: 2 waves (fewer --reduces would do in one)", "other jobs have 4 of 6 slots now, and 30 tasks of theirs wait"}},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, limits(&c.plan, "slot")) })
	}
}

func dryRunMaster() *fakeMaster {
	return &fakeMaster{jobs: []*api.Job{{Program: "wordcount", State: "PENDING", Phase: "PLANNING", Input: []string{"s3://input/"}, Output: "s3://output/x/", BytesTotal: 5 << 30,
		Maps: &api.TaskCounts{Total: 12, Pending: 12}, Reduces: &api.TaskCounts{Total: 2, Pending: 2},
		Plan: &api.JobPlan{Objects: 3, Bytes: 5 << 30, Splits: 12, LargestSplit: 128 << 20, Reduces: 2, Nodes: 3, Slots: 6, DiskNeeded: 6 << 30, DiskFree: 12 << 30}}}}
}

func TestDryRunShowsThePlanToPeopleAndPrograms(t *testing.T) {
	f := dryRunMaster()
	s := newSession(t).serve(f)
	require.NoError(t, os.WriteFile(filepath.Join(s.home, "m.py"), nil, 0o644))
	for _, line := range []string{
		"run wordcount s3://input/ s3://output/x/ --dry-run",
		"job submit wordcount --input s3://input/ --output s3://output/x/ --dry-run --wait",
		"job submit --dry-run --mapper ./m.py --file " + s.home + "/m.py --input s3://input/ --output s3://output/x/",
	} {
		o := s.run(strings.Fields(line)...)
		require.Equal(t, 0, o.code, o.err)
		require.Equal(t, strings.Join([]string{
			"program  wordcount",
			"input    s3://input/: 3 objects, 5.0 GiB",
			"splits   12 of at most 128 MiB, 2 waves over 6 slots",
			"reduces  2, 1 wave over 6 slots",
			"disk     about 6.0 GiB needed, 12 GiB free",
			"output   s3://output/x/",
			"limits   12 splits on 6 slots: 2 waves\n"}, "\n"), o.out, line)
		require.Contains(t, o.err, "dry run: nothing was started")
		require.True(t, f.submitted.GetDryRun())
	}
	require.Empty(t, f.uploaded, "not even a file is shipped")
	plan := s.run("run", "wordcount", "s3://input/", "-", "--dry-run")
	require.Equal(t, 0, plan.code, plan.err)
	require.Contains(t, plan.out, "output   -\n")
	doc := s.run("run", "wordcount", "s3://input/", "s3://output/x/", "--dry-run", "--json").json(t).(map[string]any)
	require.EqualValues(t, 2, doc["plan"].(map[string]any)["mapWaves"])
	require.Equal(t, []any{"12 splits on 6 slots: 2 waves"}, doc["plan"].(map[string]any)["limits"])
}

func TestDryRunOfALocalJob(t *testing.T) {
	s := newSession(t)
	in := filepath.Join(s.home, "in")
	require.NoError(t, os.Mkdir(in, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(in, "a.txt"), []byte("some words\n"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(in, "b.gz"), []byte("packed"), 0o644))
	out := filepath.Join(s.home, "out")
	o := s.run("run", "wordcount", in, out, "--local", "--dry-run")
	require.Equal(t, 0, o.code, o.err)
	require.Contains(t, o.out, "2 objects, 17 B")
	require.Contains(t, o.out, "1 of 2 objects cannot be split ("+filepath.Join(in, "b.gz")+", 6 B): it alone is one map")
	require.NoDirExists(t, out)
	o = s.run("run", "wordcount", in, "-", "--local", "--dry-run", "--json")
	require.Equal(t, 0, o.code, o.err)
	require.Equal(t, "-", o.json(t).(map[string]any)["output"])
	o = s.run("run", "wordcount", filepath.Join(s.home, "none"), out, "--local", "--dry-run")
	require.Equal(t, 2, o.code, "what cannot run has no plan")
}

func TestRequestIdNeedsAResultThatIsKept(t *testing.T) {
	o := newSession(t).run("run", "wordcount", "s3://input/", "-", "--request-id", "once")
	require.Equal(t, 2, o.code)
	require.Contains(t, o.err, "--request-id with --output -")
}
