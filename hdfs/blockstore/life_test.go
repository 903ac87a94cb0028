package blockstore_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
	"millrace/hdfs/blockstore"
	"millrace/hdfs/blockstore/faultyfs"
)

func TestUnfinishedReplicasWaitForRecoverAndThenGo(t *testing.T) {
	d := onDisks(1 << 30)
	d.config.KeepUnfinished = time.Hour
	s := open(t, d.config)
	begin := func(id hdfs.BlockID) *blockstore.Writer {
		w, err := s.Create(hdfs.Block{ID: id, Stamp: 1})
		require.NoError(t, err)
		require.NoError(t, write(w, content(uint64(id), 2*chunk)))
		return w
	}
	require.NoError(t, begin(1).Close())
	held := begin(2)
	d.later(59 * time.Minute)
	require.NoError(t, begin(3).Close())
	require.Zero(t, s.DropUnfinished())
	d.later(2 * time.Minute)
	require.Equal(t, 1, s.DropUnfinished(), "the first is too old; the second is being written")
	require.NoError(t, write(held, content(2, 10)))
	require.NoError(t, s.Close())

	s = open(t, d.config)
	_, unfinished := listed(s)
	require.Equal(t, []hdfs.Block{{ID: 2, Stamp: 1, Size: 2*chunk + 10}, {ID: 3, Stamp: 1, Size: 2 * chunk}}, unfinished)
	require.Equal(t, int64(4*chunk+10), s.Disks()[0].Used)
	w, err := s.Recover(3, 1, 2, chunk)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.NoError(t, s.Close())

	d.later(61 * time.Minute)
	s = open(t, d.config)
	final, unfinished := listed(s)
	require.Empty(t, final)
	require.Empty(t, unfinished)
	names, err := d.fs.ReadDir("/disk0/writing")
	require.NoError(t, err)
	require.Empty(t, names)
}

// TestACopyThatBrokeOffCanBeMadeAgain: a copy has the stamp that its block has for good, so that another one comes with the same.
func TestACopyThatBrokeOffCanBeMadeAgain(t *testing.T) {
	d := onDisks(1<<30, 1<<30)
	s := open(t, d.config)
	w, err := s.Create(hdfs.Block{ID: 1, Stamp: 4})
	require.NoError(t, err)
	require.NoError(t, write(w, content(1, 2*chunk)))
	_, err = s.Create(hdfs.Block{ID: 1, Stamp: 4})
	require.ErrorIs(t, err, hdfs.ErrExist, "it is being written")
	require.NoError(t, w.Close())
	_, err = s.Create(hdfs.Block{ID: 1, Stamp: 3})
	require.ErrorIs(t, err, hdfs.ErrExist)

	again, err := s.Create(hdfs.Block{ID: 1, Stamp: 4})
	require.NoError(t, err)
	require.Zero(t, again.Size())
	require.NoError(t, write(again, content(2, chunk+5)))
	b, err := again.Finalize()
	require.NoError(t, err)
	require.NoError(t, s.Verify(t.Context(), b.ID, b.Stamp, nil))
	final, unfinished := listed(s)
	require.Equal(t, []hdfs.Block{b}, final)
	require.Empty(t, unfinished)
	require.NoError(t, s.Close())
}

