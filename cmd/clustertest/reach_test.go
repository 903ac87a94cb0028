//go:build cluster

package clustertest

import (
	"crypto/tls"
	"encoding/pem"
	"io"
	"log"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestAKeyThatMayNot: what the key may not do is found before the job starts: exit code 3, the place named.
func TestAKeyThatMayNot(t *testing.T) {
	b := startBucketSite(t)
	before := len(b.jsonList("job", "list"))
	for _, test := range []struct {
		denied []string
		says   []string
	}{
		{[]string{"PutObject"}, []string{"output s3://data/o/: access denied"}},
		{[]string{"ListBucket"}, []string{"input s3://data/in/: access denied", "output s3://data/o/: access denied"}},
	} {
		r := b.try(append([]string{"run", "wordcount", "s3://data/in/", "s3://data/o"}, b.but(test.denied...)...)...)
		require.Equal(t, 3, r.code, r.err)
		for _, s := range test.says {
			require.Contains(t, r.err, s)
		}
		require.Contains(t, r.err, "\nnext: ")
	}
	require.Len(t, b.jsonList("job", "list"), before)
	requireNothing(t, b.cluster, "data", "o/")
	// One that may do all but what a job needs not.
	b.mr(append([]string{"run", "wordcount", "s3://data/in/", "s3://data/o"}, b.but("ListAllMyBuckets", "CreateBucket")...)...)
}

// TestAStoreThatSomeNodesCannotReach: the store speaks TLS, and one of the nodes does not know the CA.
func TestAStoreThatSomeNodesCannotReach(t *testing.T) {
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	var target *url.URL
	proxy := httptest.NewUnstartedServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host // it is signed
	}})
	proxy.TLS = &tls.Config{NextProtos: []string{"http/1.1"}}
	proxy.Config.ErrorLog = log.New(io.Discard, "", 0) // the strangers' handshakes
	proxy.StartTLS()
	t.Cleanup(proxy.Close)
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: proxy.Certificate().Raw}), 0o600))
	c := startClusterEnv(t, []string{"SSL_CERT_FILE=" + ca}, "--core", "1", "--task", "1", "--slots", "1")
	c.mr("fs", "mb", "s3://data")
	require.Zero(t, c.tryIn(strings.NewReader("some words\n"), "fs", "put", "-", "s3://data/in").code)
	env := map[string]string{}
	for _, line := range strings.Split(c.mr("context", "env"), "\n") {
		name, value, _ := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		env[name] = strings.Trim(value, `'"`)
	}
	var err error
	target, err = url.Parse(env["AWS_ENDPOINT_URL"])
	require.NoError(t, err)
	run := func(output string) result {
		return c.try("run", "wordcount", "s3://data/in", output, "--s3", proxy.URL, "--s3-access-key", env["AWS_ACCESS_KEY_ID"], "--s3-secret-key", env["AWS_SECRET_ACCESS_KEY"])
	}
	require.Zero(t, run("s3://data/first").code)

	token := c.json("join-token", "create", "--role", "task").str("token")
	stranger := exec.Command(binary(t), "worker", "--dir", filepath.Join(dir, "stranger"), "--name", "stranger", "--join", c.server, "--token", "-", "--slots", "1",
		"--listen", "127.0.0.1:0", "--gossip-listen", "127.0.0.1:0")
	stranger.Env = append(c.environ(), "SSL_CERT_FILE=/dev/null", "SSL_CERT_DIR="+t.TempDir())
	stranger.Stdin, stranger.Stderr = strings.NewReader(token), io.Discard
	stranger.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, stranger.Start())
	t.Cleanup(func() { stranger.Process.Kill(); stranger.Wait() })
	waitFor(t, "the stranger runs", func() (bool, string) { return len(c.nodes("TASK")) == 2, "" })

	before := len(c.jsonList("job", "list"))
	r := run("s3://data/second")
	require.Equal(t, 3, r.code, r.err)
	require.Contains(t, r.err, "millrace: 1 of 3 nodes cannot reach "+proxy.URL+" (stranger: ")
	require.Contains(t, r.err, "certificate")
	require.Contains(t, r.err, "\nnext: name the store by an address that every node reaches")
	require.Len(t, c.jsonList("job", "list"), before, "nothing was started")
	// The site's own store all of them reach.
	c.mr("run", "wordcount", "s3://data/in", "s3://data/third")
	// Without the stranger it goes.
	require.NoError(t, stranger.Process.Signal(syscall.SIGTERM))
	waitFor(t, "the stranger is gone", func() (bool, string) { return len(c.nodes("TASK")) == 1, "" })
	r = run("s3://data/second")
	require.Zero(t, r.code, r.err)
}
