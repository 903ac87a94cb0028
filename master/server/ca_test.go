package server

import (
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"millrace/master/session"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/client"
	"millrace/pkg/security"
)

func (w *world) ca0() string {
	site, _ := w.state.View().Site()
	return site.CAPEM
}

func (w *world) rotate(m *api.RotateCARequest) (*api.CAState, error) {
	resp, err := w.user(Admin).RotateCA(w.t.Context(), connect.NewRequest(m))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// uses has the master and the worker use what the site trusts now.
func (w *world) uses(nodes ...string) {
	trust := security.TrustID([]byte(w.ca0()))
	w.sessions.nodes = nil
	for _, id := range nodes {
		if id == masterID {
			w.cluster.heard = map[string]Heard{masterID: {Trust: trust}}
		} else {
			w.sessions.nodes = append(w.sessions.nodes, session.Node{ID: id, Trust: trust})
		}
	}
}

func TestTheCAChangesStepByStep(t *testing.T) {
	w := newWorld(t)
	w.apply(state.PutNode{Node: state.Node{ID: workerID, Role: state.RoleCore, Cluster: "j-DEFAULT"}})
	gone := "i-000000000000000ee"
	w.apply(state.PutNode{Node: state.Node{ID: gone, Role: state.RoleCore, Cluster: "j-DEFAULT"}})
	w.apply(state.RemoveNode{ID: gone})
	token := w.token(&api.CreateJoinTokenRequest{Role: "core"}).Token
	code := w.newUser("bob", "read").Code
	first, err := w.rotate(&api.RotateCARequest{StatusOnly: true})
	require.NoError(t, err)
	require.Equal(t, caSteady, first.Phase)
	_, err = w.rotate(&api.RotateCARequest{Finish: true})
	requireProblems(t, err, client.ExitUsage, "no change of the CA is under way")

	c, err := w.rotate(&api.RotateCARequest{})
	require.NoError(t, err)
	require.Equal(t, state.CASpreading, c.Phase)
	require.Equal(t, first.Fingerprint, c.Fingerprint, "the old one issues")
	require.ElementsMatch(t, []string{masterID, workerID}, c.Waiting)
	again, err := w.rotate(&api.RotateCARequest{})
	require.NoError(t, err)
	require.Equal(t, c.Since.AsTime(), again.Since.AsTime(), "one at a time")

	w.uses(masterID)
	require.NoError(t, w.server.stepCA(t.Context()))
	c, err = w.rotate(&api.RotateCARequest{StatusOnly: true})
	require.NoError(t, err)
	require.Equal(t, []string{workerID}, c.Waiting, "a node that is away is waited for")
	require.Equal(t, state.CASpreading, c.Phase)

	w.uses(masterID, workerID)
	require.NoError(t, w.server.stepCA(t.Context()))
	c, err = w.rotate(&api.RotateCARequest{StatusOnly: true})
	require.NoError(t, err)
	require.Equal(t, state.CAIssuing, c.Phase)
	require.NotEqual(t, first.Fingerprint, c.Fingerprint)

	// What was made before is good yet. The master here goes on with its certificate of the old CA, as one that has not renewed.
	_, err = w.join(machine(t, "i-000000000000000dd"), token)
	require.NoError(t, err)
	w.apply(state.RemoveNode{ID: "i-000000000000000dd"})
	credential, _, err := w.login(code)
	require.NoError(t, err)
	require.Equal(t, security.TrustID([]byte(w.ca0())), credential.InUse())

	w.uses(masterID, workerID)
	require.NoError(t, w.server.stepCA(t.Context()))
	c, err = w.rotate(&api.RotateCARequest{StatusOnly: true})
	require.NoError(t, err)
	require.Equal(t, caRetire, c.Phase, "nodes are done, people may not be")
	w.later(caRetires + time.Minute)
	require.NoError(t, w.server.stepCA(t.Context()))
	c, err = w.rotate(&api.RotateCARequest{StatusOnly: true})
	require.NoError(t, err)
	require.Equal(t, caSteady, c.Phase)
	site, _ := w.state.View().Site()
	issuer, err := security.Issuer([]byte(site.CAPEM))
	require.NoError(t, err)
	require.Equal(t, string(issuer), site.CAPEM, "the old one is trusted no more")
	_, err = w.server.openCA(issuer, site.SealedCAKey)
	require.NoError(t, err, "and the key is the new one's")
}

func TestAChangeOfCAIsFinishedWithoutWhoIsAway(t *testing.T) {
	w := newWorld(t)
	w.apply(state.PutNode{Node: state.Node{ID: workerID, Role: state.RoleCore, Cluster: "j-DEFAULT"}})
	for _, want := range []string{state.CASpreading, state.CAIssuing, caSteady} {
		c, err := w.rotate(&api.RotateCARequest{Finish: want != state.CASpreading})
		require.NoError(t, err)
		require.Equal(t, want, c.Phase)
	}
}

func TestHeartbeatsAreToldOfTrustAndMembers(t *testing.T) {
	w := newWorld(t)
	w.apply(state.PutNode{Node: state.Node{ID: workerID, Role: state.RoleCore, Cluster: "j-DEFAULT"}})
	before := w.server.Pong(workerID)
	require.Equal(t, security.TrustID(w.ca.CertPEM()), before.Trust)
	require.Equal(t, membersFor(w.state.View(), "j-DEFAULT").Id, before.Members)
	_, err := w.rotate(&api.RotateCARequest{})
	require.NoError(t, err)
	require.NotEqual(t, before.Trust, w.server.Pong(workerID).Trust)
	w.apply(state.RemoveUser{Name: "alice"})
	w.later(membersEvery)
	require.NotEqual(t, before.Members, w.server.Pong(workerID).Members)
	require.Empty(t, w.server.Pong("i-nobody").Trust)
}

func TestMembersOfANode(t *testing.T) {
	w := newWorld(t)
	w.apply(state.CreateCluster{Cluster: state.Cluster{ID: "j-OTHER", Name: "other", Groups: []state.Group{{ID: "ig-2", Role: state.RoleTask}}}})
	for id, n := range map[string]state.Node{
		"i-00000000000000001": {Role: state.RoleCore, Cluster: "j-DEFAULT"}, "i-00000000000000002": {Role: state.RoleTask, Cluster: "j-OTHER"},
		"i-00000000000000003": {Role: state.RolePool, Pooled: true}, "i-00000000000000004": {Role: state.RoleTask, Cluster: "j-DEFAULT"},
	} {
		n.ID = id
		w.apply(state.PutNode{Node: n})
	}
	w.apply(state.RemoveNode{ID: "i-00000000000000004"})
	of := func(cluster string) (list []string) {
		for _, n := range membersFor(w.state.View(), cluster).Nodes {
			s := n.Node[len(n.Node)-2:]
			for mark, is := range map[string]bool{" master": n.Master, " fellow": n.Fellow} {
				if is {
					s += mark
				}
			}
			if n.Files {
				s += " files"
			}
			list = append(list, s)
		}
		return list
	}
	require.Equal(t, []string{"01 fellow files", "aa master"}, of("j-DEFAULT"))
	require.Equal(t, []string{"aa master"}, of(""), "the pool's nodes have nothing to do with one another")
	w.apply(state.SubmitJob{Job: state.Job{ID: "s-1", Cluster: "j-OTHER", Input: []string{"hdfs://j-DEFAULT/in"}, Output: "s3://out/1/"}})
	require.Equal(t, []string{"01 fellow files", "02 files", "aa master"}, of("j-DEFAULT"), "a job there reads here")
	require.Equal(t, []string{"02 fellow files", "aa master"}, of("j-OTHER"))

	resp, err := w.client(security.RoleWorker, "i-00000000000000001").Members(t.Context())
	require.NoError(t, err)
	require.Equal(t, membersFor(w.state.View(), "j-DEFAULT").Id, resp.Id)
	require.Equal(t, "alice", resp.Users[0].Name)
}

// A master that is lost is waited for, as it may come back; one that is out of the set is not, up or not: it gets no log.
func TestAChangeOfCAWaitsForTheMastersOfTheSet(t *testing.T) {
	w := newWorld(t)
	up, lost, _, _ := w.masters()
	_, err := w.rotate(&api.RotateCARequest{})
	require.NoError(t, err)
	w.uses(masterID)
	c, err := w.rotate(&api.RotateCARequest{StatusOnly: true})
	require.NoError(t, err)
	require.ElementsMatch(t, []string{up.ID, lost.ID}, c.Waiting)
}
