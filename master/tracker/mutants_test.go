//go:build mutants

package tracker

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// mutant is the tracker without one of its safeguards.
type mutant struct {
	name  string
	file  string   // from this package
	edits []string // what is there once, and what comes in its place; two of them where either safeguard would do
}

func mutants() []mutant {
	return []mutant{
		{"no HEAD after NoSuchUpload", "objects.go", []string{
			"case errors.Is(err, objectstore.ErrNoSuchUpload):\n\t\treturn t.finished(ctx, j, p)", "case errors.Is(err, objectstore.ErrNoSuchUpload):\n\t\treturn SuccessPart{}, errRedo",
		}},
		{"no HEAD after a completion", "objects.go", []string{
			"part, err := t.finished(ctx, j, p)", "part, err := SuccessPart{Key: p.key, Size: p.win.Bytes, ETag: p.win.UploadID, Records: p.win.Records}, error(nil)",
		}},
		{"any object counts as the job's", "success.go", []string{
			"if head.Metadata[k] != v {", "if k == v {",
		}},
		{"what the store has of an upload is not compared, before and after", "objects.go", []string{
			"if err := matches(p, parts); err != nil {", "if err := matches(p, parts); err != nil && false {",
			"if !ours || head.Size != p.win.Bytes {", "if !ours {",
		}},
		{"losers' uploads are not aborted by a commit", "commit.go", []string{
			"if !winners[u.ID] {", "if !winners[u.ID] && false {",
		}},
		{"logged uploads are not aborted by a clean-up", "cleanup.go", []string{
			"for _, u := range t.cfg.View().Uploads(j.id) {", "for _, u := range t.cfg.View().Uploads(\"\") {",
		}},
		{"uploads that the log refused are forgotten", "uploads.go", []string{
			"j.unlogged = append(j.unlogged, u)", "_ = u",
		}},
		{"a commit does not sweep", "objects.go", []string{
			"if w.uncertain {", "if false {",
		}},
		{"a clean-up does not sweep", "objects.go", []string{
			"if w.uncertain {", "if false {",
		}},
		{"a new leader trusts the log to have all uploads", "job.go", []string{
			"uncertain: inherited && rec.Planned()", "uncertain: false",
		}},
		{"an unclear CreateUpload made none", "uploads.go", []string{
			"j.uncertain = true", "_ = j.uncertain",
		}},
		{"an abort is not verified", "uploads.go", []string{
			"case errors.Is(err, objectstore.ErrDenied):\n\t\t\treturn nil\n\t\tcase err != nil:", "case err == nil || errors.Is(err, objectstore.ErrDenied):\n\t\t\treturn nil\n\t\tcase err != nil:",
		}},
		{"the old _SUCCESS stays until the end", "objects.go", []string{
			"if w.overwrite || w.resumed {", "if w.resumed {",
		}},
		{"a _SUCCESS of this job is not looked for", "success.go", []string{
			"case head.Metadata[metaJob] == j.id:", "case false:",
		}},
		{"old keys are deleted with the job's own _SUCCESS", "success.go", []string{
			"keep := map[string]bool{done: true}", "keep := map[string]bool{}",
		}},
		{"_SUCCESS replaces what is there", "success.go", []string{
			"PutOptions{IfNoneMatch: true,", "PutOptions{IfNoneMatch: false,",
		}},
		{"the old _SUCCESS is deleted whatever it is by then", "success.go", []string{
			"return j.store.DeleteIf(ctx, j.bucket, key, head.ETag)", "return j.store.Delete(ctx, j.bucket, key)",
		}},
		{"parts are deleted whatever they are by then", "objects.go", []string{
			"return j.store.DeleteIf(ctx, j.bucket, key, head.ETag)", "_ = head\n\t\treturn j.store.Delete(ctx, j.bucket, key)",
		}},
		{"parts are deleted whosever they are", "objects.go", []string{
			"if err != nil || !ours {", "if _ = ours; err != nil || head.ETag == \"\" {",
		}},
		{"a forced end leaves its parts", "objects.go", []string{
			"if w.committing {", "if false {",
		}},
		{"an upload serves a second attempt", "lease.go", []string{
			"k.spare = nil // spent", "_ = k.spare // spent",
		}},
		{"an adopted attempt takes any upload", "nodes.go", []string{
			"return j.earlier[attempt]", "for _, u := range j.earlier {\n\t\treturn u\n\t}\n\treturn nil",
		}},
		{"a commit begins while uploads are made", "commit.go", []string{
			"if j.busy != \"\" || j.creating > 0 {\n\t\treturn\n\t}\n\tj.busy = \"begin", "if j.busy != \"\" {\n\t\treturn\n\t}\n\tj.busy = \"begin",
			"if j.busy != \"\" || j.creating > 0 {\n\t\treturn\n\t}\n\tfor _, a := range", "if j.busy != \"\" {\n\t\treturn\n\t}\n\tfor _, a := range",
		}},
		{"a clean-up begins while uploads are made", "cleanup.go", []string{
			"j.busy != \"\" || j.creating > 0 || len(j.live) > 0", "j.busy != \"\" || len(j.live) > 0",
		}},
		{"the ledger is not checked again", "job.go", []string{
			"rec.Phase == state.PhaseCommitting && !j.recheck:", "rec.Phase == state.PhaseCommitting:",
		}},
		{"the ledger is not checked", "../state/commit.go", []string{
			"case !j.MapOnly() && j.MapLedger != j.Fetched:", "case false:",
		}},
		{"a commit begins before it is logged", "job.go", []string{
			"case outputDone && rec.Phase == state.PhaseCommitting && !j.recheck:", "case outputDone:",
		}},
		{"a committing job can be cancelled", "../state/jobs.go", []string{
			"if j.Ended() || j.Ending != \"\" || j.Phase == PhaseCommitting {", "if j.Ended() || j.Ending != \"\" {",
		}},
		{"a part that is lost fails the job", "objects.go", []string{
			"if errors.Is(err, errRedo) {", "if false {",
		}},
		{"a part that is lost is passed over", "objects.go", []string{
			"if len(redo) > 0 {", "if false {",
		}},
		{"a part is made again while its first upload is there", "objects.go", []string{
			"if err := t.abort(ctx, j, upload{id: p.win.UploadID, key: p.key}); err != nil {", "if err := error(nil); err != nil {",
		}},
		{"the second completion of a task replaces the first", "../state/tasks.go", []string{
			"case task.Done:\n\t\treturn refused(RefusedOtherWon)", "case false:\n\t\treturn refused(RefusedOtherWon)",
		}},
	}
}

