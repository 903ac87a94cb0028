package shuffle

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// noDescriptors lets this process open nothing more until the function returned is called.
func noDescriptors(t *testing.T) (again func()) {
	t.Helper()
	var was syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was))
	none := was
	none.Cur = 0
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none))
	over := false
	again = func() {
		if !over {
			over = true
			require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was))
		}
	}
	t.Cleanup(again)
	return again
}

// That a node is out of descriptors says nothing about its segments: they are neither missing nor damaged.
func TestASegmentThatCannotBeOpenedIsNotMissing(t *testing.T) {
	n := newNode(t, "i-a")
	n.add(0, 1, 10)
	again := noDescriptors(t)
	_, err := n.store.open(job, attemptOf(0), 0)
	again()
	require.ErrorIs(t, err, syscall.EMFILE)
	require.NotErrorIs(t, err, ErrMissing)
	require.NotErrorIs(t, err, errDamaged)
}

// TestDescriptorsComeBack: those who wait for a descriptor fetch on when there are some again.
func TestDescriptorsComeBack(t *testing.T) {
	for where, self := range map[string]bool{"on this node": true, "on another": false} {
		t.Run(where, func(t *testing.T) {
			n := newNode(t, "i-self")
			if !self {
				n.id = "i-a"
			}
			for m := range 3 {
				n.add(m, 2, 50)
			}
			r := startReduce(t, n, 3, func(c *FetcherConfig) {
				c.GiveUp, c.Stall = 20*time.Second, 10*time.Second
				if self {
					c.Store = n.store
				}
			})
			r.Update(n.locs[:1], nil) // its connection and spool are open
			require.Eventually(t, func() bool { r.mu.Lock(); defer r.mu.Unlock(); return len(r.got) == 1 }, time.Minute, time.Millisecond)
			again := noDescriptors(t)
			r.Update(n.locs[1:], nil)
			time.Sleep(300 * time.Millisecond) // time to run into it; the outcome is the same without
			again()
			r.check(n.want)
			require.Empty(t, r.problems)
		})
	}
}

func TestDescriptorsThatStayAwayFailTheFetch(t *testing.T) {
	n := newNode(t, "i-self")
	n.add(0, 2, 10)
	n.add(1, 2, 10)
	r := startReduce(t, n, 2, func(c *FetcherConfig) { c.Store, c.NoRoom = n.store, time.Millisecond })
	r.Update(n.locs[:1], nil)
	require.Eventually(t, func() bool { r.mu.Lock(); defer r.mu.Unlock(); return len(r.got) == 1 }, time.Minute, time.Millisecond)
	again := noDescriptors(t)
	r.Update(n.locs[1:], nil)
	err := <-r.done
	again()
	require.ErrorIs(t, err, syscall.EMFILE)
	require.Empty(t, r.problems)
}
