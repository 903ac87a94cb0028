package master

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"millrace/hdfs"
	"millrace/hdfs/namespace"
	"millrace/master/server"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/client"
	"millrace/pkg/joining"
	"millrace/pkg/objectstore"
)

// site is a few masters on loopback, over one store in memory.
type site struct {
	t       *testing.T
	store   objectstore.Store
	masters []*Master
	admin   *client.Context
	dial    dialer // of the masters that are opened next; nil: as always
}

func newSite(t *testing.T, n int) *site {
	t.Helper()
	s := newSiteWith(t, func(*Config) {})
	for range n - 1 {
		s.join()
	}
	return s
}

// newSiteWith is a site of one master, set up as with says.
func newSiteWith(t *testing.T, with func(*Config)) *site {
	t.Helper()
	s := &site{t: t, store: objectstore.NewMemory()}
	s.firstWith(with)
	return s
}

// first opens the site's first master.
func (s *site) first() {
	s.t.Helper()
	s.firstWith(func(*Config) {})
}

func (s *site) firstWith(with func(*Config)) {
	s.t.Helper()
	c := testConfig(s.t, s.t.TempDir(), s.store)
	c.dial = s.dial
	with(&c)
	s.masters = append(s.masters, openMaster(s.t, c))
	var err error
	s.admin, err = client.ReadContext(s.masters[0].dir.Path("admin.json"))
	require.NoError(s.t, err)
}

// token makes a join token as the administrator, whose context a master that was started again may not have written anew yet.
func (s *site) token(role string) string {
	s.t.Helper()
	resp, err := s.anywhere(s.leader()).API().CreateJoinToken(s.t.Context(), connect.NewRequest(&api.CreateJoinTokenRequest{Role: role}))
	require.NoError(s.t, err)
	return resp.Msg.Token
}

// join adds a master and waits for its vote.
func (s *site) join() *Master {
	s.t.Helper()
	return s.joinWith(func(*Config) {})
}

func (s *site) joinWith(with func(*Config)) *Master {
	s.t.Helper()
	c := testConfig(s.t, s.t.TempDir(), s.store)
	c.Store, c.Join, c.Token, c.dial = nil, []string{s.masters[0].Address()}, s.token("master"), s.dial
	with(&c)
	m := s.open(c)
	s.masters = append(s.masters, m)
	return m
}

func (s *site) open(c Config) *Master {
	s.t.Helper()
	m, err := New(c)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { m.Close() })
	require.NoError(s.t, m.Open(s.t.Context()))
	s.votes(m)
	return m
}

// votes waits until a master votes, where it serves now.
func (s *site) votes(m *Master) {
	s.t.Helper()
	s.eventually("it votes", func() bool {
		self, known, err := m.raft.member(m.raft.id)
		return err == nil && known && self.Suffrage == 0 && self.Address == m.raft.address && m.store.View() != nil
	})
}

func (s *site) eventually(what string, ok func() bool) {
	s.t.Helper()
	require.Eventually(s.t, ok, time.Minute, 10*time.Millisecond, what)
}

// leader waits for the one that answers as such.
func (s *site) leader() *Master {
	s.t.Helper()
	i := -1
	s.eventually("somebody leads", func() bool {
		i = slices.IndexFunc(s.masters, func(m *Master) bool { return m.server.Leads() })
		return i >= 0
	})
	return s.masters[i]
}

// anywhere is the administrator's client for one of the masters only.
func (s *site) anywhere(m *Master) *client.Client {
	s.t.Helper()
	cl, err := client.New(client.Config{Servers: []string{m.Address()}, Credential: s.admin.Credential(), RetryFor: 20 * time.Second})
	require.NoError(s.t, err)
	s.t.Cleanup(func() { cl.Close() })
	return cl
}

// A further master joins with a token, gets the log, a vote and the site's secrets: each answers, each can
// lead, and the next leader admits nodes as the first one did.
func TestThreeMastersAndTheNextLeader(t *testing.T) {
	s := newSite(t, 3)
	for _, m := range s.masters {
		resp, err := s.anywhere(m).API().ListNodes(t.Context(), connect.NewRequest(&api.ListNodesRequest{}))
		require.NoError(t, err)
		require.Len(t, resp.Msg.Nodes, 3)
		for _, n := range resp.Msg.Nodes {
			require.Equal(t, server.MemberVoter, n.Member, n)
		}
	}
	first := s.leader()
	require.NoError(t, first.Close())
	s.masters = slices.DeleteFunc(s.masters, func(m *Master) bool { return m == first })
	next := s.leader()
	require.NotEqual(t, first.ID(), next.ID())

	settings, _, err := next.stores.site()
	require.NoError(t, err)
	require.Equal(t, "very secret", settings.SecretKey, "what is sealed in the log opens")
	_, err = s.anywhere(next).API().CreateJoinToken(t.Context(), connect.NewRequest(&api.CreateJoinTokenRequest{Role: "core"}))
	require.NoError(t, err, "two of three are a majority")
	s.eventually("the administrator's context is there", func() bool {
		_, err := os.Stat(next.dir.Path("admin.json"))
		return err == nil
	})
}

