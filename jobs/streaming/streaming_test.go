package streaming

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/jobs/local"
	"millrace/pkg/api"
)

// job is a streaming job in a test.
type job struct {
	*api.Program
	reduces int32
	splits  int
	memory  int64
	files   []local.File
}

func (j *job) try(t *testing.T, text string) (*local.Result, string, error) {
	t.Helper()
	dir := t.TempDir()
	in := filepath.Join(dir, "in.txt")
	if err := os.WriteFile(in, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	j.Kind, j.Name = api.ProgramKind_PROGRAM_KIND_STREAMING, "test"
	program, err := New(j.Program)
	if err != nil {
		t.Fatal(err)
	}
	r, err := local.Run(t.Context(), local.Config{Program: program, Parallel: 2, Dir: dir, Files: j.files, Spec: &api.JobSpec{
		Program: j.Program, Input: []string{in}, Output: filepath.Join(dir, "out"), Reduces: &j.reduces, MemoryBytes: j.memory,
		SplitSize: int64(len(text)/max(1, j.splits) + 1),
	}})
	if err != nil {
		return nil, "", err
	}
	var out strings.Builder
	for _, p := range r.Parts {
		data, err := os.ReadFile(p.Key)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(data)
	}
	return r, out.String(), nil
}

func (j *job) run(t *testing.T, text string) string {
	t.Helper()
	_, out, err := j.try(t, text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestLines(t *testing.T) {
	const text = "b\t2\na\nb\t1\n\nc\t\n\td\na\tx\ty\n"
	sorted := "\n\td\na\na\tx\ty\nb\t2\nb\t1\nc\t\n"
	for name, test := range map[string]struct {
		job  *job
		text string
		want string
	}{
		"map-only cat":            {&job{Program: &api.Program{Mapper: "cat"}}, text, text},
		"no mapper command":       {&job{Program: &api.Program{Reducer: "cat"}, reduces: 1}, text, sorted},
		"no reducer command":      {&job{Program: &api.Program{Mapper: "cat"}, reduces: 1}, text, sorted},
		"cat and cat":             {&job{Program: &api.Program{Mapper: "cat", Reducer: "cat"}, reduces: 1}, text, sorted},
		"last line without end":   {&job{Program: &api.Program{Mapper: "printf x; cat >/dev/null"}}, text, "x\n"},
		"no output":               {&job{Program: &api.Program{Mapper: "cat >/dev/null"}}, text, ""},
		"reads nothing":           {&job{Program: &api.Program{Mapper: "echo hello"}}, strings.Repeat("long line\n", 100_000), "hello\n"},
		"reads the start":         {&job{Program: &api.Program{Mapper: "head -n 1"}}, strings.Repeat("long line\n", 100_000), "long line\n"},
		"reducer reads the start": {&job{Program: &api.Program{Mapper: "cat", Reducer: "head -n 2"}, reduces: 1}, strings.Repeat("b\na\n", 50_000), "a\na\n"},
		"empty input":             {&job{Program: &api.Program{Mapper: "cat", Reducer: "wc -l | tr -d ' '"}, reduces: 1}, "", "0\n"},
		"sed":                     {&job{Program: &api.Program{Mapper: `sed -e 's/a/A/'`}}, "a\nba\n", "A\nbA\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got := test.job.run(t, test.text)
			if got != test.want && !sameButOrderOfValues(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// sameButOrderOfValues: keys are in order, the values of one key in none.
func sameButOrderOfValues(a, b string) bool {
	keys := func(s string) (list []string) {
		for l := range strings.Lines(s) {
			k, _, _ := strings.Cut(strings.TrimSuffix(l, "\n"), "\t")
			list = append(list, k)
		}
		return list
	}
	lines := func(s string) []string { return slices.Sorted(strings.Lines(s)) }
	return slices.Equal(keys(a), keys(b)) && slices.Equal(lines(a), lines(b))
}

const (
	countMapper  = `tr -s ' ' '\n' | sed '/^$/d; s/$/\t1/'`
	countReducer = `awk -F'\t' '{n[$1] += $2} END {for (k in n) print k "\t" n[k]}'`
)

func TestWordCountWithAndWithoutCombiner(t *testing.T) {
	var text strings.Builder
	want := map[string]string{}
	counts := map[string]int{}
	for i := range 60_000 {
		word := fmt.Sprintf("w%d", i*i%997)
		fmt.Fprintf(&text, "%s ", word)
		counts[word]++
		if i%9 == 0 {
			text.WriteByte('\n')
		}
	}
	for w, n := range counts {
		want[w] = fmt.Sprint(n)
	}
	for _, combiner := range []string{"", countReducer} {
		j := job{Program: &api.Program{Mapper: countMapper, Combiner: combiner, Reducer: countReducer}, reduces: 2, splits: 3, memory: 2 << 20}
		r, out, err := j.try(t, text.String())
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for l := range strings.Lines(out) {
			w, n, _ := strings.Cut(strings.TrimSuffix(l, "\n"), "\t")
			got[w] = n
		}
		if !maps.Equal(got, want) {
			t.Errorf("combiner %q: %d words, want %d", combiner, len(got), len(want))
		}
		c := r.Counters["millrace"]
		if c["mapOutputRecords"] != 60_000 {
			t.Errorf("combiner %q: mapOutputRecords %d", combiner, c["mapOutputRecords"])
		}
		if combiner != "" && (c["combineInputRecords"] != 60_000 || c["combineOutputRecords"] != c["segmentRecords"] || c["segmentRecords"] > 30_000) {
			t.Errorf("combined %d to %d, segments of %d", c["combineInputRecords"], c["combineOutputRecords"], c["segmentRecords"])
		}
	}
}

func TestCountersAndStandardError(t *testing.T) {
	j := job{Program: &api.Program{
		Mapper:  `cat; echo reporter:counter:My,lines,3 >&2; echo reporter:status:busy >&2; echo reporter:counter:My,lines,4 >&2`,
		Reducer: `cat; echo 'reporter:counter:My,a, b,-1' >&2`,
	}, reduces: 1}
	r, _, err := j.try(t, "x\n")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := r.Counters["My"], map[string]int64{"lines": 7, "a, b": -1}; !maps.Equal(got, want) {
		t.Errorf("counters %v, want %v", got, want)
	}
}

func TestEnvironmentAndFiles(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "tool")
	if err := os.WriteFile(script, []byte("#!/bin/sh\ncat >/dev/null\n"+
		`echo "$mapreduce_task_ismap $mapreduce_task_partition $my_prop $WHO $(basename $mapreduce_map_input_file)"`+
		"\n[ -n \"$mapreduce_job_id\" ] && echo \"${mapreduce_task_attempt_id#$mapreduce_job_id}\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"shipped", "./shipped"} {
		j := job{Program: &api.Program{Mapper: command, Properties: map[string]string{"my.prop": "p"}, Env: map[string]string{"WHO": "me"}},
			files: []local.File{{Name: "shipped", Path: script}}}
		if got, want := j.run(t, "x\n"), "true 0 p me in.txt\n-m-00000-1-1\n"; got != want {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
}

func TestFailuresNameTheirCause(t *testing.T) {
	for name, test := range map[string]struct {
		program *api.Program
		reduces int32
		code    int32
		signal  string
		message string
		tail    string
	}{
		"exit code":       {&api.Program{Mapper: "echo oh no >&2; exit 3"}, 0, 3, "", "exited with code 3", "oh no"},
		"after all input": {&api.Program{Mapper: "cat >/dev/null; exit 4"}, 0, 4, "", "exited with code 4", ""},
		"not found":       {&api.Program{Mapper: "nosuchcommand"}, 0, 127, "", "command not found", "nosuchcommand"},
		"signal":          {&api.Program{Mapper: "kill -SEGV $$"}, 0, 0, "SIGSEGV", "signal 11 (SIGSEGV)", ""},
		"signal within":   {&api.Program{Mapper: "sh -c 'kill -9 $$'; exit $?"}, 0, 137, "SIGKILL", "signal 9, SIGKILL", ""},
		"reducer":         {&api.Program{Mapper: "cat", Reducer: "exit 5"}, 1, 5, "", "reducer `exit 5` exited with code 5", ""},
		"endless line":    {&api.Program{Mapper: "tr '\\0' x </dev/zero"}, 0, 0, "", "it wrote a line longer than the limit of 67108864 bytes; --max-record raises it", ""},
		"long line":       {&api.Program{Mapper: "cat", Reducer: "head -c 70000000 /dev/zero; cat >/dev/null; sleep 1000"}, 1, 0, "", "it wrote a line longer than the limit of 67108864 bytes", ""},
		"combiner":        {&api.Program{Mapper: "cat", Combiner: "exit 6", Reducer: "cat"}, 1, 6, "", "combiner `exit 6` exited with code 6", ""},
	} {
		t.Run(name, func(t *testing.T) {
			j := job{Program: test.program, reduces: test.reduces}
			_, _, err := j.try(t, strings.Repeat("some line\n", 50_000))
			var e *local.TaskError
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want a failed task", err)
			}
			f := e.Failure
			if f.Kind != api.FailureKind_FAILURE_KIND_PROGRAM || f.ExitCode != test.code || f.Signal != test.signal ||
				!strings.Contains(f.Message, test.message) || !strings.Contains(f.StderrTail, test.tail) {
				t.Errorf("failure %v", f)
			}
			if (name == "exit code" || name == "after all input") && !strings.HasSuffix(f.Input, "in.txt") {
				t.Errorf("input %q", f.Input)
			}
		})
	}
}

func TestFullPipesStopNothing(t *testing.T) {
	// Each writes far more than a pipe holds before it reads on.
	noise := `head -c 300000 /dev/zero | tr '\0' '\n' >&2; head -c 300000 /dev/zero | tr '\0' o; echo; `
	j := job{Program: &api.Program{Mapper: noise + "cat", Reducer: noise + "cat"}, reduces: 1}
	out := j.run(t, strings.Repeat("a line of input\n", 100_000))
	if n := strings.Count(out, "\n"); n != 100_002 {
		t.Errorf("%d lines of output, want 100002", n)
	}
}

func TestWhatStaysInTheBackgroundIsEnded(t *testing.T) {
	j := job{Program: &api.Program{Mapper: "cat; sleep 1000 &"}}
	start := time.Now()
	if got := j.run(t, "x\n"); got != "x\n" {
		t.Errorf("got %q", got)
	}
	if d := time.Since(start); d > 4*leftover {
		t.Errorf("it took %v", d)
	}
}

func TestALineOverTheLimit(t *testing.T) {
	got := ""
	err := readLines(strings.NewReader("short\n"+strings.Repeat("x", 300_000)+"\nnext\n"), 100_000, func(l []byte) { got += string(l) + ";" })
	if err == nil || got != "short;" {
		t.Errorf("got %q, %v", got, err)
	}
	got = ""
	if err := readLines(strings.NewReader(strings.Repeat("y", 200_000)+"\nb\nc"), 300_000, func(l []byte) { got += fmt.Sprintf("%d;", len(l)) }); err != nil || got != "200000;1;1;" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestParseCounter(t *testing.T) {
	for s, want := range map[string]string{
		"G,C,1": "G|C|1|true", "G,C, -7 ": "G|C|-7|true", "G,a,b,2": "G|a,b|2|true",
		"": "|||", "G,1": "", "G,C,x": "", ",C,1": "", "G,,1": "",
	} {
		group, name, n, ok := parseCounter(s)
		if ok != strings.HasSuffix(want, "true") || ok && fmt.Sprintf("%s|%s|%d|%v", group, name, n, ok) != want {
			t.Errorf("%q: %s %s %d %v", s, group, name, n, ok)
		}
	}
}

func FuzzParseCounter(f *testing.F) {
	f.Add("G,C,1")
	f.Fuzz(func(t *testing.T, s string) {
		if group, name, _, ok := parseCounter(s); ok && (group == "" || name == "" || strings.Contains(group, ",")) {
			t.Errorf("%q: %q %q", s, group, name)
		}
	})
}

func TestVariable(t *testing.T) {
	if got := variable("mapreduce.job-x.y1"); got != "mapreduce_job_x_y1" {
		t.Error(got)
	}
}
