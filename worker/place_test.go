package worker

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
	"millrace/hdfs/blockstore"
	"millrace/pkg/api"
	"millrace/pkg/security"
)

// assign gives the node another place, over its session, and waits for it to come back as that.
func (n *fakeNode) assign(to place) {
	n.m.t.Helper()
	before := n.session()
	n.m.mu.Lock()
	n.m.places[n.id] = to
	n.m.mu.Unlock()
	n.send(&api.MasterMessage{Message: &api.MasterMessage_Assignment{Assignment: &api.Assignment{Cluster: to.cluster, Role: to.role}}})
	n.newSession(before)
	h := n.session().hello
	require.Equal(n.m.t, to, place{h.Cluster, h.Role})
}

// stores puts a block onto a core node.
func (n *fakeNode) stores(id hdfs.BlockID) {
	n.m.t.Helper()
	w, err := n.w.blocks.store.Create(hdfs.Block{ID: id, Stamp: 1})
	require.NoError(n.m.t, err)
	_, err = w.Finalize()
	require.NoError(n.m.t, err)
}

// left is all files below the node's folders that are not the node's own.
func (n *fakeNode) left(dirs ...string) (files []string) {
	n.m.t.Helper()
	for _, dir := range append(dirs, "segments", "logs", "programs", "bootstrap", "blocks") {
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(n.dir, dir)
		}
		_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() && d.Name() != "lock" {
				files = append(files, path)
			}
			return nil
		})
	}
	return files
}

func TestANodeOfThePoolComesAndGoes(t *testing.T) {
	m := newMaster(t)
	disk := filepath.Join(t.TempDir(), "disk")
	n := m.worker("free", poolRole, func(c *Config) { c.DataDirs = []string{disk} })
	require.Equal(t, place{"", poolRole}, place{n.session().hello.Cluster, n.session().hello.Role})
	require.Nil(t, n.w.blocks)
	address, first, pid := n.address(), n.session().hello.Incarnation, n.session().hello.Pid

	n.assign(place{"j-1", coreRole})
	require.Equal(t, address, n.address(), "it serves where it did")
	require.NotEqual(t, first, n.session().hello.Incarnation, "what ran in another life is gone")
	require.Equal(t, pid, n.session().hello.Pid, "it is the same process")
	n.lease(mapLease(0, "say=hello"))
	require.Nil(t, n.report("s-J-m-00000-1-1").Result.Failure)
	n.ack("s-J-m-00000-1-1", true)
	n.stores(7)
	require.Len(t, n.w.segments.Held(), 1)
	n.lease(mapLease(1, "hang"))
	n.await("it runs", progressOf("s-J-m-00001-1-2"))

	n.assign(place{"", poolRole})
	require.Empty(t, n.session().hello.Segments)
	require.Empty(t, n.session().hello.Running)
	require.Empty(t, n.left(disk), "nothing of the cluster stays")
	left, err := filepath.Glob(filepath.Join(n.dir, "attempts", "s-*"))
	require.NoError(t, err)
	require.Empty(t, left)

	n.assign(place{"j-2", coreRole})
	for b := range n.w.blocks.store.Blocks() {
		t.Errorf("block %v is still there", b)
	}
	n.lease(mapLease(2))
	require.Nil(t, n.report("s-J-m-00002-1-3").Result.Failure)
	n.end()
	n.run(func(c *Config) { c.Token, c.Join, c.DataDirs = "", nil, []string{disk} })
	require.Equal(t, place{"j-2", coreRole}, place{n.session().hello.Cluster, n.session().hello.Role}, "after a restart it is where it was")
	require.Len(t, n.session().hello.Segments, 1)
}

// A node that was away while its place changed learns it from the welcome.
func TestAWelcomeToAnotherPlace(t *testing.T) {
	m := newMaster(t)
	n := m.worker("free", poolRole)
	n.assign(place{"j-1", coreRole})
	n.stores(7)
	n.end()
	m.mu.Lock()
	m.places[n.id] = place{"j-2", "TASK"}
	m.mu.Unlock()
	n.run()
	require.Equal(t, place{"j-2", "TASK"}, place{n.session().hello.Cluster, n.session().hello.Role})
	require.Empty(t, n.left())
}

