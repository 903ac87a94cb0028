package trial

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/cmd/chaos/checker"
	"millrace/cmd/chaos/schedule"
	"millrace/cmd/chaos/workload"
)

func TestAReportSaysHowToReplay(t *testing.T) {
	b := checker.NewBook(func() time.Time { return time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC) })
	b.Intend(checker.Job{Name: "one", Prefix: "one/", Ends: []string{"COMPLETED"}})
	b.Acknowledged("one", "s-1")
	b.Look().Judge(nil, nil)
	r := Report{Seed: 7, Length: 3 * time.Minute, Dir: "/x", Private: true, Faults: map[schedule.Kind]int{schedule.Kill: 2, schedule.Fill: 1}, Jobs: map[string]map[string]int{}, Found: b.Found(),
		Deeds: map[string]int{"put done": 4, "move not": 1}, FilesRead: 9, Files: 3, Blocks: 5, Replicas: 15, Stored: 300, Whole: time.Minute}
	r.count(b, map[string]workload.Order{"one": {Kind: "cat"}})
	var out bytes.Buffer
	r.Print(&out)
	for _, said := range []string{"fill 1, kill 2", "1 DISCREPANCIES, the first at 2026-01-01T12:00:00Z", "what was acknowledged survives: one s-1", "make chaos MINUTES=3 SEED=7", "/x/events.jsonl", "unknown 1",
		"move not 1, put done 4", "9 reads; in the end 3 files, 5 blocks, 15 replicas of 300 bytes, whole 1m0s after the last fault"} {
		require.Contains(t, out.String(), said)
	}
	require.NotContains(t, out.String(), "on their way")
	r.Found, r.Private, r.LateUploads = nil, false, 2
	out.Reset()
	r.Print(&out)
	require.Contains(t, out.String(), "no discrepancy\n")
	require.Contains(t, out.String(), "2 empty uploads came of requests that were on their way when their job was about to end")
	require.Contains(t, out.String(), "no partitions, no full disks", "a run that could not do all says so")
}

func TestAJournalIsALineOfJSONPerEvent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	j, err := openJournal(path)
	require.NoError(t, err)
	j.write("fault", map[string]any{"fault": schedule.Fault{N: 1, Kind: schedule.Kill, Target: "core-1"}})
	j.write("job", map[string]any{"name": "one"})
	require.NoError(t, j.close())
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	require.Len(t, lines, 2)
	var event struct {
		At    time.Time
		Event string
		Fault schedule.Fault
	}
	require.NoError(t, json.Unmarshal(lines[0], &event))
	require.Equal(t, "fault", event.Event)
	require.Equal(t, schedule.Kill, event.Fault.Kind)
	require.WithinDuration(t, time.Now(), event.At, time.Minute)
}
