//go:build cluster

package clustertest

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	masters "millrace/pkg/client"
	"millrace/pkg/objectstore"
)

// secrets are what nobody may come across, by what they are.
type secrets map[string]string

// pem adds a private key: the middle of it is enough to know it by.
func (s secrets) pem(what string, text []byte) {
	block, _ := pem.Decode(text)
	if block == nil {
		return
	}
	line := strings.Split(string(pem.EncodeToMemory(block)), "\n")[2]
	s[what] = line
}

// in names the secrets that are in some text.
func (s secrets) in(text []byte) (found []string) {
	for what, secret := range s {
		if bytes.Contains(text, []byte(secret)) {
			found = append(found, what)
		}
	}
	return found
}

// ofToken is the secret part of a token or a code.
func ofToken(token string) string { return strings.Split(token, ".")[2] }

// places are the files of a node, or of a person, that hold secrets because that is what they are for.
func holdsSecrets(path string) bool {
	base := filepath.Base(path)
	return strings.Contains(path, "/pki/") || strings.Contains(path, "/contexts/") || base == "seal.key" || base == "gossip.key" || base == "admin.json" || base == "keys.json"
}

// TestNoSecretIsLeftBehind runs all of a cluster, and looks for each secret that it made in all that it leaves: files, the log of
// the masters, the system prefix, lists of processes and their environments, what commands print.
func TestNoSecretIsLeftBehind(t *testing.T) {
	c := startCluster(t, "--core", "1", "--task", "1", "--slots", "2")
	newCorpus(1, 1<<20).put(t, c, "data")
	known := secrets{}
	ctx, err := masters.LoadContext(c.home, "")
	require.NoError(t, err)
	known.pem("the administrator's key", []byte(ctx.Key))
	known["the object store's key"] = ctx.S3.SecretKey
	require.NoError(t, filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the cluster runs: its folders come and go
		}
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil // a socket
		}
		switch {
		case filepath.Base(path) == "seal.key" || filepath.Base(path) == "gossip.key" && !strings.Contains(path, "/pki/"):
			known[path] = strings.TrimSpace(string(data))
		case strings.Contains(path, "/pki/") && strings.Contains(filepath.Base(path), "key"):
			known.pem(path, data)
		}
		return nil
	}))
	require.Greater(t, len(known), 5, "the test finds the keys")
	code := c.json("user", "create", "bob", "--role", "submit").str("code")
	used := c.json("user", "create", "sue", "--role", "read").str("code")
	token := c.json("join-token", "create", "--role", "core").str("token")
	known["a login code"], known["a login code that was used"], known["a join token"] = ofToken(code), ofToken(used), ofToken(token)
	sue := person(t, c)
	require.Zero(t, sue.try("login", c.server, used).code)
	mine := startMinIO(t)
	known["a job's own key"] = mine.secret

	g := newGated(t)
	id := g.submit(c, "maps")
	for _, p := range processesOf(c) {
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p))
		if err != nil {
			continue // it has ended meanwhile
		}
		for _, file := range []string{"cmdline", "environ"} {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p, file))
			if err != nil || file == "environ" && (bytes.Contains(cmdline, []byte("\x00master\x00")) || bytes.Contains(cmdline, []byte("\x00object-store\x00"))) {
				continue // those two are told the store's key so, as S3 clients are
			}
			require.Empty(t, known.in(text), "/proc/%d/%s: %q", p, file, bytes.ReplaceAll(text, []byte{0}, []byte{' '}))
		}
	}
	g.open(t, g.mapGate)
	g.open(t, g.reduceGate)
	require.Equal(t, "COMPLETED", c.waitJob(id).str("state"))
	own := &cluster{t: t, home: c.home, dir: c.dir, server: c.server, env: mine.environ()}
	r := own.try("job", "submit", "wordcount", "--input", "s3://none/in", "--output", "s3://none/out", "--wait")
	require.NotZero(t, r.code)
	require.Empty(t, known.in([]byte(r.out+r.err)))

	for _, args := range [][]string{{"job", "list"}, {"job", "show", id}, {"job", "tasks", id}, {"node", "list"}, {"cluster", "show"}, {"site", "show"}, {"ca", "show"},
		{"user", "list"}, {"join-token", "list"}, {"context", "show"}, {"context", "list"}, {"job", "why", id}} {
		for _, flags := range [][]string{nil, {"--json"}} {
			r := c.try(append(args, flags...)...)
			require.Zero(t, r.code, r.err)
			require.Empty(t, known.in([]byte(r.out+r.err)), "millrace %s", strings.Join(args, " "))
		}
	}
	store := c.store()
	objects := 0
	for o, err := range store.List(t.Context(), "millrace-system", "", objectstore.ListOptions{}) {
		require.NoError(t, err)
		body, err := store.Get(t.Context(), "millrace-system", o.Key, 0, -1, "")
		require.NoError(t, err)
		text, err := io.ReadAll(body)
		require.NoError(t, errClose(err, body))
		require.Empty(t, known.in(text), "object %s", o.Key)
		objects++
	}
	require.NotZero(t, objects)

	c.stop()
	files := 0
	for _, root := range []string{c.dir, c.home, sue.home} {
		require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			require.NoError(t, err)
			if holdsSecrets(path) || filepath.Dir(path) == c.dir || filepath.Dir(path) == filepath.Join(c.home, "contexts") { // the rest lies below these folders
				require.Zero(t, info.Mode().Perm()&0o077, "%s has mode %s", path, info.Mode())
			}
			if !info.Mode().IsRegular() || holdsSecrets(path) {
				return nil
			}
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Empty(t, known.in(text), path)
			files++
			return nil
		}))
	}
	require.Greater(t, files, 20)
	t.Logf("%d secrets, %d files, %d objects", len(known), files, objects)
}

