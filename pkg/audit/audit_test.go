package audit

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var noon = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

func lines(t *testing.T, path string) (events []Event) {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		var e Event
		require.NoError(t, json.Unmarshal(in.Bytes(), &e), in.Text())
		events = append(events, e)
	}
	return events
}

func opened(t *testing.T, c Config) *Log {
	t.Helper()
	if c.Dir == "" {
		c.Dir = filepath.Join(t.TempDir(), "audit")
	}
	l, err := Open(c)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

func TestALineForEachEvent(t *testing.T) {
	l := opened(t, Config{})
	want := Event{At: noon, User: "alice", Role: "admin", Peer: "10.0.0.9:4711", Procedure: "/millrace.v1.MillraceService/ExecNode",
		Subject: `node=i-1 command=["rm","a\nb"]`, Outcome: "ok"}
	l.Audit(want)
	require.NoError(t, l.Close())

	again := opened(t, Config{Dir: l.cfg.Dir})
	again.Audit(Event{At: noon, Outcome: strings.Repeat("ä", maxText)})
	got := lines(t, l.path(name))
	require.Len(t, got, 2, "it goes on where it was")
	require.Equal(t, want, got[0])
	require.Less(t, len(got[1].Outcome), maxText+8)

	for path, mode := range map[string]os.FileMode{l.path(name): 0o600, l.cfg.Dir: 0o700 | os.ModeDir} {
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode(), path)
	}
}

func TestItsFilesAreBounded(t *testing.T) {
	l := opened(t, Config{FileBytes: 1000, Files: 3})
	for i := range 200 {
		l.Audit(Event{At: noon.Add(time.Duration(i) * time.Second), Procedure: "/x/Y", Outcome: "ok"})
	}
	files, err := filepath.Glob(l.path("*"))
	require.NoError(t, err)
	require.Len(t, files, 4)
	for _, f := range files {
		info, err := os.Stat(f)
		require.NoError(t, err)
		require.LessOrEqual(t, info.Size(), int64(1000))
	}
	last := lines(t, l.path(name))
	require.Equal(t, noon.Add(199*time.Second), last[len(last)-1].At)
}

// Who is refused a thousand times a second neither fills the log nor pushes out of it what was changed.
func TestRefusedCallsHaveALineAsLongAsTheyAreFew(t *testing.T) {
	l := opened(t, Config{})
	for i := range 1000 {
		l.Audit(Event{At: noon.Add(time.Duration(i) * time.Millisecond), Refused: true})
	}
	l.Audit(Event{At: noon.Add(time.Second), Outcome: "ok"})
	l.Audit(Event{At: noon.Add(2 * time.Second), Refused: true})
	got := lines(t, l.path(name))
	written, omitted := 0, 0
	for _, e := range got {
		if e.Refused {
			written, omitted = written+1, omitted+e.Omitted
		}
	}
	require.Less(t, written, burst+10)
	require.Equal(t, 1001, written+omitted, "each has a line or is counted")
	require.Equal(t, "ok", got[len(got)-2].Outcome)
}

func TestADiskThatTakesNothingIsToldOnce(t *testing.T) {
	var told []error
	l := opened(t, Config{Failed: func(err error) { told = append(told, err) }})
	require.NoError(t, l.file.Close())
	for range 3 {
		l.Audit(Event{At: noon})
	}
	require.Len(t, told, 1)
	require.True(t, errors.Is(told[0], os.ErrClosed), told[0])
}