// What the log has dropped for a snapshot reaches a new master as that snapshot.
func TestANewMasterCatchesUpFromASnapshot(t *testing.T) {
	s := newSite(t, 1)
	first := s.masters[0]
	for range 50 {
		s.token("core")
	}
	config := first.raft.ReloadableConfig()
	config.TrailingLogs = 1
	require.NoError(t, first.raft.ReloadConfig(config))
	require.NoError(t, first.raft.Snapshot().Error())
	low, err := first.raft.files.FirstIndex()
	require.NoError(t, err)
	require.Greater(t, low, uint64(20), "the log does not have it all any more")

	second := s.join()
	s.eventually("it has everything", func() bool { return len(second.store.View().Tokens()) >= 50 })
	require.Equal(t, first.id.Site, second.id.Site)
}

// A master that restarts on other ports is found again, with its vote.
func TestAFollowerMoves(t *testing.T) {
	s := newSite(t, 3)
	last := s.masters[2]
	require.NoError(t, last.Close())
	c := testConfig(t, last.cfg.Dir, s.store)
	c.Store = nil
	again := s.open(c)
	s.masters[2] = again
	require.Equal(t, last.ID(), again.ID())
	require.NotEqual(t, last.raft.address, again.raft.address)
	s.eventually("its new address is in the log", func() bool {
		n, ok := s.leader().store.View().Node(again.ID())
		return ok && n.Address == again.Address() && n.Raft == string(again.raft.address)
	})
}

// What a master's start is told of the object store counts when that is another thing than before, whoever
// leads; masters that are told different things do not change it back and forth.
func TestTheStoreMoves(t *testing.T) {
	s := newSite(t, 3)
	endpoint := func() string {
		resp, err := s.anywhere(s.masters[1]).API().GetSite(t.Context(), connect.NewRequest(&api.GetSiteRequest{}))
		require.NoError(t, err)
		return resp.Msg.Store.Endpoint
	}
	leader := s.leader()
	i := slices.IndexFunc(s.masters, func(m *Master) bool { return m != leader })
	restart := func(told string) {
		require.NoError(t, s.masters[i].Close())
		c := testConfig(t, s.masters[i].cfg.Dir, s.store)
		c.Store.Endpoint = told
		s.masters[i] = s.open(c)
		s.eventually("it has told the leader", s.masters[i].storeSaid.Load)
	}
	restart("http://elsewhere.test")
	require.Equal(t, "http://elsewhere.test", endpoint())
	require.NoError(t, leader.Close())
	s.masters = slices.DeleteFunc(s.masters, func(m *Master) bool { return m == leader })
	s.masters = append(s.masters, s.open(leader.cfg))
	leader = s.leader()
	s.eventually("it hands over", func() bool {
		return !leader.server.Leads() || leader.raft.LeadershipTransfer().Error() == nil && false
	})
	s.leader()
	require.Equal(t, "http://elsewhere.test", endpoint(), "the first master is told what it was told before")
}

func TestMastersAreTakenOutAndBack(t *testing.T) {
	s := newSite(t, 3)
	s.seen(s.leader())
	out := s.masters[2]
	api_ := s.anywhere(s.masters[1]).API()
	n, err := api_.RemoveMaster(t.Context(), connect.NewRequest(&api.RemoveMasterRequest{Id: out.ID()}))
	require.NoError(t, err)
	require.Equal(t, server.MemberNone, n.Msg.Member)
	require.Equal(t, "it was taken out of the set of masters: millrace master add "+out.ID()+" takes it back", n.Msg.Reason)
	removed := time.Now()
	s.eventually("it announces itself again", func() bool {
		return (&masters{s.leader()}).LastHeard(out.ID()).At.After(removed)
	})
	require.Equal(t, server.MemberNone, (&masters{s.leader()}).Member(out.ID()))
	n, err = api_.AddMaster(t.Context(), connect.NewRequest(&api.AddMasterRequest{Id: out.ID()}))
	require.NoError(t, err)
	require.Equal(t, server.MemberVoter, n.Msg.Member)

	leader := s.leader()
	s.seen(leader)
	n, err = api_.RemoveMaster(t.Context(), connect.NewRequest(&api.RemoveMasterRequest{Id: leader.ID()}))
	require.NoError(t, err, "the leader hands over, and its successor takes it out")
	require.Equal(t, leader.ID(), n.Msg.Id)
	require.Equal(t, server.MemberNone, n.Msg.Member)
}

