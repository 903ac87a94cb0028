package blockstore_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
	"millrace/hdfs/blockstore"
	"millrace/hdfs/blockstore/faultyfs"
	"millrace/pkg/nodedir"
)

func TestFoldersThatAreRefused(t *testing.T) {
	ours := t.TempDir()
	require.NoError(t, open(t, blockstore.Config{Dirs: []string{ours}}).Close())
	identity := func(says string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "disk.json"), []byte(says), 0o600))
		}
	}
	for name, c := range map[string]struct {
		make func(t *testing.T, dir string)
		is   error
		says string
	}{
		"another cluster's": {identity(`{"format":1,"cluster":"j-OTHER","disk":"X"}`), blockstore.ErrForeign, "it has blocks of j-OTHER, this node is in j-TEST: name another folder, or empty this one"},
		"a newer format":    {identity(`{"format":2,"shape":[]}`), blockstore.ErrNewer, "it has format 2, this program knows 1: start the version that has written it"},
		"no JSON":           {identity(`{"format":1,`), nil, "it is damaged (unexpected end of JSON input): write it again"},
		"nothing in it":     {identity(`{}`), nil, "format, cluster and disk must be there"},
		"blocks of nobody": {func(t *testing.T, dir string) {
			require.NoError(t, os.MkdirAll(filepath.Join(dir, "blocks", "01", "b-0000000000000001.1"), 0o700))
		}, nil, "but no disk.json, which says whose they are"},
		"in use": {func(t *testing.T, dir string) { open(t, blockstore.Config{Dirs: []string{dir}}) }, nodedir.ErrInUse, "in use by another process"},
		"a copy": {func(t *testing.T, dir string) {
			raw, err := os.ReadFile(filepath.Join(ours, "disk.json"))
			require.NoError(t, err)
			identity(string(raw))(t, dir)
		}, nil, "are copies of one disk"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c.make(t, dir)
			_, err := blockstore.Open(blockstore.Config{Dirs: []string{ours, dir}, Cluster: "j-TEST"})
			require.ErrorContains(t, err, dir)
			require.ErrorContains(t, err, c.says)
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
			require.NoError(t, open(t, blockstore.Config{Dirs: []string{ours}}).Close(), "the folders are free again")
		})
	}
	for _, c := range []blockstore.Config{{Cluster: "j-TEST"}, {Dirs: []string{ours}}, {Dirs: []string{ours}, Cluster: "j-TEST", Reserve: -1}} {
		_, err := blockstore.Open(c)
		require.Error(t, err)
	}
}

func TestAFolderThatMayNotBegin(t *testing.T) {
	ours, fresh := t.TempDir(), filepath.Join(t.TempDir(), "disk", "blocks")
	require.NoError(t, open(t, blockstore.Config{Dirs: []string{ours}}).Close())
	var asked, failed []string
	c := blockstore.Config{
		Dirs: []string{ours, fresh}, Cluster: "j-TEST",
		MayBegin: func(dir string) error { asked = append(asked, dir); return errors.New("it is not mounted") },
		Failed:   func(d blockstore.Disk) { failed = append(failed, d.Dir+": "+d.Problem) },
	}
	s, err := blockstore.Open(c)
	require.NoError(t, err, "the other one goes on")
	require.Equal(t, []string{fresh}, asked, "not of one that has begun")
	require.Equal(t, []string{fresh + ": it is not mounted"}, failed)
	require.NoDirExists(t, filepath.Dir(fresh))
	require.NoError(t, s.Close())

	c.Dirs = []string{fresh}
	_, err = blockstore.Open(c)
	require.ErrorIs(t, err, blockstore.ErrNoDisks)
	require.ErrorContains(t, err, fresh+": it is not mounted")
}

// disks is a store on disks in memory.
type disks struct {
	fs     *faultyfs.FS
	now    time.Time
	config blockstore.Config

	mu     sync.Mutex
	failed []blockstore.Disk
}

func onDisks(capacity ...int64) *disks {
	d := &disks{now: time.Unix(1_800_000_000, 0)}
	clock := func() time.Time { d.mu.Lock(); defer d.mu.Unlock(); return d.now }
	d.fs = faultyfs.New(1, clock)
	d.config = blockstore.Config{Cluster: "j-TEST", FS: d.fs, Now: clock, Failed: func(one blockstore.Disk) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.failed = append(d.failed, one)
	}}
	for i, c := range capacity {
		dir := "/disk" + string(rune('0'+i))
		d.fs.Disk(dir, c)
		d.config.Dirs = append(d.config.Dirs, dir)
	}
	return d
}

func (d *disks) later(by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = d.now.Add(by)
}

// fails has an operation on a path with this beginning fail for ever.
func (d *disks) fails(op, prefix string, err error) {
	d.fs.Fail(func(o faultyfs.Op) error {
		if strings.HasPrefix(o.Path, prefix) && (op == "" || o.Name == op) {
			return err
		}
		return nil
	})
}

