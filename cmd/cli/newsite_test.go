package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/cmd/cli/devcluster"
	"millrace/pkg/client"
)

// A master whose disk is not mounted makes no other site at its address. (The fake master has the port: a master that is let go on finds it taken.)
func TestNoNewSiteWhereAContextHasAMaster(t *testing.T) {
	s := newSession(t).serve(&fakeMaster{})
	known, err := client.LoadContext(filepath.Join(s.home, ".millrace"), "dev")
	require.NoError(t, err)
	address := strings.TrimPrefix(known.Servers[0], "https://")
	run := func(more ...string) output {
		return s.run(append([]string{"master", "run", "--listen", address, "--raft-listen", "127.0.0.1:0", "--gossip-listen", "127.0.0.1:0"}, more...)...)
	}
	const refused = "holds no master yet, and the context dev has https://"
	empty := filepath.Join(t.TempDir(), "master")
	o := run("--dir", empty)
	require.Equal(t, exitUsage, o.code)
	require.Contains(t, o.err, refused+address+" as a master of site site: is the folder's disk mounted?")
	require.Contains(t, o.err, "millrace context remove dev")
	require.NoDirExists(t, empty)

	o = run("--dir", empty, "--join", "https://127.0.0.1:1", "--token", "x")
	require.NotContains(t, o.err, refused, "it joins")
	s.vars[devcluster.LifelineEnv] = "none"
	require.Contains(t, run("--dir", empty).err, "is no file descriptor", "dev starts it")
	delete(s.vars, devcluster.LifelineEnv)
	o = run("--dir", empty, "--advertise", "192.0.2.1")
	require.NotContains(t, o.err, refused, "another address")
	require.Contains(t, o.err, "in use")

	there := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(there, "node.json"), []byte("{}"), 0o600))
	require.NotContains(t, run("--dir", there).err, refused, "it is somebody")

	require.Equal(t, 0, s.run("context", "set", "bare", "--server", known.Servers[0]).code)
	require.Equal(t, 0, s.run("context", "remove", "dev").code)
	o = run("--dir", empty, "--s3", "http://127.0.0.1:9", "--s3-access-key", "a", "--s3-secret-key", "b")
	require.NotContains(t, o.err, "is the folder's disk mounted", "a context of no site says nothing")
	require.Contains(t, o.err, "in use")
}
