package server

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
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

// procedures are all that a master serves.
var procedures = []string{
	apiconnect.MillraceServiceGetSiteProcedure, apiconnect.MillraceServiceMissingFilesProcedure,
	apiconnect.MillraceServiceUploadFileProcedure, apiconnect.MillraceServiceSubmitJobProcedure,
	apiconnect.MillraceServiceGetJobProcedure, apiconnect.MillraceServiceExplainJobProcedure, apiconnect.MillraceServiceListJobsProcedure,
	apiconnect.MillraceServiceWatchJobProcedure, apiconnect.MillraceServiceCancelJobProcedure,
	apiconnect.MillraceServiceListTasksProcedure, apiconnect.MillraceServiceJobLogsProcedure,
	apiconnect.MillraceServiceListNodesProcedure, apiconnect.MillraceServiceGetClusterProcedure,
	apiconnect.MillraceServiceListClustersProcedure, apiconnect.MillraceServiceCreateJoinTokenProcedure,
	apiconnect.MillraceServiceListJoinTokensProcedure, apiconnect.MillraceServiceRevokeJoinTokenProcedure,
	apiconnect.WorkerServiceSessionProcedure,
}

func post(t *testing.T, c *http.Client, url string) int {
	t.Helper()
	resp, err := c.Post(url, "application/json", bytes.NewReader([]byte("{}")))
	require.NoError(t, err)
	defer resp.Body.Close()
	return resp.StatusCode
}

func TestAStrangerReachesNothing(t *testing.T) {
	w := newWorld(t)
	nobody := w.stranger()
	for _, p := range append(procedures, "/", "/metrics", "/debug/pprof/") {
		require.Equal(t, http.StatusUnauthorized, post(t, nobody, w.http.URL+p), p)
	}

	// A certificate of another site is nobody's here.
	theirs, err := security.NewCA("theirs")
	require.NoError(t, err)
	foreign := issue(t, theirs, security.RoleMaster, masterID)
	foreign.CAPEM = w.ca.CertPEM()
	_, err = w.clientWith(foreign).API().GetSite(t.Context(), connect.NewRequest(&api.GetSiteRequest{}))
	require.Equal(t, connect.CodeUnauthenticated, connect.CodeOf(err))
	requireProblems(t, err, client.ExitUnreachable)

	// Not by claiming to be forwarded, either.
	req, err := http.NewRequest(http.MethodPost, w.http.URL+apiconnect.MillraceServiceGetSiteProcedure, strings.NewReader("{}"))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(identityHeader, "millrace://ours/user/admin")
	resp, err := nobody.Do(req)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
}

func TestHealthIsForAllAndTellsNothing(t *testing.T) {
	w := newWorld(t)
	resp, err := w.stranger().Get(w.http.URL + HealthPath)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.JSONEq(t, `{"status":"ok","raft":"leader"}`, string(body))
}

func TestAUserIsNoWorkerAndAWorkerNoUser(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()

	asUser, err := w.client(security.RoleUser, "alice").Session(ctx)
	require.NoError(t, err)
	hello(t, asUser)
	_, err = asUser.Receive()
	require.Equal(t, connect.CodePermissionDenied, connect.CodeOf(err))

	worker := w.client(security.RoleWorker, workerID)
	for _, p := range procedures[:len(procedures)-1] {
		config, err := w.credential(security.RoleWorker, workerID).ClientTLS(security.MasterName)
		require.NoError(t, err)
		require.Equal(t, http.StatusForbidden, post(t, httpsClient(t, config), w.http.URL+p), p)
	}
	session, err := worker.Session(ctx)
	require.NoError(t, err)
	hello(t, session)
	welcome, err := session.Receive()
	require.NoError(t, err)
	require.EqualValues(t, 9, welcome.GetWelcome().Term)
	require.Equal(t, workerID, <-w.sessions.served, "the session is the certificate's node's")
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
	f := &world{t: t, ca: w.ca, state: w.state, log: w.log, store: w.store, cluster: &fakeCluster{leader: w.http.URL}, now: time.Now()}
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
