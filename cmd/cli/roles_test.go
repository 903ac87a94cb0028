package cli

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
	"millrace/pkg/objectstore/fakes3"
)

// What keeps a role from starting is said with what to do about it on this machine: there may be
// no cluster to ask.
func TestARoleThatCannotStartSaysWhatToDo(t *testing.T) {
	t.Chdir(".") // the object store goes to its own folder: the test's end comes back
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer busy.Close()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	dir := t.TempDir()
	masters := filepath.Join(t.TempDir(), "master")
	require.NoError(t, os.Mkdir(masters, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(masters, "node.json"), []byte(`{"id":"i-1","role":"MASTER"}`), 0o600))
	refused := against(fakes3.Start(t, &fakes3.Server{Store: objectstore.NewMemory(), Answer: func(*http.Request) *fakes3.Refusal {
		return &fakes3.Refusal{Status: 403, Code: "SignatureDoesNotMatch", Message: "SignatureDoesNotMatch"}
	}}), "master", "run", "--listen", "127.0.0.1:0", "--raft-listen", "127.0.0.1:0", "--gossip-listen", "127.0.0.1:0", "--dir", t.TempDir())
	for name, c := range map[string]struct {
		args            []string
		code            int
		message, advice string
	}{
		"no dir":        {[]string{"worker", "run"}, 2, "needs --dir", "millrace worker run --dir DIR"},
		"no folder":     {[]string{"worker", "--dir", file}, 2, "--dir: mkdir", "a folder that can be made"},
		"nothing":       {[]string{"worker", "--dir", dir}, 2, "missing: a token, a master to join", "millrace join-token create"},
		"no token":      {[]string{"worker", "--dir", dir, "--join", "https://127.0.0.1:1"}, 2, "missing: a token\n", "millrace join-token create"},
		"no master":     {[]string{"worker", "--dir", dir, "--token", "x"}, 2, "missing: a master to join\n", "millrace join-token create"},
		"odd token":     {[]string{"worker", "--dir", dir, "--token", "x", "--join", "https://127.0.0.1:1"}, 2, "not a join token", "copy the token whole"},
		"port in use":   {[]string{"worker", "--dir", dir, "--listen", busy.Addr().String()}, 2, "the port is in use by another process (pid ", "end what has the port"},
		"no such host":  {[]string{"worker", "--dir", dir, "--listen", "192.0.2.1:0"}, 2, "cannot assign", "an address of this machine"},
		"a master's":    {[]string{"worker", "--dir", masters, "--token", "x"}, 2, "belongs to a master", "name another folder"},
		"master's port": {[]string{"master", "run", "--dir", t.TempDir(), "--listen", busy.Addr().String()}, 2, "--listen 127.0.0.1:", "end what has the port, or choose another: millrace master run --listen"},
		"store's key":   {refused, 3, "object store http://127.0.0.1:", "check AWS_SECRET_ACCESS_KEY"},
		"store's port":  {[]string{"object-store", "--dir", t.TempDir(), "--listen", busy.Addr().String()}, 2, "in use", "end what has the port"},
		"dev's folder":  {[]string{"dev", "--dir", filepath.Join(file, "x")}, 2, "not a directory", "a folder that this user can write to"},
	} {
		t.Run(name, func(t *testing.T) {
			got := newSession(t).run(c.args...)
			require.Equal(t, c.code, got.code, got.err)
			require.Contains(t, got.err, c.message)
			require.Regexp(t, "(?m)^next: .*"+c.advice, got.err)
			require.NotContains(t, got.err, "status says")
		})
	}
}
