package datanode

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
	"millrace/hdfs/blockstore"
	"millrace/hdfs/wire"
)

func TestWhatIsCalledBadIsReadAtOnce(t *testing.T) {
	s := newSite(t, 1)
	r := s.nodes["i-1"]
	whole, hurt := put(t, r.store, 1, content(1, 200_000)), put(t, r.store, 2, content(2, 200_000))
	damage(t, r.store, r.fs, hurt, 70_000)
	h := listen(t, r.Node)
	require.True(t, h.next(t).Full)
	require.NoError(t, r.Obey(Order{Term: 1, Verify: []hdfs.Block{whole, hurt}}))
	for said := (map[hdfs.BlockID]State{}); said[1] != Verified || said[2] != Bad; { // in the same report, perhaps, or twice
		for _, c := range h.next(t).Changes {
			said[c.Block.ID] = c.State
			require.True(t, c.State != Bad || strings.Contains(c.Reason, "checksum does not match"), c.Reason)
		}
	}

	require.NoError(t, r.Obey(Order{Term: 1, Verify: []hdfs.Block{{ID: 9, Stamp: 1}}}))
	for !h.next(t).First { // the leader is told again what is here
	}
}

// reads is a store of which every replica reads as it is told.
type reads struct {
	Store
	err error
}

func (r reads) Verify(context.Context, hdfs.BlockID, hdfs.Stamp, func(context.Context, int) error) error {
	return r.err
}

func TestWhatAReplicaThatCannotBeReadIs(t *testing.T) {
	b := hdfs.Block{ID: 1, Stamp: 1, Size: 5}
	for _, c := range []struct {
		err            error
		asked, unasked []Change
		relist         bool
	}{
		{err: nil, asked: []Change{{Block: b, State: Verified}}},
		{err: hdfs.ErrCorrupt, asked: []Change{{Block: b, State: Bad, Reason: "checksum does not match"}}, unasked: []Change{{Block: b, State: Bad, Reason: "checksum does not match"}}},
		{err: syscall.EACCES, asked: []Change{{Block: b, State: Bad, Reason: "permission denied"}}, unasked: []Change{{Block: b, State: Bad, Reason: "permission denied"}}},
		{err: hdfs.ErrNoBlock, relist: true},
		{err: hdfs.ErrStale, relist: true},
		{err: blockstore.ErrDisk},
		{err: blockstore.ErrClosed},
		{err: syscall.EMFILE},
	} {
		t.Run(fmt.Sprint(c.err), func(t *testing.T) {
			store, _ := makeStore(t)
			n, err := New(Config{Node: "i-1", Store: reads{Blocks(store), c.err}, Dialer: &site{}})
			require.NoError(t, err)
			for asked, want := range map[bool][]Change{true: c.asked, false: c.unasked} {
				f := n.news.add()
				f.relist = false
				require.NoError(t, n.verify(t.Context(), b, asked, nil))
				require.Equal(t, want, f.pending)
				require.Equal(t, c.relist && asked, f.relist)
				n.news.remove(f)
			}
		})
	}
}

func TestNoMoreIsVerifiedThanThereIsRoomFor(t *testing.T) {
	store, _ := makeStore(t)
	n, err := New(Config{Node: "i-1", Store: Blocks(store), Dialer: &site{}})
	require.NoError(t, err)
	require.NoError(t, n.Obey(Order{Term: 1, Verify: make([]hdfs.Block, maxVerifies-1)}))
	require.NoError(t, n.Obey(Order{Term: 1, Verify: make([]hdfs.Block, 10), Delete: make([]hdfs.Block, 2*maxVerifies)}))
	require.Len(t, n.orders.verifies.items, maxVerifies)
	require.Len(t, n.orders.deletes.items, 2*maxVerifies)
}

func TestACopyThatFailsIsReported(t *testing.T) {
	s := newSite(t, 2)
	r := s.nodes["i-1"]
	b := put(t, r.store, 1, content(2, 100))
	put(t, s.nodes["i-2"].store, 1, content(2, 100))
	h := listen(t, r.Node)
	require.True(t, h.next(t).Full)
	to := []hdfs.Node{s.nodes["i-2"].place()}
	require.NoError(t, r.Obey(Order{Term: 1, Copy: []Copy{{Block: b, To: to}}}))
	failed := h.wait(t, 1, NotCopied)
	require.Equal(t, b, failed.Block)
	require.Equal(t, "i-2", failed.To)
	require.Contains(t, failed.Reason, "exists")

	require.NoError(t, r.Obey(Order{Term: 1, Copy: []Copy{{Block: hdfs.Block{ID: 7, Stamp: 1}, To: to}}}))
	var relisted, told bool
	for !relisted || !told {
		got := h.next(t)
		relisted = relisted || got.First
		for _, c := range got.Changes {
			told = told || c.Block.ID == 7 && c.State == NotCopied
		}
	}
}

// What a member of the pipeline says of the bytes that it got is no word about the replica that they came from.
func TestADamagedCopyIsNotADamagedSource(t *testing.T) {
	store, _ := makeStore(t)
	n, err := New(Config{Node: "i-1", Store: Blocks(store), Dialer: &site{}})
	require.NoError(t, err)
	f := n.news.add()
	c := Copy{Block: hdfs.Block{ID: 1, Stamp: 1}, To: []hdfs.Node{{ID: "i-2"}}}
	n.copyFailed(c, fmt.Errorf("copy: %w", &wire.Fault{Code: wire.Corrupt, Text: "what came"}))
	require.Len(t, f.pending, 1)
	require.Equal(t, NotCopied, f.pending[0].State)
	f.pending = nil
	n.copyFailed(c, n.noSource(c, hdfs.ErrCorrupt))
	require.Len(t, f.pending, 1)
	require.Equal(t, Bad, f.pending[0].State)
	require.True(t, errors.Is(n.noSource(c, hdfs.ErrNoBlock), hdfs.ErrNoBlock))
}

// dropped counts how often unfinished replicas were looked for.
type dropped struct {
	Store
	mu sync.Mutex
	n  int
}

func (d *dropped) DropUnfinished() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.n++
	return d.n % 2
}

func (d *dropped) Verify(ctx context.Context, _ hdfs.BlockID, _ hdfs.Stamp, _ func(context.Context, int) error) error {
	<-ctx.Done() // a round that does not end
	return ctx.Err()
}

func TestUnfinishedReplicasDoNotWaitForTheScrubber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, _ := makeStore(t)
		put(t, store, 1, content(1, 10))
		d := &dropped{Store: Blocks(store)}
		n, err := New(Config{Node: "i-1", Store: d, Dialer: &site{}})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		var run sync.WaitGroup
		run.Go(func() { n.Run(ctx) })
		time.Sleep(10*24*time.Hour + time.Minute)
		cancel()
		run.Wait()
		require.Equal(t, 240, d.n)
		require.NoError(t, store.Close())
	})
}