func TestAFailedDiskTakesItsBlocksOutAndNoOthers(t *testing.T) {
	for name, fail := range map[string]func(d *disks){
		"no sync":   func(d *disks) { d.fails("sync", "/disk0", syscall.EIO) },
		"read-only": func(d *disks) { d.fails("mkdir", "/disk0", syscall.EROFS) },
		"dead":      func(d *disks) { d.fails("", "/disk0", syscall.EIO) },
		"unmounted": func(d *disks) { _ = d.fs.Vanish("/disk0"); d.fs.Disk("/disk0", 1<<30) },
	} {
		t.Run(name, func(t *testing.T) {
			d := onDisks(1<<30, 1<<30)
			s := open(t, d.config)
			for id := range hdfs.BlockID(10) {
				put(t, s, id, 1, content(uint64(id), 100))
			}
			require.Equal(t, 5, s.Disks()[0].Blocks)
			fail(d)
			for id := range hdfs.BlockID(10) { // some of them on the bad disk
				w, err := s.Create(hdfs.Block{ID: 100 + id, Stamp: 1})
				if err == nil {
					_ = write(w, content(1, 10))
					_, _ = w.Finalize()
				}
			}
			require.Len(t, d.failed, 1, "told once")
			require.Equal(t, "/disk0", d.failed[0].Dir)
			require.NotEmpty(t, d.failed[0].Problem)
			require.Zero(t, d.failed[0].Blocks)
			require.NoError(t, s.Err())
			is := s.Disks()
			require.NotEmpty(t, is[0].Problem)
			require.Zero(t, is[0].Free)
			require.Empty(t, is[1].Problem)
			final, unfinished := listed(s)
			require.Empty(t, unfinished)
			require.Len(t, final, is[1].Blocks)
			require.GreaterOrEqual(t, len(final), 14, "5 were there, and 9 at least were made")
			for _, b := range final {
				require.NoError(t, verify(s, b))
			}
		})
	}
}

// Nobody reads or writes, and yet a disk that is gone is missed: whoever asks how the disks do is told.
func TestADiskThatIsGoneIsMissedWithoutUse(t *testing.T) {
	d := onDisks(1<<30, 1<<30)
	s := open(t, d.config)
	require.NoError(t, d.fs.Vanish("/disk1"))
	d.fails("open", "/disk0", syscall.EMFILE)
	is := s.Disks()
	require.Empty(t, is[0].Problem, "that it could not be looked at is not the disk's fault")
	require.Contains(t, is[1].Problem, "no such file or directory")
	require.Len(t, d.failed, 1)
	s.Disks()
	require.Len(t, d.failed, 1)
}

func TestTheLastDiskIsTheStores(t *testing.T) {
	d := onDisks(1 << 30)
	s := open(t, d.config)
	put(t, s, 1, 1, content(1, 10))
	w, err := s.Create(hdfs.Block{ID: 2, Stamp: 1})
	require.NoError(t, err)
	d.fails("", "/disk0", syscall.EIO)
	require.ErrorIs(t, write(w, content(1, 10)), blockstore.ErrDisk)
	require.ErrorIs(t, s.Err(), blockstore.ErrNoDisks)
	require.ErrorContains(t, s.Err(), "/disk0: ")
	require.ErrorIs(t, s.Err(), syscall.EIO)
	_, err = s.Create(hdfs.Block{ID: 3, Stamp: 1})
	require.ErrorIs(t, err, blockstore.ErrNoDisks)
	_, err = s.Open(1, 1)
	require.ErrorIs(t, err, blockstore.ErrNoDisks)
	require.NoError(t, w.Close())
	require.NoError(t, s.Close())

	_, err = blockstore.Open(d.config)
	require.ErrorIs(t, err, blockstore.ErrNoDisks, "nor can it start")
	d.fails("", "/none", nil)
	s = open(t, d.config)
	got, err := get(s, 1, 1)
	require.NoError(t, err, "a disk that works again is as it was")
	require.Equal(t, content(1, 10), got)
}

func TestADiskThatDoesNotWorkAtStartIsLeftOut(t *testing.T) {
	d := onDisks(1<<30, 1<<30)
	d.fails("readdir", "/disk1", syscall.EIO)
	s := open(t, d.config)
	require.Empty(t, s.Disks()[0].Problem)
	require.Contains(t, s.Disks()[1].Problem, "input/output error; check that disk")
	put(t, s, 1, 1, content(1, 10))
	require.Len(t, d.failed, 1)
}

func TestFewPlacesThatCannotBeReadAreNotTheDisk(t *testing.T) {
	d := onDisks(1 << 30)
	s := open(t, d.config)
	var bad []hdfs.Block
	for id := range hdfs.BlockID(3) {
		bad = append(bad, put(t, s, id, 1, content(1, 10)))
	}
	good := put(t, s, 0xff, 1, content(2, 10))
	d.fails("read", "/disk0/blocks/0", syscall.EIO)
	for range 3 {
		err := verify(s, bad[0])
		require.ErrorIs(t, err, hdfs.ErrCorrupt)
		require.ErrorContains(t, err, "input/output error")
	}
	require.ErrorIs(t, verify(s, bad[1]), hdfs.ErrCorrupt)
	require.NoError(t, verify(s, good))
	require.NoError(t, s.Err())
	require.ErrorIs(t, verify(s, bad[2]), blockstore.ErrDisk, "but three replicas are too many")
	require.ErrorIs(t, s.Err(), blockstore.ErrNoDisks)
	require.ErrorContains(t, s.Err(), "3 blocks on it could not be read")
}