// seen waits until a master sees all others by gossip: only then does it know that they are up.
func (s *site) seen(by *Master) {
	s.t.Helper()
	s.eventually("gossip sees them all", func() bool {
		return !slices.ContainsFunc(s.masters, func(m *Master) bool { return !(&masters{by}).Alive(m.ID()) })
	})
}

// A leader that is to go and cannot hand over at once, as the others do not hear it, tries again for as long as it leads; then the next
// leader is asked to take it out.
func TestALeaderThatIsTakenOutHandsOverInTheEnd(t *testing.T) {
	s, n := cuttable(t)
	leader := s.leader()
	s.seen(leader)
	n.isolate(slices.Index(s.masters, leader))
	require.ErrorIs(t, (&masters{leader}).Expel(t.Context(), leader.ID()), server.ErrNotLeader)
	require.NotEqual(t, raft.Leader, leader.raft.State())
	n.isolate(-1)
	_, err := s.anywhere(leader).API().RemoveMaster(t.Context(), connect.NewRequest(&api.RemoveMasterRequest{Id: leader.ID()}))
	require.NoError(t, err)
}

// Two of three are taken out, and both come back: neither is kept from it by the other, who knows of no leader either.
func TestTwoMastersAreTakenOutAndBack(t *testing.T) {
	s := newSite(t, 3)
	leader := s.leader()
	s.seen(leader)
	api_ := s.anywhere(leader).API()
	var out []*Master
	for _, m := range s.masters {
		if m != leader {
			out = append(out, m)
			_, err := api_.RemoveMaster(t.Context(), connect.NewRequest(&api.RemoveMasterRequest{Id: m.ID()}))
			require.NoError(t, err)
		}
	}
	removed := time.Now()
	for _, m := range out {
		s.eventually("it announces itself again", func() bool { return (&masters{leader}).LastHeard(m.ID()).At.After(removed) })
	}
	for _, m := range out {
		n, err := api_.AddMaster(t.Context(), connect.NewRequest(&api.AddMasterRequest{Id: m.ID()}))
		require.NoError(t, err)
		require.Equal(t, server.MemberVoter, n.Msg.Member)
	}
}

// A master that is lost is out of the site for good once it is removed: nobody hears of it any more, its name is free, and its
// process ends should it come back. Doing so twice is as good as once.
func TestALostMasterIsRemovedForGood(t *testing.T) {
	s := newSite(t, 2)
	lost := s.joinWith(func(c *Config) { c.Name = "m" })
	s.loses(lost)
	api_ := s.anywhere(s.leader()).API()
	for range 2 {
		n, err := api_.RemoveMaster(t.Context(), connect.NewRequest(&api.RemoveMasterRequest{Id: "m"}))
		require.NoError(t, err)
		require.Equal(t, []string{lost.ID(), state.NodeTerminated, server.MemberNone}, []string{n.Msg.Id, n.Msg.State, n.Msg.Member})
	}
	_, err := api_.AddMaster(t.Context(), connect.NewRequest(&api.AddMasterRequest{Id: "m"}))
	require.ErrorContains(t, err, "was removed from the site for good")

	next := s.joinWith(func(c *Config) { c.Name = "m" })
	require.Len(t, s.listed(), 3)
	n, err := api_.AddMaster(t.Context(), connect.NewRequest(&api.AddMasterRequest{Id: "m"}))
	require.NoError(t, err)
	require.Equal(t, next.ID(), n.Msg.Id, "the name is the new one's")

	c := testConfig(t, lost.cfg.Dir, s.store)
	c.Store = nil
	back, err := New(c)
	require.NoError(t, err)
	require.ErrorIs(t, back.Run(t.Context()), ErrRemoved)
	require.Len(t, s.listed(), 3)
}

