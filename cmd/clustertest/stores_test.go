//go:build cluster

package clustertest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
	"millrace/pkg/objectstore/faultproxy"
)

// storeProcess is an object store of the test's own, which can be killed and started again
// on the same folder and port, with a fault proxy before it.
type storeProcess struct {
	t       *testing.T
	name    string // embedded or minio
	address string
	dir     string
	cmd     *exec.Cmd
	direct  objectstore.Store // past the proxy
	proxy   *faultproxy.Proxy
}

const storeKey, storeSecret = "millrace-test", "millrace-test-secret"

// startStore starts an embedded store or a MinIO, and the proxy.
func startStore(t *testing.T, name string, hook func(faultproxy.Request) faultproxy.Fault) *storeProcess {
	t.Helper()
	s := &storeProcess{t: t, name: name, address: freeAddress(t), dir: t.TempDir()}
	var err error
	s.direct, err = objectstore.NewS3(objectstore.Config{Endpoint: "http://" + s.address, AccessKey: storeKey, SecretKey: storeSecret})
	require.NoError(t, err)
	s.start()
	t.Cleanup(s.kill)
	s.proxy, err = faultproxy.New("http://"+s.address, hook)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.proxy.Close()) })
	return s
}

func (s *storeProcess) start() {
	s.t.Helper()
	if s.name == "minio" {
		s.cmd = exec.Command(os.Getenv("MILLRACE_MINIO"), "server", "--quiet", "--address", s.address, filepath.Join(s.dir, "data"))
	} else {
		s.cmd = exec.Command(binary(s.t), "object-store", "--dir", s.dir, "--listen", s.address)
	}
	log := &lockedBuffer{}
	s.cmd.Env = append(os.Environ(), "MINIO_ROOT_USER="+storeKey, "MINIO_ROOT_PASSWORD="+storeSecret, "MINIO_BROWSER=off")
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(s.t, s.cmd.Start())
	waitFor(s.t, s.name+" answers", func() (bool, string) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := s.direct.ListBuckets(ctx)
		return err == nil, fmt.Sprint(err, log)
	})
}

// kill ends the store with SIGKILL.
func (s *storeProcess) kill() {
	if s.cmd.ProcessState == nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	}
}

// cluster starts a dev cluster on the store, through the proxy.
func (s *storeProcess) cluster(flags ...string) *cluster {
	s.t.Helper()
	env := []string{"AWS_ACCESS_KEY_ID=" + storeKey, "AWS_SECRET_ACCESS_KEY=" + storeSecret, "AWS_ENDPOINT_URL=" + s.proxy.URL}
	return startClusterEnv(s.t, env, append([]string{"--s3", s.proxy.URL}, flags...)...)
}

func (s *storeProcess) put(bucket, key, content string) {
	s.t.Helper()
	_, err := s.direct.Put(s.t.Context(), bucket, key, strings.NewReader(content), int64(len(content)), objectstore.PutOptions{})
	require.NoError(s.t, err)
}

// contents are the objects below a prefix.
func contents(t *testing.T, s *storeProcess, prefix string) map[string]string {
	t.Helper()
	set := map[string]string{}
	for o, err := range s.direct.List(t.Context(), "data", prefix, objectstore.ListOptions{}) {
		require.NoError(t, err)
		set[o.Key] = string(get(t, s.direct, "data", o.Key))
	}
	return set
}
