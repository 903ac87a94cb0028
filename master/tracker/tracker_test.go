package tracker

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"millrace/master/state"
)

// inWorld runs a test in a bubble with its own clock.
func inWorld(t *testing.T, f func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		f(t, w)
	})
}

func TestWholeJob(t *testing.T) {
	for name, reduces := range map[string]int{"map and reduce": 3, "map only": 0} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a := w.join("i-a", state.RoleCore, 2)
				b := w.join("i-b", state.RoleTask, 2)
				w.lead()
				w.submit(11, reduces, nil)
				j := w.await()
				w.committed()
				require.Equal(t, 11, j.Maps)
				require.LessOrEqual(t, a.most, 2)
				require.LessOrEqual(t, b.most, 2)
				require.NotContains(t, w.names, "ListUploads", "nobody asks for strays when nothing went wrong")
				require.NotContains(t, w.names, "AbortUpload")
				synctest.Wait()
				require.Empty(t, a.held, "what was kept for the job is freed")
			})
		})
	}
}
