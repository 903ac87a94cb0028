package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/cmd/cli/view"
)

func TestProgressInAPipeIsPlainLinesOnChange(t *testing.T) {
	var b bytes.Buffer
	a := newApp(Env{Stderr: &b, Getenv: func(string) string { return "xterm" }})
	p := a.newJobProgress()
	j := view.Job{ID: "s-1", State: "PENDING"}
	for range 3 {
		p.update(j)
	}
	j.State, j.Phase = "RUNNING", "MAPPING"
	for done := range int64(101) {
		j.Maps = view.Tasks{Total: 100, Completed: done, Running: 2, Pending: 98 - min(done, 98)}
		j.Progress.BytesPerSecond = 12_300_000 + done
		p.update(j)
	}
	j.Phase = "COMMITTING"
	p.update(j)
	p.close()
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	require.Len(t, lines, 1+11+1)
	require.Equal(t, "s-1 PENDING", lines[0])
	require.Equal(t, "s-1 MAPPING  maps 0 of 100 done, 2 running, 98 queued  12.3 MB/s", lines[1])
	require.NotContains(t, b.String(), "\x1b")
	require.NotContains(t, b.String(), "\r")
}

func TestALogSaysWhenAJobsFirstTaskRunsAndOfOneThatFailedWhatIsDone(t *testing.T) {
	var b bytes.Buffer
	p := newApp(Env{Stderr: &b, Getenv: func(string) string { return "" }}).newJobProgress()
	j := view.Job{ID: "s-1", State: "RUNNING", Phase: "MAPPING", Maps: view.Tasks{Total: 2, Pending: 2}}
	p.update(j)
	j.Maps = view.Tasks{Total: 2, Pending: 1, Running: 1}
	p.update(j)
	p.update(j)
	j.State, j.Maps = "FAILED", view.Tasks{Total: 2, Pending: 2}
	p.update(j)
	require.Equal(t, "s-1 MAPPING  maps 0 of 2 done, 0 running, 2 queued\ns-1 MAPPING  maps 0 of 2 done, 1 running, 1 queued\ns-1 FAILED  maps 0 of 2 done\n", b.String())
}

func TestWithJSONProgressInAPipeSaysNothing(t *testing.T) {
	a := newApp(Env{Stderr: io.Discard, Getenv: func(string) string { return "" }})
	a.json = true
	require.IsType(t, noProgress{}, a.newJobProgress())
}

func TestBarsEndWithoutAJob(t *testing.T) {
	var b bytes.Buffer
	p := newBars(&b, time.Now)
	p.update(view.Job{Maps: view.Tasks{Total: 2, Completed: 1}})
	p.close() // returns
}

func TestWhatBarsSay(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	b := &bars{now: func() time.Time { return now }}
	j := view.Job{State: "RUNNING", Maps: view.Tasks{Total: 10, Completed: 5, Running: 2, Pending: 3}, Reduces: view.Tasks{Total: 2, Pending: 2},
		Progress: view.Progress{BytesPerSecond: 12_300_000, EtaMs: 83_000}, Attempts: view.Attempts{Failed: 1}}
	b.update(j)
	require.Equal(t, []string{
		"map    [=========>----------] 5/10  2 running, 3 queued  1 attempt failed  12.3 MB/s  1m25s left",
		"reduce [----------------------------] 0/2  0 running, 2 queued"}, b.draw(96))
	require.Equal(t, "map    5/10  2 running, 3 queued", strings.SplitN(b.draw(20)[0], "  1 attempt", 2)[0], "the bar goes first")
	now = now.Add(75 * time.Second)
	require.Contains(t, b.draw(120)[0], "1 attempt failed  nothing new for 1m15s", "a stall shows, and no rate that is over")
	j.Reason, j.Reduces = "the store doesn’t answer\x1b[2J", view.Tasks{}
	b.update(j)
	require.Equal(t, "the store doesn?t answer?[2J", b.draw(120)[1])
}

func TestTimeLeftComesInSteps(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "1s", 8400 * time.Millisecond: "8s", 83 * time.Second: "1m25s", 754 * time.Second: "13m", 2*time.Hour + 14*time.Minute: "2h10m", 72 * time.Hour: "3d"} {
		require.Equal(t, want, formatLeft(d))
	}
}

func TestAReaderThatGoesAwayIsNoError(t *testing.T) {
	require.Equal(t, silent{exitOK}, quiet(fmt.Errorf("write: %w", syscall.EPIPE)))
	other := errors.New("other")
	require.Equal(t, other, quiet(other))
	require.NoError(t, quiet(nil))
}

func TestFormats(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 10240: "10 KiB", 1 << 20: "1.0 MiB", 1023 << 10: "1.0 MiB", 128 << 20: "128 MiB", 3 << 29: "1.5 GiB", 1<<63 - 1: "8.0 EiB"} {
		require.Equal(t, want, formatSize(n))
	}
	for d, want := range map[time.Duration]string{-1: "0.00 s", 420 * time.Millisecond: "0.42 s", 12340 * time.Millisecond: "12.3 s", 185 * time.Second: "3m5s"} {
		require.Equal(t, want, formatDuration(d))
	}
	now := time.Now()
	for d, want := range map[time.Duration]string{time.Second: "1s", 5 * time.Minute: "5m", 3 * time.Hour: "3h", 50 * time.Hour: "2d", -time.Second: "0s"} {
		require.Equal(t, want, formatAge(now.Add(-d), now))
	}
	require.Equal(t, "-", formatAge(time.Time{}, now))
}

func TestTablesKeepControlCharactersFromTheTerminal(t *testing.T) {
	var b bytes.Buffer
	tab := newTable(&b, "A", "B")
	tab.row("evil\x1b[2J\tname", "x\u009b")
	tab.flush()
	require.Equal(t, "A              B\nevil [2J name  x\n", b.String())
}
