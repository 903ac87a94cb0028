package master

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"millrace/pkg/api"
	"millrace/pkg/client"
	"millrace/pkg/objectstore"
)

// testConfig is a master on loopback, over a store in memory.
func testConfig(t testing.TB, dir string, store objectstore.Store) Config {
	t.Helper()
	return Config{
		Dir: dir, Listen: "127.0.0.1:0", Version: "test", Log: zaptest.NewLogger(t, zaptest.Level(zap.InfoLevel)),
		Store:     &api.ObjectStore{Endpoint: "http://store.test", AccessKey: "key", SecretKey: "very secret"},
		OpenStore: func(*api.ObjectStore) (objectstore.Store, error) { return store, nil },
	}
}

func openMaster(t testing.TB, c Config) *Master {
	t.Helper()
	m, err := New(c)
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	require.NoError(t, m.Open(t.Context()))
	select {
	case <-m.Ready():
	case err := <-m.failed:
		t.Fatalf("the master gave up: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("the master does not come up")
	}
	return m
}

// admin is a client with the administrator's context.
func admin(t testing.TB, m *Master) *client.Client {
	t.Helper()
	c, err := client.ReadContext(m.dir.Path("admin.json"))
	require.NoError(t, err)
	require.Equal(t, []string{m.Address()}, c.Servers)
	cl, err := client.New(client.Config{Servers: c.Servers, Credential: c.Credential()})
	require.NoError(t, err)
	t.Cleanup(func() { cl.Close() })
	return cl
}

// A site is not made of a store that refuses its key: nothing is kept, so that the next start with another one makes it. One that
// does not answer may come later than its master.
func TestASiteIsNotMadeOfAStoreThatRefusesItsKey(t *testing.T) {
	store := objectstore.NewMemory()
	var answer error
	store.Fault = func(string, string, string) error { return answer }
	c := testConfig(t, t.TempDir(), store)
	answer = objectstore.ErrDenied
	require.ErrorIs(t, Enroll(t.Context(), c), objectstore.ErrDenied)
	require.NoFileExists(t, filepath.Join(c.Dir, "node.json"))
	answer = objectstore.ErrUnreachable
	require.NoError(t, Enroll(t.Context(), c))
	require.FileExists(t, filepath.Join(c.Dir, "node.json"))
	answer = objectstore.ErrDenied
	require.NoError(t, Enroll(t.Context(), c), "it is somebody, and stays who it is")
}

func TestFirstStartMakesASite(t *testing.T) {
	store := objectstore.NewMemory()
	dir := filepath.Join(t.TempDir(), "new", "master")
	begin := time.Now()
	m := openMaster(t, testConfig(t, dir, store))
	t.Logf("ready after %s", time.Since(begin))

	there, err := store.BucketExists(t.Context(), "millrace-system")
	require.NoError(t, err)
	require.True(t, there)

	site, err := admin(t, m).API().GetSite(t.Context(), connect.NewRequest(&api.GetSiteRequest{}))
	require.NoError(t, err)
	require.Equal(t, DefaultSystemPrefix, site.Msg.SystemPrefix)
	require.Equal(t, "very secret", site.Msg.Store.SecretKey, "the administrator sees keys")

	cluster, err := admin(t, m).API().GetCluster(t.Context(), connect.NewRequest(&api.GetClusterRequest{}))
	require.NoError(t, err)
	require.Equal(t, "default", cluster.Msg.Name)
	require.Equal(t, "STARTING", cluster.Msg.State)
	require.Len(t, cluster.Msg.Masters, 1)
	require.True(t, cluster.Msg.Masters[0].Leader)
	require.Equal(t, m.ID(), cluster.Msg.Masters[0].Id)

	for _, name := range []string{"seal.key", "admin.json", "node.json", "gossip.key", "pki/key.pem"} {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), name)
	}
	require.NoFileExists(t, filepath.Join(dir, "genesis.json"))
	log, err := os.ReadFile(filepath.Join(dir, "raft", logFile))
	require.NoError(t, err)
	require.NotContains(t, string(log), "very secret", "secrets in the log are sealed")
	require.NotContains(t, string(log), "PRIVATE KEY")
}

func TestRestartOnTheSameDirectory(t *testing.T) {
	store := objectstore.NewMemory()
	c := testConfig(t, t.TempDir(), store)
	first := openMaster(t, c)
	before, err := admin(t, first).API().CreateJoinToken(t.Context(), connect.NewRequest(&api.CreateJoinTokenRequest{Role: "core"}))
	require.NoError(t, err)
	id, address := first.ID(), first.Address()
	require.NoError(t, first.Close())
	require.NoError(t, first.Close(), "closing twice is no error")

	c.Version, c.Store.Endpoint = "newer", "http://elsewhere.test"
	begin := time.Now()
	second := openMaster(t, c) // port 0: another port
	t.Logf("ready again after %s", time.Since(begin))
	require.Equal(t, id, second.ID())
	require.NotEqual(t, address, second.Address())

	api_ := admin(t, second).API()
	tokens, err := api_.ListJoinTokens(t.Context(), connect.NewRequest(&api.ListJoinTokensRequest{}))
	require.NoError(t, err)
	require.Len(t, tokens.Msg.Tokens, 1)
	require.Equal(t, before.Msg.Id, tokens.Msg.Tokens[0].Id)

	nodes, err := api_.ListNodes(t.Context(), connect.NewRequest(&api.ListNodesRequest{}))
	require.NoError(t, err)
	require.Len(t, nodes.Msg.Nodes, 1)
	require.Equal(t, second.Address(), nodes.Msg.Nodes[0].Address)
	require.Equal(t, "newer", nodes.Msg.Nodes[0].Version)

	site, err := api_.GetSite(t.Context(), connect.NewRequest(&api.GetSiteRequest{}))
	require.NoError(t, err)
	require.Equal(t, "http://elsewhere.test", site.Msg.Store.Endpoint, "the store's new place is taken over")
	require.Equal(t, second.Address(), site.Msg.Leader)
}

func TestADirectoryHasOneMaster(t *testing.T) {
	c := testConfig(t, t.TempDir(), objectstore.NewMemory())
	m := openMaster(t, c)
	other, err := New(c)
	require.NoError(t, err)
	require.ErrorContains(t, other.Open(t.Context()), "in use by another process")
	require.NoError(t, other.Close())

	c.Dir, c.Listen = t.TempDir(), m.http.Addr
	c.Listen = m.Address()[len("https://"):]
	other, err = New(c)
	require.NoError(t, err)
	require.ErrorContains(t, other.Open(t.Context()), "in use by another process")
	require.NoError(t, other.Close())
}

func TestRunEndsWithItsContext(t *testing.T) {
	m, err := New(testConfig(t, t.TempDir(), objectstore.NewMemory()))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	<-m.Ready()
	cancel()
	require.NoError(t, <-done)
}
