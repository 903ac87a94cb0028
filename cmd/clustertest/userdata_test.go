//go:build cluster

package clustertest

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The script of `cluster user-data` makes a node of a machine that has nothing but a shell and something to fetch with; it waits for
// the network, and run again, or after a reboot, it changes nothing.
func TestUserData(t *testing.T) {
	l := newLab(t)
	m1 := l.site()
	script := m1.do("millrace cluster user-data --role task --wait 1m")
	for i, fetches := range []struct {
		what  string
		tools []string // beside busybox
	}{
		{"wget", []string{"openssl"}}, // busybox's own TLS is too old for a master; Alpine brings ssl_client, others openssl
		{"curl", []string{"curl"}},
	} {
		t.Run(fetches.what, func(t *testing.T) {
			h := l.host("bare"+fetches.what, 20+i)
			h.lab = &lab{t: t, id: l.id, store: l.store} // its failures are this test's
			for _, tool := range fetches.tools {
				path, err := exec.LookPath(tool)
				if err != nil {
					t.Skipf("%s is not here", tool)
				}
				h.bring(path, "/usr/bin/"+tool)
			}
			attempts := "mind: jobs' programs run as root here, and can read all that this node keeps: make user millrace-task: this machine has neither useradd"
			if fetches.what == "curl" {
				h.do("rm /bin/wget")
				h.makesUsers()
				attempts = "jobs' programs run as user millrace-task\n"
			}
			h.put("/root/user-data", script)
			h.network(false)
			cmd := h.command(t.Context(), "sh /root/user-data")
			var said lockedBuffer
			cmd.Stdout, cmd.Stderr = &said, &said
			require.NoError(t, cmd.Start())
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			waitFor(t, "it waits for the network", func() (bool, string) {
				return strings.Contains(said.String(), "waiting for the network and the masters"), said.String()
			})
			h.network(true)
			require.NoError(t, <-ended, said.String())
			require.Contains(t, said.String(), "joined: this machine is i-", said.String())
			require.Contains(t, said.String(), attempts)
			first := m1.awaitNode(h.name)
			require.Equal(t, "TASK", first.str("role"))

			again := h.do("sh /root/user-data")
			require.Contains(t, again, "had joined already")
			leftNoToken(t, h, script)

			h.off() // a reboot: what starts services at boot is not here, so user data does
			require.Contains(t, h.do("sh /root/user-data"), "had joined already")
			waitFor(t, "the same node is back", func() (bool, string) {
				n := m1.running()[h.name]
				return n != nil && n.str("id") == first.str("id") && n.num("pid") != first.num("pid"), said.String()
			})
		})
	}

	t.Run("not what it should be", func(t *testing.T) {
		h := l.host("wary", 30)
		path, err := exec.LookPath("curl")
		if err != nil {
			t.Skip("curl is not here")
		}
		h.bring(path, "/usr/bin/curl")
		wrong := strings.Replace(script, "--wait \"${patience}s\"", "", 1)
		wrong = strings.Replace(wrong, "patience=60", "patience=1", 1)
		sum := wrong[strings.Index(wrong, "sum=")+4:][:64]
		h.put("/root/user-data", strings.ReplaceAll(wrong, sum, strings.Repeat("0", 64)))
		r := h.try("sh /root/user-data")
		require.NotZero(t, r.code)
		require.Contains(t, r.err, "is not the program that this script was made for")
		require.NoFileExists(t, filepath.Join(h.root, "usr/local/bin/millrace"))

		ca := wrong[strings.Index(wrong, "ca='")+4:][:64]
		h.put("/root/user-data", strings.ReplaceAll(wrong, ca, strings.Repeat("0", 64)))
		r = h.try("sh /root/user-data")
		require.Equal(t, 3, r.code, r.err)
		require.Contains(t, r.err, "the token is of a site whose CA has the fingerprint "+ca)
	})
}

// leftNoToken looks for the script's token in all that it has left on the machine, and in the arguments of what runs there.
func leftNoToken(t *testing.T, h *labHost, script string) {
	t.Helper()
	token := script[strings.Index(script, "token='")+7:]
	token = token[:strings.IndexByte(token, '\'')]
	secret := strings.Split(token, ".")[2]
	out, err := exec.Command("grep", "-rlF", "--exclude=user-data", secret, filepath.Join(h.root, "var"), filepath.Join(h.root, "etc"), filepath.Join(h.root, "tmp")).Output()
	require.Error(t, err, "%s", out)
	pids, err := exec.Command("ip", "netns", "pids", h.ns).Output()
	require.NoError(t, err)
	for pid := range strings.FieldsSeq(string(pids)) {
		line, err := exec.Command("cat", "/proc/"+pid+"/cmdline", "/proc/"+pid+"/environ").Output()
		if err == nil { // it has not ended meanwhile
			require.False(t, bytes.Contains(line, []byte(secret)), "%s", line)
		}
	}
}
