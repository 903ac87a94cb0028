package server

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/api/apiconnect"
	"millrace/pkg/client"
	"millrace/pkg/security"
)

func stringReader(s string) io.Reader { return strings.NewReader(s) }

func post(t *testing.T, c *http.Client, url string) int {
	t.Helper()
	resp, err := c.Post(url, "application/json", bytes.NewReader([]byte("{}")))
	require.NoError(t, err)
	defer resp.Body.Close()
	return resp.StatusCode
}

func TestASessionIsItsCertificatesNodes(t *testing.T) {
	w := newWorld(t)
	w.apply(state.PutNode{Node: state.Node{ID: workerID, Role: state.RoleCore, Cluster: "j-DEFAULT"}})
	session, err := w.client(security.RoleWorker, workerID).Session(t.Context())
	require.NoError(t, err)
	hello(t, session)
	welcome, err := session.Receive()
	require.NoError(t, err)
	require.EqualValues(t, 9, welcome.GetWelcome().Term)
	require.Equal(t, workerID, <-w.sessions.served)
}

func TestARemovedNodesCertificateIsRevoked(t *testing.T) {
	w := newWorld(t)
	w.apply(state.PutNode{Node: state.Node{ID: workerID, Role: state.RoleCore, Cluster: "j-DEFAULT"}})
	w.apply(state.RemoveNode{ID: workerID})
	stream, err := w.client(security.RoleWorker, workerID).Session(t.Context())
	require.NoError(t, err)
	hello(t, stream)
	_, err = stream.Receive()
	require.Equal(t, connect.CodeUnauthenticated, connect.CodeOf(err))
	require.True(t, client.Removed(err), "and knows that it is for good: %v", err)
}

// A leader that has been away for a while may not have heard of who has come since: it refuses nobody before it has made sure that it leads.
func TestALeaderRefusesOnlyOnceItSurelyLeads(t *testing.T) {
	w := newWorld(t)
	lead := func(verify func(context.Context) error) {
		l := *w.leader
		l.Verify = verify
		w.server.Lead(&l)
	}
	list := func() error {
		_, err := w.user("bob").ListNodes(t.Context(), connect.NewRequest(&api.ListNodesRequest{}))
		return err
	}
	lead(func(context.Context) error { return ErrNotLeader })
	require.Equal(t, connect.CodeUnavailable, connect.CodeOf(list()), "it is for another to say")
	require.Empty(t, w.audit.take(), "nobody was refused")
	lead(func(context.Context) error { return nil })
	requireProblems(t, list(), client.ExitUnreachable, "user bob was removed")
	require.Len(t, w.audit.take(), 1)

	create := sync.OnceValue(func() error {
		_, err := w.log.Apply(t.Context(), state.CreateUser{User: state.User{Name: "bob", Role: state.UserRead}})
		return err
	})
	lead(func(context.Context) error { return create() })
	require.NoError(t, list(), "that was in the log")
}

func TestKeysOfTheStoreAreTheAdministrators(t *testing.T) {
	w := newWorld(t)
	for name, secret := range map[string]string{"alice": "", Admin: "secret"} {
		got, err := w.user(name).GetSite(t.Context(), connect.NewRequest(&api.GetSiteRequest{}))
		require.NoError(t, err)
		require.Equal(t, "http://store.test", got.Msg.Store.Endpoint)
		require.Equal(t, secret, got.Msg.Store.SecretKey, name)
	}
}

// follower is a second master of w's site that does not lead.
func follower(t *testing.T, w *world) *world {
	t.Helper()
	f := &world{t: t, ca: w.ca, state: w.state, log: w.log, store: w.store, cluster: &fakeCluster{leader: w.http.URL}, audit: &notes{}, now: time.Now()}
	f.serve()
	return f
}

func TestAFollowerForwards(t *testing.T) {
	w := newWorld(t)
	w.ready()
	w.cluster.leader = w.http.URL
	f := follower(t, w)

	for name, secret := range map[string]string{"alice": "", Admin: "secret"} {
		got, err := f.user(name).GetSite(t.Context(), connect.NewRequest(&api.GetSiteRequest{}))
		require.NoError(t, err)
		require.Equal(t, secret, got.Msg.Store.SecretKey, "the leader knows who asked: %s", name)
	}
	job := f.submit(wordcount())
	require.Equal(t, "alice", job.User)

	_, err := f.user("alice").GetJob(t.Context(), connect.NewRequest(&api.GetJobRequest{Job: "nothing"}))
	requireProblems(t, err, client.ExitNotFound, "no such job: nothing")

	watch, err := f.user("alice").WatchJob(t.Context(), connect.NewRequest(&api.GetJobRequest{Job: job.Id}))
	require.NoError(t, err)
	require.True(t, watch.Receive(), "streams are forwarded as they come")
	require.NoError(t, watch.Close())

	require.Equal(t, http.StatusUnauthorized, post(t, f.stranger(), f.http.URL+apiconnect.MillraceServiceGetSiteProcedure))
}

func TestAFollowerSendsSessionsToTheLeader(t *testing.T) {
	w := newWorld(t)
	w.apply(state.PutNode{Node: state.Node{ID: workerID, Role: state.RoleCore, Cluster: "j-DEFAULT"}})
	f := follower(t, w)
	worker := f.client(security.RoleWorker, workerID)
	first, err := worker.Session(t.Context())
	require.NoError(t, err)
	hello(t, first)
	_, err = first.Receive()
	require.Equal(t, connect.CodeFailedPrecondition, connect.CodeOf(err))

	second, err := worker.Session(t.Context())
	require.NoError(t, err)
	hello(t, second)
	_, err = second.Receive()
	require.NoError(t, err, "the client has learnt where the leader is")
}

func TestWithoutALeaderCallsAreToBeRepeated(t *testing.T) {
	w := newWorld(t)
	w.server.Lead(nil)
	_, err := w.user("alice").GetSite(t.Context(), connect.NewRequest(&api.GetSiteRequest{}))
	require.Equal(t, connect.CodeUnavailable, connect.CodeOf(err))
	requireProblems(t, err, client.ExitUnreachable)

	// Two followers that take each other for the leader do not go round in circles.
	f := follower(t, w)
	w.cluster.leader = f.http.URL
	_, err = f.user("alice").GetSite(t.Context(), connect.NewRequest(&api.GetSiteRequest{}))
	require.Equal(t, connect.CodeUnavailable, connect.CodeOf(err))
}

// A leader that refuses answers before it has read the request, and the client then sends no more of it: the follower between
// the two must not wait for the rest.
func TestARefusalIsForwardedThoughTheRequestNeverEnds(t *testing.T) {
	w := newWorld(t)
	f := follower(t, w)
	w.server.Lead(nil) // it was deposed, and the follower has not heard
	config, err := w.credential(security.RoleUser, "alice").ClientTLS(security.MasterName)
	require.NoError(t, err)
	body, rest := io.Pipe()
	defer rest.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.http.URL+apiconnect.MillraceServiceSubmitJobProcedure, body)
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/proto")
	resp, err := httpsClient(t, config).Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	_, err = io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
}