// A wipe that was cut short goes on at the next start, before anything is served.
func TestAWipeThatWasCutShort(t *testing.T) {
	m := newMaster(t)
	n := m.worker("free", poolRole)
	n.assign(place{"j-1", coreRole})
	n.lease(mapLease(0))
	n.report("s-J-m-00000-1-1")
	n.ack("s-J-m-00000-1-1", true)
	n.stores(7)
	n.end()
	require.NotEmpty(t, n.left())

	path := filepath.Join(n.dir, "node.json")
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	var f nodeFile
	require.NoError(t, json.Unmarshal(data, &f))
	f.Wipe, f.Cluster, f.Role = f.Cluster, "", poolRole
	data, err = json.Marshal(f)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, data, 0o600))
	m.mu.Lock()
	m.places[n.id] = place{"", poolRole}
	m.mu.Unlock()
	// A bootstrap action of the cluster was cut short, and has left something running.
	left := exec.Command("/bin/sleep", "1000")
	left.Env = []string{"MILLRACE_BOOTSTRAP_RUN=the-action"}
	require.NoError(t, left.Start())
	require.NoError(t, os.MkdirAll(filepath.Join(n.dir, "bootstrap"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(n.dir, "bootstrap", "running"), []byte("the-action"), 0o600))
	ended := make(chan error, 1)
	go func() { ended <- left.Wait() }()
	n.run()
	require.Empty(t, n.session().hello.Segments)
	require.Empty(t, n.left())
	require.Empty(t, n.w.id.Wipe)
	require.ErrorContains(t, <-ended, "killed")
}

// What cannot be deleted keeps the node out of the site, and not the other way round.
func TestAWipeIsRepeatedUntilItWorks(t *testing.T) {
	m := newMaster(t)
	disk := filepath.Join(t.TempDir(), "disk")
	n := m.worker("free", poolRole, func(c *Config) { c.DataDirs = []string{disk} })
	n.assign(place{"j-1", coreRole})
	n.stores(7)
	n.end()
	store, err := blockstore.Open(blockstore.Config{Dirs: []string{disk}, Cluster: "j-1"}) // somebody holds the folder
	require.NoError(t, err)
	m.mu.Lock()
	m.places[n.id] = place{"", poolRole}
	before := m.sessions[n.id]
	m.mu.Unlock()
	w, err := New(Config{Dir: n.dir, Slots: 1, MemoryBytes: 1 << 30, DataDirs: []string{disk}})
	require.NoError(t, err)
	require.NoError(t, w.loadForTest())
	require.ErrorContains(t, w.wipeOnce(), "in use")
	require.NoError(t, w.dir.Close())
	require.NoError(t, store.Close())
	n.run(func(c *Config) { c.DataDirs = []string{disk} })
	require.NotEqual(t, before, n.session())
	require.Empty(t, n.left(disk))
}

// loadForTest reads who the node is, with a wipe before it.
func (w *Worker) loadForTest() (err error) {
	if w.dir, err = openDirectory(w.cfg.Dir, ""); err != nil {
		return err
	}
	w.id, err = w.identify(context.Background())
	if err == nil {
		err = w.changeFile(func(f *nodeFile) { f.Wipe, f.Cluster, f.Role = f.Cluster, "", poolRole })
	}
	return err
}

// Nothing of an earlier place is served in a later one: requests that are under way are ended first.
func TestRequestsEndBeforeTheWipe(t *testing.T) {
	m := newMaster(t)
	n := m.worker("free", poolRole)
	n.assign(place{"j-1", coreRole})
	gate := filepath.Join(t.TempDir(), "gate")
	n.lease(mapLease(0, "say=begin\n", "wait="+gate))
	n.await("it runs", progressOf("s-J-m-00000-1-1"))
	resp, err := m.tlsClient(security.RoleMaster, masterID, security.NodeName(n.id)).Get(n.address() + "/v1/logs/s-J/s-J-m-00000-1-1?follow=1")
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	n.assign(place{"", poolRole})
	require.Empty(t, n.left())
	_, err = resp.Body.Read(make([]byte, 100))
	for err == nil {
		_, err = resp.Body.Read(make([]byte, 100))
	}
	require.Error(t, err)
}

func TestATaskNodeTakesNoDataDirs(t *testing.T) {
	w := &Worker{cfg: Config{DataDirs: []string{"/x"}}, id: &identity{nodeFile: nodeFile{Role: "TASK"}}}
	_, err := w.openBlocks()
	require.ErrorContains(t, err, "it stores no blocks")
	w.id.Pooled = true
	b, err := w.openBlocks()
	require.NoError(t, err)
	require.Nil(t, b)
	require.True(t, strings.HasPrefix(place{"", poolRole}.String(), "POOL"))
}