// A master that is out of the set and stops stays known, as it may come back, until it is removed once more. It is not taken back
// while it is away, nor told to others.
func TestAMasterThatIsOutAndStopsIsRemovedForGood(t *testing.T) {
	s := newSite(t, 3)
	leader := s.leader()
	out := s.masters[slices.IndexFunc(s.masters, func(m *Master) bool { return m != leader })]
	gossip := out.gossip.Addr()
	require.Contains(t, (&masters{leader}).GossipPeers(), gossip)
	api_ := s.anywhere(leader).API()
	remove := func() *api.Node {
		n, err := api_.RemoveMaster(t.Context(), connect.NewRequest(&api.RemoveMasterRequest{Id: out.ID()}))
		require.NoError(t, err)
		return n.Msg
	}
	for range 2 { // the second time may be the same call
		require.NotEqual(t, state.NodeTerminated, remove().State)
	}
	require.NotContains(t, (&masters{leader}).GossipPeers(), gossip)

	s.loses(out)
	require.Len(t, s.listed(), 3)
	_, err := api_.AddMaster(t.Context(), connect.NewRequest(&api.AddMasterRequest{Id: out.ID()}))
	require.ErrorContains(t, err, "master "+out.ID()+" is lost: start it, then repeat the command")
	for _, n := range s.listed() {
		if n.Id == out.ID() {
			require.Equal(t, server.MemberNone, n.Member, "it is no learner by that")
			require.Equal(t, "it was taken out of the set of masters, and is lost: millrace master remove "+out.ID()+" ends it for good", n.Reason)
		}
	}
	require.Equal(t, state.NodeTerminated, remove().State)
	require.Len(t, s.listed(), 2)
}

// A new leader has heard of nobody. One that gossip does not show it is no lost one by that, and may come back when it was taken out.
func TestAMasterThatANewLeaderHasNotHeardOfIsNotEnded(t *testing.T) {
	s := newSite(t, 3)
	leader := s.leader()
	out := s.masters[slices.IndexFunc(s.masters, func(m *Master) bool { return m != leader })]
	require.NoError(t, out.gossip.Close())
	s.eventually("gossip misses it", func() bool { return !(&masters{leader}).Alive(out.ID()) })
	leader.heard.Clear() // as when a term begins
	require.NoError(t, (&masters{leader}).Expel(t.Context(), out.ID()))
	n, ok := leader.store.View().Node(out.ID())
	require.True(t, ok)
	require.Equal(t, []any{state.NodeAdmitted, true}, []any{n.State, n.Spare})
}

// loses closes a master, and waits until the leader misses it.
func (s *site) loses(lost *Master) {
	s.t.Helper()
	require.NoError(s.t, lost.Close())
	s.masters = slices.DeleteFunc(s.masters, func(m *Master) bool { return m == lost })
	leader := s.leader()
	s.eventually("gossip misses it", func() bool { return !(&masters{leader}).Alive(lost.ID()) })
}

// listed is who the site says it consists of.
func (s *site) listed() []*api.Node {
	s.t.Helper()
	resp, err := s.anywhere(s.leader()).API().ListNodes(s.t.Context(), connect.NewRequest(&api.ListNodesRequest{}))
	require.NoError(s.t, err)
	return resp.Msg.Nodes
}

// Whoever would be left must have a majority that is up.
func TestAMajorityStays(t *testing.T) {
	s := newSite(t, 3)
	_, err := admin(t, newSite(t, 1).masters[0]).API().RemoveMaster(t.Context(), connect.NewRequest(&api.RemoveMasterRequest{Id: "nobody"}))
	require.Equal(t, connect.CodeNotFound, connect.CodeOf(err))

	leader := s.leader()
	others := slices.DeleteFunc(slices.Clone(s.masters), func(m *Master) bool { return m == leader })
	require.NoError(t, others[0].Close())
	s.eventually("gossip misses it", func() bool { return !(&masters{leader}).Alive(others[0].ID()) })
	api_ := s.anywhere(leader).API()
	_, err = api_.RemoveMaster(t.Context(), connect.NewRequest(&api.RemoveMasterRequest{Id: others[1].ID()}))
	require.ErrorContains(t, err, "of the 2 masters that would be left 1 are up, and 2 are needed")
	_, err = api_.RemoveMaster(t.Context(), connect.NewRequest(&api.RemoveMasterRequest{Id: others[0].ID()}))
	require.NoError(t, err, "the one that is lost may go")

	alone := newSite(t, 1).masters[0]
	_, err = admin(t, alone).API().RemoveMaster(t.Context(), connect.NewRequest(&api.RemoveMasterRequest{Id: alone.ID()}))
	require.ErrorContains(t, err, "is the only one that votes")
}

