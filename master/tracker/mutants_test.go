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
	test  string   // that sees it, where the model has nothing that could: it knows no stragglers
}

func mutants() []mutant {
	return []mutant{
		{name: "no HEAD after NoSuchUpload", file: "objects.go", edits: []string{
			"case errors.Is(err, objectstore.ErrNoSuchUpload):\n\t\treturn t.finished(ctx, j, p)", "case errors.Is(err, objectstore.ErrNoSuchUpload):\n\t\treturn SuccessPart{}, errRedo",
		}},
		{name: "no HEAD after a completion", file: "objects.go", edits: []string{
			"part, err := t.finished(ctx, j, p)", "part, err := SuccessPart{Key: p.key, Size: p.win.Bytes, ETag: p.win.UploadID, Records: p.win.Records}, error(nil)",
		}},
		{name: "any object counts as the job's", file: "success.go", edits: []string{
			"if head.Metadata[k] != v {", "if k == v {",
		}},
		{name: "what the store has of an upload is not compared, before and after", file: "objects.go", edits: []string{
			"if err := matches(p, parts); err != nil {", "if err := matches(p, parts); err != nil && false {",
			"if !ours || head.Size != p.win.Bytes {", "if !ours {",
		}},
		{name: "losers' uploads are not aborted by a commit", file: "commit.go", edits: []string{
			"if !winners[u.ID] {", "if !winners[u.ID] && false {",
		}},
		{name: "logged uploads are not aborted by a clean-up", file: "cleanup.go", edits: []string{
			"for _, u := range t.cfg.View().Uploads(j.id) {", "for _, u := range t.cfg.View().Uploads(\"\") {",
		}},
		{name: "uploads that the log refused are forgotten", file: "uploads.go", edits: []string{
			"j.unlogged = append(j.unlogged, u)", "_ = u",
		}},
		{name: "a commit does not sweep", file: "objects.go", edits: []string{
			"if w.uncertain {\n\t\tif err := w.spared", "if false {\n\t\tif err := w.spared",
		}},
		{name: "a clean-up does not sweep", file: "objects.go", edits: []string{
			"if w.uncertain {\n\t\tkeys := ", "if false {\n\t\tkeys := ",
		}},
		{name: "a new leader trusts the log to have all uploads", file: "job.go", edits: []string{
			"uncertain: inherited && rec.Planned()", "uncertain: false",
		}},
		{name: "an unclear CreateUpload made none", file: "uploads.go", edits: []string{
			"j.uncertain = true", "_ = j.uncertain",
		}},
		{name: "an abort is not verified", file: "uploads.go", edits: []string{
			"case errors.Is(err, objectstore.ErrDenied):\n\t\t\treturn nil\n\t\tcase err != nil:", "case err == nil || errors.Is(err, objectstore.ErrDenied):\n\t\t\treturn nil\n\t\tcase err != nil:",
		}},
		{name: "the old _SUCCESS stays until the end", file: "objects.go", edits: []string{
			"if w.overwrite || w.resumed {", "if w.resumed {",
		}},
		{name: "a _SUCCESS of this job is not looked for", file: "success.go", edits: []string{
			"case head.Metadata[metaJob] == j.id:", "case false:",
		}},
		{name: "old keys are deleted with the job's own _SUCCESS", file: "success.go", edits: []string{
			"keep := map[string]bool{done: true}", "keep := map[string]bool{}",
		}},
		{name: "_SUCCESS replaces what is there", file: "success.go", edits: []string{
			"PutOptions{IfNoneMatch: true,", "PutOptions{IfNoneMatch: false,",
		}},
		{name: "the old _SUCCESS is deleted whatever it is by then", file: "success.go", edits: []string{
			"return j.store.DeleteIf(ctx, j.bucket, key, head.ETag)", "return j.store.Delete(ctx, j.bucket, key)",
		}},
		{name: "parts are deleted whatever they are by then", file: "objects.go", edits: []string{
			"return j.store.DeleteIf(ctx, j.bucket, key, head.ETag)", "_ = head\n\t\treturn j.store.Delete(ctx, j.bucket, key)",
		}},
		{name: "parts are deleted whosever they are", file: "objects.go", edits: []string{
			"if err != nil || !ours {", "if _ = ours; err != nil || head.ETag == \"\" {",
		}},
		{name: "a forced end leaves its parts", file: "objects.go", edits: []string{
			"if w.committing {", "if false {",
		}},
		{name: "an upload serves a second attempt", file: "lease.go", edits: []string{
			"k.spare = nil // spent", "_ = k.spare // spent",
		}},
		{name: "an adopted attempt takes any upload", file: "nodes.go", edits: []string{
			"return j.earlier[attempt]", "for _, u := range j.earlier {\n\t\treturn u\n\t}\n\treturn nil",
		}},
		{name: "a commit begins while uploads are made", file: "commit.go", edits: []string{
			"if j.busy != \"\" || j.creating > 0 {\n\t\treturn\n\t}\n\tj.busy = \"begin", "if j.busy != \"\" {\n\t\treturn\n\t}\n\tj.busy = \"begin",
			"if j.busy != \"\" || j.creating > 0 {\n\t\treturn\n\t}\n\tfor _, a := range", "if j.busy != \"\" {\n\t\treturn\n\t}\n\tfor _, a := range",
		}, test: "TestAStragglerEndsWhileItsSecondUploadIsMade"},
		{name: "a clean-up begins while uploads are made", file: "cleanup.go", edits: []string{
			"j.busy != \"\" || j.creating > 0 || len(j.live) > 0", "j.busy != \"\" || len(j.live) > 0",
		}},
		{name: "the ledger is not checked again", file: "job.go", edits: []string{
			"rec.Phase == state.PhaseCommitting && !j.recheck:", "rec.Phase == state.PhaseCommitting:",
		}},
		{name: "the ledger is not checked", file: "../state/commit.go", edits: []string{
			"case !j.MapOnly() && j.MapLedger != j.Fetched:", "case false:",
		}},
		{name: "a commit begins before it is logged", file: "job.go", edits: []string{
			"case outputDone && rec.Phase == state.PhaseCommitting && !j.recheck:", "case outputDone:",
		}},
		{name: "a committing job can be cancelled", file: "../state/jobs.go", edits: []string{
			"if j.Ended() || j.Ending != \"\" || j.Phase == PhaseCommitting {", "if j.Ended() || j.Ending != \"\" {",
		}},
		{name: "a part that is lost fails the job", file: "objects.go", edits: []string{
			"if errors.Is(err, errRedo) {", "if false {",
		}},
		{name: "a part that is lost is passed over", file: "objects.go", edits: []string{
			"if len(redo) > 0 {", "if false {",
		}},
		{name: "a part is made again while its first upload is there", file: "objects.go", edits: []string{
			"if err := t.abort(ctx, j, upload{id: p.win.UploadID, key: p.key}); err != nil {", "if err := error(nil); err != nil {",
		}},
		{name: "the second completion of a task replaces the first", file: "../state/tasks.go", edits: []string{
			"case task.Done:\n\t\treturn refused(RefusedOtherWon)", "case false:\n\t\treturn refused(RefusedOtherWon)",
		}, test: "TestAStragglerAndItsSecondAttemptEndAtOnce"},
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
			if m.test != "" {
				out, err := exec.Command(bin, "-test.run", "^"+m.test+"$", "-test.timeout", "2m").CombinedOutput()
				if err == nil || !strings.Contains(string(out), "--- FAIL: "+m.test) {
					t.Errorf("%s does not see that %s: %v\n%s", m.test, m.name, err, out)
				}
				return
			}
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
