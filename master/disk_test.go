package master

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"millrace/master/fsm"
	"millrace/pkg/api"
	"millrace/pkg/client"
)

// failing is a disk that takes nothing while it is told so.
type failing struct {
	logFiles
	with atomic.Pointer[error] // what writes give; nil: they go well
}

func (f *failing) fail(err error) { f.with.Store(&err) }
func (f *failing) mend()          { f.with.Store(nil) }
func (f *failing) write(do func() error) error {
	if err := f.with.Load(); err != nil {
		return *err
	}
	return do()
}

func (f *failing) StoreLogs(l []*raft.Log) error {
	return f.write(func() error { return f.logFiles.StoreLogs(l) })
}
func (f *failing) DeleteRange(a, b uint64) error {
	return f.write(func() error { return f.logFiles.DeleteRange(a, b) })
}
func (f *failing) Set(k, v []byte) error {
	return f.write(func() error { return f.logFiles.Set(k, v) })
}
func (f *failing) SetUint64(k []byte, v uint64) error {
	return f.write(func() error { return f.logFiles.SetUint64(k, v) })
}

// sickSite is masters whose disks can be made to fail.
func sickSite(t *testing.T, n int) (*site, map[*Master]*failing) {
	t.Helper()
	disks := map[*Master]*failing{}
	var last *failing
	put := faults{log: func(files logFiles) logFiles {
		last = &failing{logFiles: files}
		return last
	}}
	s := newSiteWith(t, func(c *Config) { c.faults = put })
	disks[s.masters[0]] = last
	for range n - 1 {
		disks[s.joinWith(func(c *Config) { c.faults = put })] = last
	}
	return s, disks
}

func (s *site) problems() string {
	s.t.Helper()
	return strings.Join(s.cluster().Problems, "\n")
}

// tokens are those that a master knows of.
func tokens(m *Master) (ids []string) {
	for _, t := range m.store.View().Tokens() {
		ids = append(ids, t.ID)
	}
	return ids
}

// A leader whose disk takes nothing leads no longer, and does not again before it does; a follower is told of, and goes on
// by itself. What was acknowledged is there on all of them in the end.
func TestAMasterWhoseDiskFails(t *testing.T) {
	for name, c := range map[string]struct {
		errno syscall.Errno
		leads bool
	}{
		"a leader's is full":     {syscall.ENOSPC, true},
		"a follower's is broken": {syscall.EIO, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, disks := sickSite(t, 3)
			sick := s.leader()
			if !c.leads {
				sick = s.masters[(slices.Index(s.masters, sick)+1)%3]
			}
			others := slices.DeleteFunc(slices.Clone(s.masters), func(m *Master) bool { return m == sick })
			var acknowledged []string
			make := func() {
				t.Helper()
				cl, err := client.New(client.Config{Servers: []string{others[0].Address(), others[1].Address()}, Credential: s.admin.Credential()})
				require.NoError(t, err)
				defer cl.Close()
				var resp *connect.Response[api.JoinToken]
				s.eventually("a command is taken", func() bool { // it is not one that the client itself repeats
					resp, err = cl.API().CreateJoinToken(t.Context(), connect.NewRequest(&api.CreateJoinTokenRequest{Role: "core"}))
					return err == nil
				})
				acknowledged = append(acknowledged, resp.Msg.Id)
			}
			make()
			disks[sick].fail(c.errno)
			for range 3 {
				make()
			}
			s.eventually("another leads", func() bool { return s.leader() != sick })
			s.eventually("it is named with its trouble", func() bool {
				said := s.problems()
				return strings.Contains(said, "MASTER node "+sick.ID()) && strings.Contains(said, c.errno.Error()) &&
					strings.Contains(said, "2 of 3 masters that vote are up")
			})
			require.False(t, sick.server.Leads())

			disks[sick].mend()
			s.eventually("it has what it missed", func() bool {
				have := tokens(sick)
				return !slices.ContainsFunc(acknowledged, func(id string) bool { return !slices.Contains(have, id) })
			})
			s.eventually("nothing is said of it any more", func() bool { return !strings.Contains(s.problems(), sick.ID()) })
			s.eventually("it can lead", func() bool {
				return sick.server.Leads() || s.leader().raft.LeadershipTransferToServer(sick.raft.id, sick.raft.address).Error() == nil && false
			})
			make()
		})
	}
}

// The only master says what is wrong with it, and goes on when that is mended; it ends in order though it is not.
func TestTheOnlyMastersDiskFails(t *testing.T) {
	s, disks := sickSite(t, 1)
	m := s.masters[0]
	s.token("core")
	before := tokens(m)
	disks[m].fail(syscall.ENOSPC)
	cl, err := client.New(client.Config{Servers: []string{m.Address()}, Credential: s.admin.Credential(), RetryFor: -1})
	require.NoError(t, err)
	defer cl.Close()
	ask := func() error {
		_, err := cl.API().CreateJoinToken(t.Context(), connect.NewRequest(&api.CreateJoinTokenRequest{Role: "core"}))
		return err
	}
	require.Error(t, ask(), "what is not on the disk is not acknowledged")
	s.eventually("it says why", func() bool {
		said := client.Problems(ask())
		return said != nil && slices.Contains(said.Errors, "the master that answers has no part in anything: the log's disk: append to the log: no space left on device; make room on that disk (df -h, df -i)")
	})
	disks[m].mend()
	s.eventually("it leads again", func() bool { return m.server.Leads() && ask() == nil })
	require.Subset(t, tokens(m), before)

	disks[m].fail(syscall.EIO)
	s.eventually("it leads no longer", func() bool { return ask() != nil && !m.server.Leads() })
	require.NoError(t, m.Close())
}

