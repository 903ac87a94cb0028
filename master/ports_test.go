package master

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"millrace/pkg/api"
	"millrace/pkg/objectstore"
	"millrace/pkg/security"
)

// refused says whether a server ends, within a time, a TLS connection that a client begins: where it is to do so, the time is generous.
func refused(t *testing.T, address string, config *tls.Config, within time.Duration) bool {
	t.Helper()
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Minute}, "tcp", address, config)
	if err != nil {
		return true
	}
	defer conn.Close()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(within)))
	_, err = io.ReadFull(conn, make([]byte, 1)) // a refusal in TLS 1.3 is heard here
	netErr, ok := err.(net.Error)
	return !(ok && netErr.Timeout())
}

func TestTheRaftPortIsForMastersOnly(t *testing.T) {
	m := openMaster(t, testConfig(t, t.TempDir(), objectstore.NewMemory()))
	ca, err := m.ca()
	require.NoError(t, err)
	address := string(m.raft.address)
	config := func(role security.Role, id string) *tls.Config {
		c, err := issue(ca, role, id, time.Now())
		require.NoError(t, err)
		conf, err := c.ClientTLS(security.MasterName)
		require.NoError(t, err)
		return conf
	}
	require.False(t, refused(t, address, config(security.RoleMaster, "i-0000000000000000b"), 300*time.Millisecond))
	require.True(t, refused(t, address, config(security.RoleWorker, "i-0000000000000000c"), time.Minute))
	require.True(t, refused(t, address, config(security.RoleUser, "admin"), time.Minute))
	nobody := config(security.RoleUser, "x")
	nobody.Certificates = nil
	require.True(t, refused(t, address, nobody, time.Minute))
}

func TestADamagedDirectoryIsNotTakenForANewOne(t *testing.T) {
	for name, damage := range map[string]struct {
		file string
		says string
	}{
		"without its identity": {"node.json", "node.json"},
		"without its log":      {filepath.Join("raft", logFile), "is gone"},
		"without its seal key": {"seal.key", "seal.key"},
	} {
		t.Run(name, func(t *testing.T) {
			c := testConfig(t, t.TempDir(), objectstore.NewMemory())
			require.NoError(t, openMaster(t, c).Close())
			require.NoError(t, os.Remove(filepath.Join(c.Dir, damage.file)))
			again, err := New(c)
			require.NoError(t, err)
			require.ErrorContains(t, again.Open(t.Context()), damage.says)
			require.NoError(t, again.Close())
		})
	}
}

func TestAFirstStartCutShortBeginsAnew(t *testing.T) {
	c := testConfig(t, t.TempDir(), objectstore.NewMemory())
	require.NoError(t, os.WriteFile(filepath.Join(c.Dir, "seal.key"), []byte("half"), 0o600))
	inTheWay := filepath.Join(c.Dir, "pki", "key.pem")
	require.NoError(t, os.MkdirAll(filepath.Join(inTheWay, "full"), 0o700))
	require.ErrorContains(t, Enroll(t.Context(), c), "key.pem")
	require.NoFileExists(t, filepath.Join(c.Dir, "node.json"), "it would be one without secrets")
	require.NoError(t, os.RemoveAll(inTheWay))
	openMaster(t, c)
}

func TestConfigIsChecked(t *testing.T) {
	good := testConfig(t, t.TempDir(), objectstore.NewMemory())
	for name, change := range map[string]func(*Config){
		"no directory":      func(c *Config) { c.Dir = "" },
		"no port":           func(c *Config) { c.Listen = "localhost" },
		"system prefix":     func(c *Config) { c.SystemPrefix = "http://x" },
		"system in hdfs":    func(c *Config) { c.SystemPrefix = "hdfs:///x" },
		"store no endpoint": func(c *Config) { c.Store.Endpoint = "" },
	} {
		c := good
		c.Store = proto.Clone(good.Store).(*api.ObjectStore)
		change(&c)
		_, err := New(c)
		require.Error(t, err, name)
	}
	good.Store = nil
	m, err := New(good)
	require.NoError(t, err)
	require.ErrorContains(t, m.Open(t.Context()), "needs its object store")
	require.NoError(t, m.Close())
}

func TestWhatOthersReachItBy(t *testing.T) {
	bound := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7}
	everywhere := &net.TCPAddr{IP: net.IPv6unspecified, Port: 7}
	name, err := os.Hostname()
	require.NoError(t, err)
	for _, c := range []struct {
		advertise string
		bound     net.Addr
		want      string
	}{
		{"", bound, "127.0.0.1:7"},
		{"", everywhere, net.JoinHostPort(name, "7")},
		{"m1.example", everywhere, "m1.example:7"},
		{"m1.example:99", everywhere, "m1.example:99"},
		{"m1.example:0", everywhere, "m1.example:7"},
	} {
		got, err := reachable(c.advertise, c.bound)
		require.NoError(t, err)
		require.Equal(t, c.want, got)
	}
}