func errClose(err error, c io.Closer) error {
	if closeErr := c.Close(); err == nil {
		err = closeErr
	}
	return err
}

// processesOf are the cluster's processes, attempts and programs included: dev's and all that come of it.
func processesOf(c *cluster) (pids []int) {
	parents := map[int]int{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if parent, err := strconv.Atoi(fields[1]); err == nil {
			parents[pid] = parent
		}
	}
	for pid := range parents {
		for p := pid; p > 1; p = parents[p] {
			if p == c.dev.Process.Pid {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids
}

// TestAStrangerGetsNothing probes every port that a running site listens at.
func TestAStrangerGetsNothing(t *testing.T) {
	c := startCluster(t, "--masters", "3", "--core", "1", "--task", "1")
	ports := listeners(t, processesOf(c))
	require.Greater(t, len(ports), 10, "three ports of each master, two of each worker, the store's")
	ctx, err := masters.LoadContext(c.home, "")
	require.NoError(t, err)
	store := strings.TrimPrefix(ctx.S3.Endpoint, "http://")
	anything := &tls.Config{InsecureSkipVerify: true}
	web := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: anything, ForceAttemptHTTP2: true, DisableKeepAlives: true}}
	answered := 0
	for _, port := range ports {
		if port == store {
			continue // plain HTTP, on loopback, signed requests only
		}
		for _, path := range []string{"/", "/healthz", "/metrics", "/debug/pprof/", "/v1/binaries/linux-amd64", "/v1/blocks/", "/v1/node/log", "/v1/health",
			"/millrace.v1.MillraceService/GetSite", "/millrace.v1.FilesService/StatFile", "/millrace.v1.JoinService/NoSuch", "/millrace.v1.WorkerService/Session"} {
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				req, err := http.NewRequestWithContext(t.Context(), method, "https://"+port+path, strings.NewReader("{}"))
				require.NoError(t, err)
				req.Header.Set("Content-Type", "application/json")
				resp, err := web.Do(req)
				if err != nil {
					continue // an alert, or no TLS at all
				}
				resp.Body.Close()
				require.Contains(t, []int{http.StatusUnauthorized, http.StatusForbidden}, resp.StatusCode, "%s https://%s%s", method, port, path)
				answered++
			}
		}
		// What is said without TLS is answered with nothing, an alert, or the word that TLS is spoken here; gossip answers in cipher.
		conn, err := net.DialTimeout("tcp", port, patience)
		require.NoError(t, err)
		_, _ = io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n") // it may have been closed already
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(2*time.Second)))
		answer, _ := io.ReadAll(io.LimitReader(conn, 4096))
		require.NoError(t, conn.Close())
		if len(answer) > 0 {
			require.Regexp(t, `^(\x15|\n\x00\x00\x00|HTTP/1\.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server\.)`, string(answer), port)
		}
	}
	require.NotZero(t, answered, "masters answer that one may not")
	var lines []byte
	waitFor(t, "the refusals are in the audit log", func() (bool, string) {
		logs, _ := filepath.Glob(filepath.Join(c.dir, "master*", "audit", "audit.jsonl"))
		lines = nil
		for _, l := range logs {
			data, _ := os.ReadFile(l)
			lines = append(lines, data...)
		}
		return bytes.Contains(lines, []byte(`"refused":true`)), string(lines)
	})
	for _, line := range bytes.Split(bytes.TrimSpace(lines), []byte("\n")) {
		require.True(t, json.Valid(line), string(line))
	}
}

// listeners are the TCP ports, host:port, that processes listen at.
func listeners(t *testing.T, pids []int) (ports []string) {
	t.Helper()
	inodes := map[string]bool{}
	for _, pid := range pids {
		fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		for _, fd := range fds {
			if link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name())); err == nil && strings.HasPrefix(link, "socket:[") {
				inodes[strings.Trim(strings.TrimPrefix(link, "socket:"), "[]")] = true
			}
		}
	}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, err := os.ReadFile(table)
		require.NoError(t, err)
		for _, line := range strings.Split(string(data), "\n")[1:] {
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != "0A" || !inodes[f[9]] { // LISTEN
				continue
			}
			_, hex, _ := strings.Cut(f[1], ":")
			port, err := strconv.ParseUint(hex, 16, 16)
			require.NoError(t, err)
			ports = append(ports, fmt.Sprintf("127.0.0.1:%d", port))
		}
	}
	return ports
}