// Two removals at once are one after the other: each alone would leave a majority, both together would not.
func TestAMajorityStaysThoughTwoAreTakenOutAtOnce(t *testing.T) {
	s := newSite(t, 4)
	s.loses(s.masters[slices.IndexFunc(s.masters, func(m *Master) bool { return m != s.leader() })])
	leader := s.leader()
	s.seen(leader)
	leader.changes.Lock() // so that both have begun before either has changed anything
	var begun sync.WaitGroup
	results := make(chan error)
	for _, m := range s.masters {
		if m != leader {
			begun.Add(1)
			go func() {
				begun.Done()
				results <- (&masters{leader}).Expel(t.Context(), m.ID())
			}()
		}
	}
	begun.Wait()
	leader.changes.Unlock()
	first, second := <-results, <-results
	require.True(t, (first == nil) != (second == nil), "%v, %v", first, second)
	require.ErrorIs(t, cmp.Or(first, second), server.ErrUnsettled)
	require.Len(t, (&masters{leader}).Voters(), 3)
	s.token("core")
}

// A request may come to the log in a later term than that in which it began, or when its caller has gone away: whoever logged it, the
// present leader takes it up.
func TestTheLeaderTakesUpWhatIsLogged(t *testing.T) {
	s := newSite(t, 1)
	m := s.leader()
	spec, err := proto.Marshal(&api.JobSpec{Program: &api.Program{Kind: api.ProgramKind_PROGRAM_KIND_BUILTIN, Name: "cat"}, Input: []string{"s3://none/such"}, Output: "s3://out/x/"})
	require.NoError(t, err)
	_, err = m.entries.Apply(t.Context(), state.SubmitJob{Job: state.Job{ID: "s-1", Cluster: m.store.View().Clusters()[0].ID, Name: "x", Program: "cat", User: "admin",
		Input: []string{"s3://none/such"}, Output: "s3://out/x/", Spec: spec, SubmittedAt: time.Now()}})
	require.NoError(t, err)
	s.eventually("it is known that its input is not there", func() bool {
		j, ok := m.store.View().Job("s-1")
		return ok && j.State == state.JobFailed
	})
}

