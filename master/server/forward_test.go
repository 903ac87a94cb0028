package server

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
	"millrace/pkg/client"
	"millrace/pkg/security"
)

// A master that knows of no leader, or cannot connect to the one that it knows of, says that it has done nothing. It does not of a
// request that broke off under way.
func TestAFollowerSaysWhatWasNotDone(t *testing.T) {
	w := newWorld(t)
	f := follower(t, w)
	refusal := func(at *world) string {
		t.Helper()
		_, err := at.user("alice").RevokeJoinToken(t.Context(), connect.NewRequest(&api.RevokeJoinTokenRequest{Id: "t"}))
		require.Equal(t, connect.CodeUnavailable, connect.CodeOf(err))
		var refused *connect.Error
		require.ErrorAs(t, err, &refused)
		return refused.Meta().Get(client.NotDoneHeader)
	}
	w.server.Lead(nil)
	require.NotEmpty(t, refusal(w), "there is no leader")
	require.NotEmpty(t, refusal(f), "the one that it takes for the leader leads no more")
	f.cluster.leader = serveAsMaster(t, w, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	require.Empty(t, refusal(f), "who knows how far the leader came")
	f.cluster.leader = serveAsMaster(t, w, nil)
	require.NotEmpty(t, refusal(f), "nothing listens there any more")
}

// serveAsMaster serves as another master of w's site does; nobody listens there if there is nothing to serve with.
func serveAsMaster(t *testing.T, w *world, handler http.HandlerFunc) (url string) {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.EnableHTTP2 = true
	var err error
	s.TLS, err = w.credential(security.RoleMaster, "i-000000000000000ee").ServerTLS(false)
	require.NoError(t, err)
	s.StartTLS()
	t.Cleanup(s.Close)
	if handler == nil {
		s.Close()
	}
	return s.URL
}