// A snapshot that finds no room leaves the last one, nothing of itself, and is told of until one is written.
func TestASnapshotThatFindsNoRoom(t *testing.T) {
	var full atomic.Bool
	s := newSiteWith(t, func(c *Config) {
		c.faults.snapshots = func(store raft.SnapshotStore) raft.SnapshotStore { return &fullSnapshots{store, &full} }
	})
	m := s.masters[0]
	folders := func() (names []string) {
		list, err := os.ReadDir(m.dir.Path("raft", "snapshots"))
		require.NoError(t, err)
		for _, e := range list {
			names = append(names, e.Name())
		}
		return names
	}
	s.token("core")
	require.NoError(t, m.raft.Snapshot().Error())
	before := folders()
	require.Len(t, before, 1)

	full.Store(true)
	for range 3 {
		s.token("core")
		require.ErrorContains(t, m.raft.Snapshot().Error(), "no space left")
	}
	require.Equal(t, before, folders())
	require.Contains(t, s.problems(), "MASTER node "+m.ID()+" ("+m.id.Name+"): no snapshot can be written, the last one stays: no space left on device; make room on that disk")
	require.True(t, m.server.Leads(), "it goes on nevertheless")

	full.Store(false)
	s.token("core")
	require.NoError(t, m.raft.Snapshot().Error())
	require.NotContains(t, s.problems(), "snapshot")

	// What a process that was killed has left of one goes at the next start.
	left := filepath.Join(m.dir.Path("raft", "snapshots"), "9-9-9.tmp")
	require.NoError(t, os.Mkdir(left, 0o700))
	require.NoError(t, m.Close())
	s.open(m.cfg)
	require.NoDirExists(t, left)
}

type fullSnapshots struct {
	raft.SnapshotStore
	full *atomic.Bool
}

func (f *fullSnapshots) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, ci uint64, t raft.Transport) (raft.SnapshotSink, error) {
	sink, err := f.SnapshotStore.Create(v, index, term, c, ci, t)
	return &fullSink{sink, f.full}, err
}

type fullSink struct {
	raft.SnapshotSink
	full *atomic.Bool
}

func (f *fullSink) Write(p []byte) (int, error) {
	if f.full.Load() {
		return 0, syscall.ENOSPC
	}
	return f.SnapshotSink.Write(p)
}

// Cancel fails as Raft's own does when what is buffered finds no room: it then leaves the files.
func (f *fullSink) Cancel() error {
	if f.full.Load() {
		return syscall.ENOSPC
	}
	return f.SnapshotSink.Cancel()
}

// memory is logFiles in memory.
type memory struct{ *raft.InmemStore }

func (memory) Close() error { return nil }

// Votes are waited for, and entries in the place of others that were removed: Raft cannot go on without. Other entries are not.
func TestWhatIsWaitedFor(t *testing.T) {
	entry := func(i uint64) []*raft.Log { return []*raft.Log{{Index: i}} }
	for name, c := range map[string]struct {
		before func(d *disk)
		do     func(d *disk) error
		waits  bool
	}{
		"a term":                         {nil, func(d *disk) error { return d.SetUint64([]byte("CurrentTerm"), 7) }, true},
		"a vote":                         {nil, func(d *disk) error { return d.Set([]byte("LastVoteCand"), []byte("x")) }, true},
		"an entry":                       {nil, func(d *disk) error { return d.StoreLogs(entry(4)) }, false},
		"the removal of entries":         {nil, func(d *disk) error { return d.DeleteRange(1, 2) }, false},
		"an entry in another's place":    {func(d *disk) { d.DeleteRange(3, 3) }, func(d *disk) error { return d.StoreLogs(entry(3)) }, true},
		"an entry after old ones went":   {func(d *disk) { d.DeleteRange(1, 2) }, func(d *disk) error { return d.StoreLogs(entry(4)) }, false},
		"a vote after an entry was lost": {func(d *disk) { d.logFiles.(*failing).fail(syscall.EIO); d.StoreLogs(entry(4)) }, func(d *disk) error { return d.Set([]byte("LastVoteCand"), nil) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &failing{logFiles: memory{raft.NewInmemStore()}}
				d := newDisk(f, zap.NewNop())
				for i := range uint64(3) {
					require.NoError(t, d.StoreLogs(entry(i+1)))
				}
				if c.before != nil {
					c.before(d)
				}
				f.fail(syscall.ENOSPC)
				ended := make(chan error, 1)
				go func() { ended <- c.do(d) }()
				synctest.Wait()
				if c.waits {
					require.Empty(t, ended)
					f.mend()
				}
				err := <-ended
				if c.waits {
					require.NoError(t, err)
					trouble, _ := d.state()
					require.NoError(t, trouble)
					return
				}
				require.ErrorIs(t, err, fsm.ErrDisk)
				require.ErrorIs(t, err, syscall.ENOSPC)
			})
		})
	}
}

// Whoever waits when the node ends does not go on: it would do so without its promise.
func TestAnAbandonedDisk(t *testing.T) {
	f := &failing{logFiles: memory{raft.NewInmemStore()}}
	f.fail(errors.New("gone"))
	d := newDisk(f, zap.NewNop())
	ended, wentOn := make(chan struct{}), false
	go func() {
		defer close(ended)
		d.SetUint64([]byte("CurrentTerm"), 7)
		wentOn = true
	}()
	d.abandon()
	<-ended
	require.False(t, wentOn)
}