func TestOpenCleansUp(t *testing.T) {
	d := onDisks(1<<30, 1<<30)
	s := open(t, d.config)
	for id := range hdfs.BlockID(4) {
		put(t, s, id, 2, content(uint64(id), 100))
	}
	var dirs []string
	for id := range hdfs.BlockID(4) {
		r, err := s.Open(id, 2)
		require.NoError(t, err)
		data, sums := r.Files()
		require.NoError(t, r.Close())
		dirs = append(dirs, data[:len(data)-len("/data")])
		switch id {
		case 0: // half-deleted
			require.NoError(t, d.fs.Remove(data))
		case 1: // whole, but there is a later one on the other disk
			require.NoError(t, d.fs.Rename(dirs[1], dirs[1][:len(dirs[1])-1]+"1"))
		case 3:
			require.NoError(t, d.fs.Remove(sums))
		}
	}
	require.NoError(t, d.fs.Mkdir("/disk0/writing/b-0000000000000009.1"))
	require.NoError(t, d.fs.Mkdir("/disk0/writing/b-0000000000000002.1"))
	require.NoError(t, d.fs.Mkdir("/disk0/writing/of somebody else"))
	for _, f := range []string{"data", "sums"} {
		f, err := d.fs.OpenFile("/disk0/writing/b-0000000000000002.1/"+f, os.O_RDWR|os.O_CREATE)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	require.NoError(t, s.Close())

	s = open(t, d.config)
	final, unfinished := listed(s)
	require.Equal(t, []hdfs.Block{{ID: 1, Stamp: 1, Size: 100}, {ID: 2, Stamp: 2, Size: 100}}, final)
	require.Empty(t, unfinished)
	for _, gone := range []string{dirs[0], dirs[3], "/disk0/writing/b-0000000000000009.1", "/disk0/writing/b-0000000000000002.1"} {
		_, err := d.fs.Stat(gone)
		require.ErrorIs(t, err, os.ErrNotExist, gone)
	}
	_, err := d.fs.Stat("/disk0/writing/of somebody else")
	require.NoError(t, err, "what is not ours is left alone")
	require.ErrorIs(t, verify(s, final[0]), hdfs.ErrCorrupt, "somebody has renamed it")
}

func TestAnOlderReplicaGoesWhenTheNewerIsFinal(t *testing.T) {
	d := onDisks(1<<30, 1<<30)
	s := open(t, d.config)
	put(t, s, 1, 1, content(1, 10))
	w, err := s.Create(hdfs.Block{ID: 1, Stamp: 2})
	require.NoError(t, err)
	final, unfinished := listed(s)
	require.Equal(t, []hdfs.Block{{ID: 1, Stamp: 1, Size: 10}}, final)
	require.Equal(t, []hdfs.Block{{ID: 1, Stamp: 2}}, unfinished)
	require.NoError(t, w.Discard())
	_, err = get(s, 1, 1)
	require.NoError(t, err)
	put(t, s, 1, 3, content(1, 20))
	final, _ = listed(s)
	require.Equal(t, []hdfs.Block{{ID: 1, Stamp: 3, Size: 20}}, final)
	require.Equal(t, int64(20), s.Disks()[0].Used+s.Disks()[1].Used)
}

func TestDeletingAnUnfinishedReplicaShutsItsWriterOut(t *testing.T) {
	s := open(t, onDisks(1<<30).config)
	w, err := s.Create(hdfs.Block{ID: 1, Stamp: 1})
	require.NoError(t, err)
	require.ErrorIs(t, s.Delete(1, 2), hdfs.ErrStale)
	require.NoError(t, s.Delete(1, 1))
	require.ErrorIs(t, write(w, content(1, 1)), hdfs.ErrStale)
	_, err = w.Finalize()
	require.ErrorIs(t, err, hdfs.ErrStale)
	require.ErrorIs(t, s.Delete(1, 1), hdfs.ErrNoBlock)
	require.NoError(t, w.Close())
}

func TestAClosedStoreSaysSo(t *testing.T) {
	s := open(t, onDisks(1<<30).config)
	w, err := s.Create(hdfs.Block{ID: 1, Stamp: 1})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	require.ErrorIs(t, write(w, nil), blockstore.ErrClosed)
	_, err = s.Create(hdfs.Block{ID: 2, Stamp: 1})
	require.ErrorIs(t, err, blockstore.ErrClosed)
	require.ErrorIs(t, s.Delete(1, 1), blockstore.ErrClosed)
}

func TestScrubbingGoesByTheLastVerification(t *testing.T) {
	d := onDisks(1<<30, 1<<30)
	s := open(t, d.config)
	start := d.now
	for id := range hdfs.BlockID(5) { // block 0 is the oldest
		put(t, s, id, 1, content(uint64(id), 10))
		d.later(time.Hour)
	}
	order := func(before time.Time, each func(hdfs.Block)) (ids []hdfs.BlockID) {
		for b, at := range s.Scrub(before) {
			require.Equal(t, start.Add(time.Duration(b.ID)*time.Hour).Unix(), at.Unix())
			each(b)
			ids = append(ids, b.ID)
			if len(ids) == 10 {
				break
			}
		}
		return ids
	}
	require.NoError(t, s.Close())
	s = open(t, d.config)
	require.Equal(t, []hdfs.BlockID{0, 1}, order(start.Add(time.Hour+1), func(b hdfs.Block) { require.NoError(t, verify(s, b)) }))
	require.NoError(t, s.Close())
	s = open(t, d.config) // the times are on the disk
	d.fs.Fail(func(o faultyfs.Op) error {
		if o.Name == "read" && strings.Contains(o.Path, "/blocks/03/") {
			return errors.New("no reason")
		}
		return nil
	})
	require.Equal(t, []hdfs.BlockID{2, 3, 4}, order(d.now, func(b hdfs.Block) {
		err := verify(s, b)
		require.Equal(t, b.ID == 3, err != nil, "%v", err)
	}), "one that fails does not hold the others up")
	d.fails("", "/none", nil)
	require.NoError(t, s.Close())
	s = open(t, d.config)
	for b := range s.Scrub(d.now.Add(time.Hour)) {
		require.Equal(t, hdfs.BlockID(3), b.ID, "what was not verified comes first after a restart")
		break
	}
}

func TestVerifyingKeepsToTheRateAndEndsWhenTold(t *testing.T) {
	s := open(t, onDisks(1<<30).config)
	b := put(t, s, 1, 1, content(1, 40*chunk+5))
	var asked []int
	require.NoError(t, s.Verify(t.Context(), 1, 1, func(_ context.Context, n int) error {
		asked = append(asked, n)
		return nil
	}))
	require.Equal(t, []int{16 * chunk, 16 * chunk, 8*chunk + 5}, asked)
	ctx, cancel := context.WithCancel(t.Context())
	err := s.Verify(ctx, 1, 1, func(ctx context.Context, n int) error {
		cancel()
		return ctx.Err()
	})
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, verify(s, b))
}