func TestShortageOfDescriptorsIsNobodysFault(t *testing.T) {
	d := onDisks(1 << 30)
	s := open(t, d.config)
	b := put(t, s, 1, 1, content(1, 10))
	d.fails("open", "/disk0", syscall.EMFILE)
	err := verify(s, b)
	require.ErrorIs(t, err, syscall.EMFILE)
	require.NotErrorIs(t, err, hdfs.ErrCorrupt)
	_, err = s.Create(hdfs.Block{ID: 2, Stamp: 1})
	require.ErrorContains(t, err, "raise it")
	require.NoError(t, s.Err())
	d.fails("", "/none", nil)
	require.NoError(t, verify(s, b))
	put(t, s, 2, 1, content(1, 10))
}

func TestTheReserveStaysFree(t *testing.T) {
	const capacity, reserve = 40 * chunk, 10 * chunk
	d := onDisks(capacity)
	d.config.Reserve = reserve
	s := open(t, d.config)
	var wg sync.WaitGroup
	for id := range hdfs.BlockID(12) { // 48 chunks are wanted, 29 fit
		wg.Go(func() {
			w, err := s.Create(hdfs.Block{ID: id, Stamp: 1})
			for range 4 {
				if err == nil {
					err = write(w, content(uint64(id), chunk))
				}
			}
			if err == nil {
				_, err = w.Finalize()
			}
			if err != nil && !errors.Is(err, hdfs.ErrNoSpace) {
				t.Errorf("block %s: %v", id, err)
			}
			_, free, _ := d.fs.Room("/disk0")
			if free < reserve {
				t.Errorf("%d bytes are free", free)
			}
		})
	}
	wg.Wait()
	final, unfinished := listed(s)
	require.Empty(t, unfinished, "nothing is half there")
	names, err := d.fs.ReadDir("/disk0/writing")
	require.NoError(t, err)
	require.Empty(t, names)
	for _, b := range final {
		require.NoError(t, verify(s, b))
	}
	require.NoError(t, s.Err(), "a full disk is not a broken one")
	_, err = s.Create(hdfs.Block{ID: 100, Stamp: 1, Size: capacity})
	require.ErrorIs(t, err, hdfs.ErrNoSpace)
	require.ErrorContains(t, err, "no disk has 2621440 bytes beside the 655360 that are kept free")
	for _, b := range final {
		require.NoError(t, s.Delete(b.ID, b.Stamp))
	}
	put(t, s, 101, 1, content(1, 20*chunk))
	is := s.Disks()[0]
	require.Equal(t, int64(20*chunk), is.Used)
	require.InDelta(t, 10*chunk, is.Free, 1000)
	require.Equal(t, int64(capacity), is.Capacity)
}

func TestADiskThatFillsUpUnexpectedly(t *testing.T) {
	for _, op := range []string{"write", "sync", "rename", "syncdir"} {
		d := onDisks(1 << 30)
		s := open(t, d.config)
		put(t, s, 1, 1, content(1, chunk))
		w, err := s.Create(hdfs.Block{ID: 1, Stamp: 2})
		require.NoError(t, err)
		d.fails(op, "/disk0", syscall.ENOSPC)
		err = write(w, content(2, chunk))
		if err == nil {
			_, err = w.Finalize()
		}
		require.ErrorIs(t, err, hdfs.ErrNoSpace, op)
		require.ErrorContains(t, err, "make room on that disk", op)
		require.NoError(t, s.Err())
		final, unfinished := listed(s)
		require.Equal(t, []hdfs.Block{{ID: 1, Stamp: 1, Size: chunk}}, final, "what was there stays")
		require.Empty(t, unfinished)
		d.fails("", "/none", nil)
		put(t, s, 1, 2, content(2, chunk))
	}
}

func TestDisksTakeTurnsAsLongAsTheyHaveMuchRoom(t *testing.T) {
	d := onDisks(100*chunk, 100*chunk, 30*chunk)
	s := open(t, d.config)
	for id := range hdfs.BlockID(20) {
		put(t, s, id, 1, content(uint64(id), chunk))
	}
	is := s.Disks()
	require.Equal(t, []int{10, 10, 0}, []int{is[0].Blocks, is[1].Blocks, is[2].Blocks}, "the third is much fuller")
	for id := range hdfs.BlockID(100) {
		put(t, s, 1000+id, 1, content(uint64(id), chunk))
	}
	is = s.Disks()
	require.InDelta(t, is[0].Blocks, is[1].Blocks, 10)
	require.Greater(t, is[2].Blocks, 2, "now it has as much room as the others")
}
