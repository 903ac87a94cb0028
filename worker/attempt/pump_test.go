package attempt

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
)

// What a child has said before its result is the attempt's, also if the child has ended by then and its words are still unread.
func TestTheLastWordsOfAChildThatHasEndedAreKept(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	_, err = w.WriteString("last words\n")
	require.NoError(t, err)
	require.NoError(t, w.Close())

	late := &pump{r: r, done: make(chan struct{})}
	asked := func() bool {
		late.mu.Lock()
		defer late.mu.Unlock()
		return len(late.waiting) > 0
	}
	go func() {
		for !asked() {
			runtime.Gosched()
		}
		late.run()
	}()
	c := &child{pump: late, exited: make(chan struct{}), gone: make(chan struct{})}
	close(c.exited)

	logs := NewLogs(t.TempDir(), 0)
	out := logs.create("s-1", "s-1-m-00000-1-1")
	late.to(out)
	result := &api.AttemptResult{Failure: &api.Failure{}}
	(&Pool{}).settle(c, out, result)
	require.NoError(t, out.Close())

	require.Equal(t, "last words\n", result.Failure.StderrTail)
	kept, err := os.ReadFile(filepath.Join(logs.dir, "s-1", "s-1-m-00000-1-1.log"))
	require.NoError(t, err)
	require.Equal(t, "last words\n", string(kept))
}