// What is tried, the quick things first.
var attacks = [][]string{
	{},
	{"-model.budgets", "0,1", "-model.time", "60s"},
	{"-model.budgets", "1,0", "-model.time", "60s"},
	{"-model.budgets", "1,1", "-model.time", "120s", "-test.run", "^TestModel$/^map_and_reduce$"},
}

// Without any one of its safeguards the tracker does something wrong, and the model
// check sees it. One that survives would be a missing check or a useless safeguard.
func TestMutants(t *testing.T) {
	for _, m := range mutants() {
		t.Run(m.name, func(t *testing.T) {
			began := time.Now()
			bin := m.build(t)
			for _, attack := range attacks {
				out, err := exec.Command(bin, append([]string{"-test.run", "^TestModel$", "-test.failfast"}, attack...)...).CombinedOutput()
				if seen := err != nil && strings.Contains(string(out), " again: go test -run TestModel"); seen {
					t.Logf("seen after %v: %s", time.Since(began).Round(time.Second), verdict(string(out)))
					return
				} else if err != nil {
					t.Fatalf("not a verdict of the model: %v\n%s", err, out)
				}
			}
			t.Errorf("nobody sees that %s", m.name)
		})
	}
}

// verdict is what the model found.
func verdict(out string) string {
	for line := range strings.Lines(out) {
		if i := strings.Index(line, "model_scenarios_test.go:"); i >= 0 && strings.Contains(line, ", after") {
			return strings.TrimSpace(line[i:])
		}
	}
	return out
}

// build builds this package's tests with the mutation in place.
func (m mutant) build(t *testing.T) string {
	t.Helper()
	source, err := os.ReadFile(m.file)
	require.NoError(t, err)
	text := string(source)
	for edit := range slices.Chunk(m.edits, 2) {
		require.Equal(t, 1, strings.Count(text, edit[0]), "%s has %q once", m.file, edit[0])
		text = strings.Replace(text, edit[0], edit[1], 1)
	}
	dir := t.TempDir()
	changed, overlay, bin := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "model.test")
	require.NoError(t, os.WriteFile(changed, []byte(text), 0o600))
	path, err := filepath.Abs(m.file)
	require.NoError(t, err)
	data, err := json.Marshal(map[string]map[string]string{"Replace": {path: changed}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(overlay, data, 0o600))
	out, err := exec.Command("go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", bin, ".").CombinedOutput()
	require.NoError(t, err, fmt.Sprintf("%s", out))
	return bin
}