// A token says what its bearer may become, a folder whose it is.
func TestWhoMayBecomeAMaster(t *testing.T) {
	s := newSite(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	try := func(c Config) error {
		m, err := New(c)
		require.NoError(t, err)
		defer m.Close()
		return m.Open(ctx)
	}
	c := testConfig(t, t.TempDir(), s.store)
	c.Store, c.Join, c.Token = nil, []string{s.masters[0].Address()}, s.token("core")
	require.ErrorContains(t, try(c), "the token is for the role core")
	c.Token = ""
	require.ErrorIs(t, try(c), joining.ErrNotJoined)

	c.Token = s.token("master")
	require.NoError(t, try(c), "the refused tries have left nothing that is in the way")
	other := newSite(t, 1)
	c.Token = other.token("master")
	require.ErrorIs(t, try(c), joining.ErrOtherNode)
}

// A master that has voted and lost its log must not vote again under that name.
func TestALostLogIsNoNewOne(t *testing.T) {
	s := newSite(t, 3)
	last := s.masters[2]
	require.NoError(t, last.Close())
	require.NoError(t, os.Remove(last.dir.Path("raft", logFile)))
	c := testConfig(t, last.cfg.Dir, s.store)
	c.Store = nil
	m, err := New(c)
	require.NoError(t, err)
	defer m.Close()
	require.ErrorContains(t, m.Open(t.Context()), "millrace master remove")
}

// backup takes one as the administrator.
func (s *site) backup() []byte {
	s.t.Helper()
	stream, err := s.anywhere(s.leader()).API().Backup(s.t.Context(), connect.NewRequest(&api.BackupRequest{}))
	require.NoError(s.t, err)
	defer stream.Close()
	var all []byte
	for stream.Receive() {
		all = append(all, stream.Msg().Data...)
	}
	require.NoError(s.t, stream.Err())
	return all
}

// A backup makes a new site of the same name and secrets: what was in it is there, the old masters are out, and the next
// term is later than any that the old site may have had.
func TestBackupAndRestore(t *testing.T) {
	old := newSite(t, 3)
	old.token("core")
	backup := old.backup()
	tokens := len(old.leader().store.View().Tokens())
	term := old.leader().raft.CurrentTerm()
	lost := beginFile(t, old.leader())
	for _, m := range old.masters {
		require.NoError(t, m.Close())
	}

	dir := t.TempDir()
	r, err := Restore(dir, "again", "test", bytes.NewReader(backup))
	require.NoError(t, err)
	require.Equal(t, old.masters[0].id.Site, r.Site)
	_, err = Restore(dir, "", "test", bytes.NewReader(backup))
	require.ErrorIs(t, err, ErrNotEmpty)

	c := testConfig(t, dir, old.store)
	c.Store = nil
	for range 2 { // and once more, as any master
		m := openMaster(t, c)
		require.Equal(t, r.Node, m.ID())
		require.Greater(t, m.raft.CurrentTerm(), term+termJump)
		require.Len(t, m.store.View().Tokens(), tokens)
		settings, _, err := m.stores.site()
		require.NoError(t, err)
		require.Equal(t, "very secret", settings.SecretKey)
		nodes, err := admin(t, m).API().ListNodes(t.Context(), connect.NewRequest(&api.ListNodesRequest{}))
		require.NoError(t, err)
		require.Len(t, nodes.Msg.Nodes, 1, "the old masters have left nothing behind")
		require.Equal(t, m.ID(), nodes.Msg.Nodes[0].Id)
		require.NoFileExists(t, m.dir.Path(aloneFile))
		requireNewFileIDs(t, m, lost)
		require.NoError(t, m.Close())
	}
}

// requireNewFileIDs begins a file: it must have an id that none had in the state that is lost.
func requireNewFileIDs(t *testing.T, m *Master, lost hdfs.FileID) {
	t.Helper()
	require.Greater(t, beginFile(t, m), lost+1_000_000)
}

func beginFile(t *testing.T, m *Master) hdfs.FileID {
	t.Helper()
	c, ok := m.store.View().Cluster("default")
	require.True(t, ok)
	id, err := m.entries.Apply(t.Context(), namespace.CreateFile{Cluster: c.ID, Path: "/" + rand.Text(), Lease: rand.Text()})
	require.NoError(t, err)
	return id.(hdfs.FileID)
}

// Two of three are gone for good: the third is made the only one, and others join it.
func TestRecoveryOfTheOneThatIsLeft(t *testing.T) {
	s := newSite(t, 3)
	s.token("core")
	left := s.masters[2]
	s.eventually("it has everything", func() bool {
		return left.store.View().Index() >= s.leader().store.View().Index() // Raft's own is ahead of the state
	})
	tokens := len(left.store.View().Tokens())
	lost := beginFile(t, s.leader())
	for _, m := range s.masters {
		require.NoError(t, m.Close())
	}
	id, err := Recover(left.cfg.Dir, "test", zap.NewNop())
	require.NoError(t, err)
	require.Equal(t, left.ID(), id)

	c := testConfig(t, left.cfg.Dir, s.store)
	c.Store = nil
	again := openMaster(t, c)
	require.Len(t, again.store.View().Tokens(), tokens)
	requireNewFileIDs(t, again, lost)
	s.masters = []*Master{again}
	s.join()
	s.join()
	require.Len(t, s.listed(), 3, "the lost ones have left nothing behind")

	_, err = Recover(filepath.Join(t.TempDir(), "none"), "test", zap.NewNop())
	require.ErrorIs(t, err, ErrNoMaster)
}

// A further master that is stopped before the leader has given it anything has lost nothing: it begins again.
func TestAMasterThatWasStoppedAtOnceBeginsAgain(t *testing.T) {
	s := newSite(t, 1)
	c := testConfig(t, t.TempDir(), s.store)
	c.Store, c.Join, c.Token = nil, []string{s.masters[0].Address()}, s.token("master")
	for range 3 {
		m, err := New(c)
		require.NoError(t, err)
		require.NoError(t, m.Open(t.Context()))
		require.NoError(t, m.Close())
	}
	s.open(c)
}

// A leader that was another term's leader before, and has not heard yet that it lost that, does not answer reads as of that term: others may
// have logged something in between that it has not applied.
func TestATermThatIsOverAnswersNoReads(t *testing.T) {
	m := newSite(t, 1).masters[0]
	term := m.raft.CurrentTerm()
	require.NoError(t, m.stillLeads(term)(t.Context()))
	require.ErrorIs(t, m.stillLeads(term-1)(t.Context()), server.ErrNotLeader)
}