// TestManyAtOnce has everything happen to a few blocks at once; the race detector looks on.
func TestManyAtOnce(t *testing.T) {
	d := onDisks(1<<30, 1<<30, 1<<30)
	s := open(t, d.config)
	var wg sync.WaitGroup
	stamp := make(chan hdfs.Stamp)
	done := make(chan struct{})
	wg.Go(func() {
		for i := hdfs.Stamp(1); ; i++ {
			select {
			case stamp <- i:
			case <-done:
				return
			}
		}
	})
	var workers sync.WaitGroup
	for seed := range uint64(8) {
		workers.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, 1))
			for range 100 {
				id := hdfs.BlockID(rnd.IntN(3))
				whole := contents[id][:3*chunk]
				at := <-stamp
				switch rnd.IntN(5) {
				case 0, 1:
					w, err := s.Create(hdfs.Block{ID: id, Stamp: at})
					for n := 0; err == nil && n < len(whole); n += chunk {
						err = write(w, whole[n:n+chunk])
					}
					if err == nil && rnd.IntN(4) > 0 {
						_, err = w.Finalize()
					}
					if w != nil {
						_ = w.Close()
					}
					if err != nil && !errors.Is(err, hdfs.ErrStale) && !errors.Is(err, hdfs.ErrExist) {
						t.Errorf("write: %v", err)
					}
				case 2:
					w, err := s.Recover(id, 0, at, chunk)
					if err == nil {
						err = write(w, whole[chunk:])
					}
					if err == nil {
						_, err = w.Finalize()
					}
					if errors.Is(err, blockstore.ErrDisk) || errors.Is(err, hdfs.ErrNoSpace) {
						t.Errorf("recover: %v", err)
					}
				default:
					for b, unfinished := range s.Blocks() {
						if unfinished || b.ID != id {
							continue
						}
						got, err := get(s, b.ID, b.Stamp)
						if err == nil && !bytes.Equal(got, whole) {
							t.Errorf("%s reads wrong", b)
						}
						if errors.Is(err, hdfs.ErrCorrupt) {
							t.Errorf("read: %v", err)
						}
						if err := verify(s, b); errors.Is(err, hdfs.ErrCorrupt) {
							t.Errorf("verify: %v", err)
						}
						if rnd.IntN(3) == 0 {
							_ = s.Delete(b.ID, b.Stamp)
						}
					}
				}
			}
		})
	}
	workers.Wait()
	close(done)
	wg.Wait()
	require.NoError(t, s.Err())
	d.fails("", "/none", nil)
	names := 0
	for b := range s.Blocks() {
		require.NoError(t, s.Delete(b.ID, b.Stamp))
	}
	for _, dir := range d.config.Dirs {
		for _, below := range []string{"writing", "blocks/00", "blocks/01", "blocks/02"} {
			left, err := d.fs.ReadDir(dir + "/" + below)
			require.NoError(t, err)
			names += len(left)
		}
	}
	require.Zero(t, names, "nothing is left on the disks")
	for _, is := range s.Disks() {
		require.Zero(t, is.Used)
		require.Zero(t, is.Blocks)
	}
}
