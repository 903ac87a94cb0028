package client_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
	"millrace/hdfs/client"
	masters "millrace/pkg/client"
	"millrace/pkg/security"
)

func TestConnectNeedsAContext(t *testing.T) {
	home := t.TempDir()
	t.Setenv("MILLRACE_HOME", home)
	_, err := client.Connect("", "")
	require.ErrorIs(t, err, masters.ErrNoContext)
	require.NoError(t, masters.SaveContext(home, &masters.Context{Name: "mine", Servers: []string{"https://127.0.0.1:1"}}))
	_, err = client.Connect("mine", "")
	require.ErrorContains(t, err, "context mine", "it has no credential")
}

// The calls have been repeated already, and there is nothing that could come back.
func TestAClusterThatIsOffIsNotWaitedFor(t *testing.T) {
	ca, err := security.NewCA("site")
	require.NoError(t, err)
	key, csr, err := security.NewKey()
	require.NoError(t, err)
	certificate, _, err := ca.Sign(csr, security.Identity{Site: "site", Role: security.RoleUser, ID: "alice"}, nil, time.Now(), time.Hour)
	require.NoError(t, err)
	user := security.Credential{CertPEM: certificate, KeyPEM: key, CAPEM: ca.CertPEM()}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())

	calls, err := masters.New(masters.Config{Servers: []string{"https://" + l.Addr().String()}, Credential: user, RetryFor: time.Hour, RefusedFor: time.Nanosecond})
	require.NoError(t, err)
	defer calls.Close()
	live, err := security.NewLive(user)
	require.NoError(t, err)
	nodes := masters.NewNodes(live)
	defer nodes.Close()
	f, err := client.New(client.Config{Names: client.Remote(calls.Files(), ""), Dialer: nodes, Patience: time.Hour})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = f.Stat(ctx, "/a")
	require.NoError(t, ctx.Err())
	require.NotErrorIs(t, err, hdfs.ErrUnavailable)
	require.EqualValues(t, masters.ExitUnreachable, masters.Problems(err).ExitCode)
	require.Contains(t, masters.Problems(err).Errors[0], "no master answers at https://"+l.Addr().String())
}
