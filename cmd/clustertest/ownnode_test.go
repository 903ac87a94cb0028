//go:build cluster

package clustertest

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/stretchr/testify/require"
)

// ownNode is a node that a test starts and ends itself, beside those of dev: it may be off for as long as the test likes.
type ownNode struct {
	c    *cluster
	dir  string
	args []string
	cmd  *exec.Cmd
	log  *lockedBuffer // of its last run
}

// ownNode prepares a node of a role, with an empty folder. Nothing of it outlives the test.
func (c *cluster) ownNode(name, role string) *ownNode {
	c.t.Helper()
	n := &ownNode{c: c, dir: filepath.Join(c.t.TempDir(), name)}
	n.args = []string{"worker", "run", "--slots", "1"}
	if role == "master" {
		n.args = []string{"master", "run", "--raft-listen", "127.0.0.1:0"}
	}
	n.args = append(n.args, "--dir", n.dir, "--name", name, "--join", c.server, "--listen", "127.0.0.1:0", "--gossip-listen", "127.0.0.1:0")
	c.t.Cleanup(n.off)
	return n
}

// on starts it; at its first start it joins, with a token for that.
func (n *ownNode) on(token string) {
	n.c.t.Helper()
	n.log = &lockedBuffer{}
	n.cmd = exec.Command(binary(n.c.t), n.args...)
	if token != "" {
		n.cmd.Args = append(n.cmd.Args, "--token", "-")
		n.cmd.Stdin = strings.NewReader(token)
	}
	n.cmd.Env, n.cmd.Stderr = n.c.environ(), n.log
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	require.NoError(n.c.t, n.cmd.Start())
}

// off is its machine's power.
func (n *ownNode) off() {
	if n.cmd != nil {
		n.cmd.Process.Kill()
		n.cmd.Wait()
		n.cmd = nil
	}
}

// joinToken makes a token for a role.
func (c *cluster) joinToken(role string) string {
	c.t.Helper()
	return c.json("join-token", "create", "--role", role).str("token")
}

// awaitNode waits until a node is in a state under a process that is not the given one, and returns it.
func (c *cluster) awaitNode(name, state string, not int64) (n object) {
	c.t.Helper()
	waitFor(c.t, name+" is "+state, func() (bool, string) {
		r := c.try("node", "list", "--json")
		var list []object
		if r.code == 0 {
			require.NoError(c.t, json.Unmarshal([]byte(r.out), &list), r.out)
		}
		for _, o := range list {
			if o.str("name") == name && o.str("state") == state && o.num("pid") > 0 && o.num("pid") != not {
				n = o
			}
		}
		return n != nil, r.out + r.err
	})
	return n
}
