package master

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"connectrpc.com/connect"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"millrace/master/fsm"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/protocol"
)

var (
	older = protocol.Speaker{Name: "millrace-master/v1", Speaks: 1, Oldest: 1}
	newer = protocol.Speaker{Name: "millrace-master/v2", Speaks: protocol.Version, Oldest: 1}
)

// as opens a site of one master of a version.
func as(t *testing.T, binary protocol.Speaker) *site {
	t.Helper()
	return newSiteWith(t, func(c *Config) { c.binary = binary })
}

// joinAs adds a master of a version and waits for its vote.
func (s *site) joinAs(binary protocol.Speaker) *Master {
	s.t.Helper()
	return s.joinWith(func(c *Config) { c.binary = binary })
}

// start opens a master and says whether it could be.
func start(t *testing.T, c Config) error {
	t.Helper()
	m, err := New(c)
	require.NoError(t, err)
	return errors.Join(m.Open(t.Context()), m.Close())
}

// again restarts a master as another version.
func (s *site) again(m *Master, binary protocol.Speaker) *Master {
	s.t.Helper()
	require.NoError(s.t, m.Close())
	c := m.cfg
	c.binary, c.Join, c.Token = binary, nil, ""
	now := s.open(c)
	s.masters[slices.Index(s.masters, m)] = now
	return now
}

// newest is the latest protocol among the entries of a master's log.
func newest(t *testing.T, m *Master) (latest int) {
	t.Helper()
	last, err := m.raft.files.LastIndex()
	require.NoError(t, err)
	for i := uint64(1); i <= last; i++ {
		var e raft.Log
		require.NoError(t, m.raft.files.GetLog(i, &e))
		if e.Type == raft.LogCommand {
			latest = max(latest, fsm.WrittenIn(e.Data))
		}
	}
	return latest
}

func (s *site) cluster() *api.Cluster {
	s.t.Helper()
	resp, err := s.anywhere(s.leader()).API().GetCluster(s.t.Context(), connect.NewRequest(&api.GetClusterRequest{}))
	require.NoError(s.t, err)
	return resp.Msg
}

// An upgrade, master by master: while one of them is old nothing is logged that it could not read, whoever leads; when the last one
// is upgraded the site uses the new protocol, by itself.
func TestMastersAreUpgradedOneByOne(t *testing.T) {
	s := as(t, older)
	for range 2 {
		s.joinAs(older)
	}
	for i := range 3 { // the one that leads comes last
		if i < 2 && s.leader() == s.masters[i] {
			s.eventually("another leads", func() bool {
				return !s.masters[i].server.Leads() || s.masters[i].raft.LeadershipTransfer().Error() == nil && false
			})
		}
		s.leader()
		require.Equal(t, 1, s.leader().store.View().Protocol(), "%d of 3 are upgraded", i)
		s.again(s.masters[i], newer)
		if i == 1 { // a new one leads, and the last is old
			s.eventually("a new one leads", func() bool {
				l := s.leader()
				return l != s.masters[2] || l.raft.LeadershipTransfer().Error() == nil && false
			})
			s.token("core")
			s.eventually("it says which one is old", func() bool {
				c := s.cluster()
				return slices.Contains(c.Problems, "MASTER node "+s.masters[2].ID()+" ("+s.masters[2].id.Name+") is of an older version (test): the site goes on as that one does (protocol 1) until it is upgraded")
			})
			require.Equal(t, 1, newest(t, s.leader()))
		}
	}
	s.eventually("the site uses the new protocol", func() bool { return s.leader().store.View().Protocol() == newer.Speaks })
	s.eventually("the log knows what each speaks", func() bool {
		for _, n := range s.leader().store.View().Nodes("") {
			if n.Role == state.RoleMaster && n.Protocol != newer.Speaks {
				return false
			}
		}
		return true
	})
	c := s.cluster()
	require.EqualValues(t, newer.Speaks, c.Protocol)
	for _, m := range c.Masters {
		require.EqualValues(t, newer.Speaks, m.Protocol)
	}
	s.eventually("nothing is wrong with the masters", func() bool { return len(s.cluster().Problems) == 1 }) // there is no core node
}

