package session

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/master/state"
	"millrace/pkg/api"
)

func (s *fakeStream) probed(id uint64, why string) {
	s.in <- &api.WorkerMessage{Message: &api.WorkerMessage_Probed{Probed: &api.StoreProbed{Id: id, Error: why}}}
}

func TestProbe(t *testing.T) {
	in(t, func(t *testing.T, s *site) {
		s.apply(state.PutNode{Node: state.Node{ID: "i-b", Cluster: "j-1", Group: "ig-c", Role: state.RoleCore, State: state.NodeAdmitted}})
		a, b := newStream(), newStream()
		s.serve("i-a", a)
		a.hello("i-a", "one", 0)
		s.serve("i-b", b)
		b.hello("i-b", "one", 0)
		synctest.Wait()
		heard := len(s.diary.read())

		type answer struct {
			reason string
			err    error
		}
		ask := func(node string, within time.Duration) <-chan answer {
			got := make(chan answer, 1)
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), within)
				defer cancel()
				reason, err := s.Probe(ctx, node, &api.StoreProbe{})
				got <- answer{reason, err}
			}()
			synctest.Wait()
			return got
		}
		first := ask("i-a", time.Minute)
		require.Contains(t, a.got(), "Probe")
		b.probed(1, "this is another node's question")
		a.probed(7, "nobody asked")
		a.probed(1, "connection refused")
		require.Equal(t, answer{"connection refused", nil}, <-first)

		second := ask("i-b", time.Minute)
		b.probed(2, "")
		b.probed(2, "twice")
		require.Equal(t, answer{}, <-second)
		require.Len(t, s.diary.read(), heard, "answers are nobody else's business")

		require.ErrorIs(t, (<-ask("i-nobody", time.Minute)).err, ErrNotConnected)
		require.ErrorIs(t, (<-ask("i-a", time.Second)).err, context.DeadlineExceeded)
		gone := ask("i-b", time.Minute)
		b.end(io.ErrUnexpectedEOF)
		require.ErrorIs(t, (<-gone).err, ErrNotConnected, "it was killed while it was asked")
		last := ask("i-a", time.Minute)
		s.Close()
		require.ErrorIs(t, (<-last).err, ErrClosed)
		require.Empty(t, s.probes.waiting)
	})
}