// A master that was the last old one and is taken out holds nobody up any more.
func TestTheSiteGoesOnWithoutTheLastOldMaster(t *testing.T) {
	s := as(t, older)
	old := s.joinAs(older)
	s.again(s.masters[0], newer)
	s.eventually("the new one leads", func() bool {
		l := s.leader()
		return l != old || l.raft.LeadershipTransfer().Error() == nil && false
	})
	require.Equal(t, 1, s.leader().store.View().Protocol())
	_, err := s.anywhere(s.leader()).API().RemoveMaster(t.Context(), connect.NewRequest(&api.RemoveMasterRequest{Id: old.ID()}))
	require.NoError(t, err)
	require.Equal(t, newer.Speaks, s.leader().store.View().Protocol())
}

// A master that the site could not work with does not join, and says why, with both versions.
func TestAMasterThatDoesNotFitIsRefused(t *testing.T) {
	s := as(t, newer)
	require.Equal(t, newer.Speaks, s.leader().store.View().Protocol())
	m := s.joinAs(newer) // it was upgraded with the others once, and comes back as it was before
	require.NoError(t, m.Close())
	_, err := (&masters{s.masters[0]}).Announced(t.Context(), m.ID(), &api.AnnounceRequest{Address: "https://x:1", RaftAddress: "x:2", Version: "v1"})
	require.ErrorContains(t, err, fmt.Sprintf("millrace-master/v1 speaks protocol 1, and the site of millrace-master/v2 serves protocol %d alone", newer.Speaks))
	require.Contains(t, (&masters{s.masters[0]}).LastHeard(m.ID()).Problem, "millrace-master/v1 speaks protocol 1", "cluster show has it")
	_, err = (&masters{s.masters[0]}).Announced(t.Context(), m.ID(), &api.AnnounceRequest{Address: "https://x:1", RaftAddress: "x:2", Version: "v9", Protocol: 9, OldestProtocol: 8})
	require.ErrorContains(t, err, fmt.Sprintf("the site of millrace-master/v2 speaks protocol %d, and millrace-master/v9 serves protocols 8 to 9", newer.Speaks))
}

// A binary that is older than what it finds does not start, names the file, and leaves everything as it was.
func TestAnOlderBinaryLeavesTheFolderAlone(t *testing.T) {
	for name, snapshot := range map[string]bool{"log": false, "snapshot": true} {
		t.Run(name, func(t *testing.T) {
			m := as(t, newer).masters[0]
			if snapshot { // of a version that is not there yet
				_, err := m.store.Apply(m.raft.AppliedIndex(), state.RaiseSite{Protocol: 99})
				require.NoError(t, err)
				config := m.raft.ReloadableConfig()
				config.TrailingLogs = 0
				require.NoError(t, m.raft.ReloadConfig(config))
				require.NoError(t, m.raft.Snapshot().Error())
			} else {
				require.NoError(t, m.raft.Apply([]byte(`{"v":99,"type":"Fly","body":{}}`), raftTimeout).Error())
				require.ErrorIs(t, <-m.failed, protocol.ErrNewer, "a running one that gets such an entry ends")
			}
			require.NoError(t, m.Close())
			raftDir := m.dir.Path("raft")
			before := contents(t, raftDir)

			err := start(t, m.cfg)
			require.ErrorIs(t, err, protocol.ErrNewer)
			require.ErrorContains(t, err, fmt.Sprintf("it takes one that speaks protocol 99, and this one speaks up to %d", protocol.Version))
			if snapshot {
				require.ErrorContains(t, err, filepath.Join(raftDir, "snapshots"))
			} else {
				require.ErrorContains(t, err, filepath.Join(raftDir, logFile)+": entry ")
			}
			_, err = Recover(m.cfg.Dir, "v1", m.cfg.Log)
			require.ErrorIs(t, err, protocol.ErrNewer, "nor does recover pass over it")
			require.Equal(t, before, contents(t, raftDir))
		})
	}
	t.Run("a binary that is too new for the site", func(t *testing.T) {
		s := as(t, older)
		require.NoError(t, s.masters[0].Close())
		c := s.masters[0].cfg
		c.binary = protocol.Speaker{Name: "millrace-master/v9", Speaks: 9, Oldest: 8}
		err := start(t, c)
		require.ErrorContains(t, err, "speaks protocol 1, and millrace-master/v9 serves protocols 8 to 9")
	})
}

// contents is what is in a folder's files but the log's own, whose pages change as it is opened.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == logFile {
			return err
		}
		data, err := os.ReadFile(path)
		all[path] = string(data)
		return err
	}))
	return all
}
