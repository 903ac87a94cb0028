package worker

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"millrace/hdfs"
	"millrace/hdfs/blockstore"
	hdfsclient "millrace/hdfs/client"
	"millrace/hdfs/wire"
	"millrace/pkg/api"
	"millrace/pkg/security"
)

// stored puts a final replica into a node's block store.
func (n *fakeNode) stored(id hdfs.BlockID, data string) hdfs.Block {
	n.m.t.Helper()
	w, err := n.w.blocks.store.Create(hdfs.Block{ID: id, Stamp: 1, Size: int64(len(data))})
	require.NoError(n.m.t, err)
	require.NoError(n.m.t, w.Write([]byte(data), blockstore.Sums([]byte(data))))
	b, err := w.Finalize()
	require.NoError(n.m.t, err)
	return b
}

func (n *fakeNode) order(o *api.BlockOrders) {
	n.send(&api.MasterMessage{Message: &api.MasterMessage_BlockOrders{BlockOrders: o}})
}

func message(b hdfs.Block) []*api.StoredBlock { return []*api.StoredBlock{hdfsclient.BlockMessage(b)} }

// lists tells whether a message names a block in a list of its report.
func lists(b hdfs.Block, of func(*api.BlockReport) []*api.StoredBlock) func(*api.WorkerMessage) bool {
	return func(g *api.WorkerMessage) bool {
		return slices.ContainsFunc(of(g.GetBlocks()), func(s *api.StoredBlock) bool { return hdfsclient.BlockOf(s).ID == b.ID })
	}
}

func whole(g *api.WorkerMessage) bool { return g.GetBlocks().GetFull() && g.GetBlocks().GetLast() }

func TestACoreNodeReportsItsBlocksAtTheStartOfASession(t *testing.T) {
	m := newMaster(t)
	n := m.worker("core", "CORE")
	n.await("an empty report", whole)
	n.await("the disks", func(g *api.WorkerMessage) bool {
		d := g.GetBlocks().GetDisks()
		return len(d) == 1 && d[0].Dir == filepath.Join(n.dir, "blocks") && d[0].CapacityBytes > 0 && d[0].Problem == ""
	})
	b := n.stored(1, "some bytes")
	n.end()
	n.run()
	n.await("a report with the block", func(g *api.WorkerMessage) bool {
		return g.GetBlocks().GetFull() && lists(b, (*api.BlockReport).GetStored)(g)
	})
	first := n.session()
	first.cancel()
	n.newSession(first)
	n.await("the report of the next session", lists(b, (*api.BlockReport).GetStored))
}

func TestACoreNodeObeysTheLeader(t *testing.T) {
	m := newMaster(t)
	n, other := m.worker("core", "CORE"), m.worker("other", "CORE")
	for _, node := range []*fakeNode{n, other} {
		node.await("a report", whole)
	}
	kept, hurt, copied := n.stored(1, "kept"), n.stored(2, "hurt"), n.stored(3, "copied")

	// Orders of a leader of before are not carried out.
	n.order(&api.BlockOrders{Term: 0, Deletes: message(kept)})
	n.order(&api.BlockOrders{Term: 1, Verifies: message(kept)})
	n.await("a verified block", lists(kept, (*api.BlockReport).GetVerified))
	_, err := n.w.blocks.store.Open(kept.ID, kept.Stamp)
	require.NoError(t, err)

	r, err := n.w.blocks.store.Open(hurt.ID, hurt.Stamp)
	require.NoError(t, err)
	data, _ := r.Files()
	require.NoError(t, r.Close())
	require.NoError(t, os.WriteFile(data, []byte("HURT"), 0o600))
	n.order(&api.BlockOrders{Term: 1, Verifies: message(hurt)})
	n.await("a bad block", func(g *api.WorkerMessage) bool {
		bad := g.GetBlocks().GetBad()
		return len(bad) == 1 && hdfsclient.BlockOf(bad[0].Block) == hurt && bad[0].Reason != ""
	})

	to := []*api.DataNode{{Node: other.id, Address: other.address()}}
	n.order(&api.BlockOrders{Term: 1, Copies: []*api.CopyBlock{{Block: message(copied)[0], Targets: to, BytesPerSecond: 1 << 30}}})
	other.await("the copy", lists(copied, (*api.BlockReport).GetStored))
	n.order(&api.BlockOrders{Term: 1, Copies: []*api.CopyBlock{{Block: message(copied)[0], Targets: to}}})
	n.await("that the other has it", func(g *api.WorkerMessage) bool {
		failed := g.GetBlocks().GetFailed()
		return len(failed) == 1 && failed[0].Target == other.id && hdfsclient.BlockOf(failed[0].Block) == copied && failed[0].Reason != ""
	})

	n.order(&api.BlockOrders{Term: 1, Deletes: message(kept)})
	n.await("that it is gone", lists(kept, (*api.BlockReport).GetGone))
	_, err = n.w.blocks.store.Open(kept.ID, kept.Stamp)
	require.ErrorIs(t, err, hdfs.ErrNoBlock)
}

func TestANodesOwnReplicasAreReadWithoutASocket(t *testing.T) {
	m := newMaster(t)
	core, task := m.worker("core", "CORE"), m.worker("task", "TASK")
	b := core.stored(1, "near")
	r, here, err := near{core.w}.LocalReplica(core.id, b)
	require.NoError(t, err)
	require.True(t, here)
	require.EqualValues(t, 4, r.Size())
	require.NoError(t, r.Close())

	_, here, err = near{core.w}.LocalReplica(core.id, hdfs.Block{ID: 9, Stamp: 1})
	require.True(t, here, "another node need not be asked in its place")
	require.ErrorIs(t, err, hdfs.ErrNoBlock)
	_, here, err = near{core.w}.LocalReplica(task.id, b)
	require.NoError(t, err)
	require.False(t, here)
	_, here, err = near{task.w}.LocalReplica(task.id, b)
	require.NoError(t, err)
	require.False(t, here, "it stores none")
}

// Users read and write blocks themselves; segments are the nodes' own business.
func TestWhoMayAskForBlocks(t *testing.T) {
	m := newMaster(t)
	core, task := m.worker("core", "CORE"), m.worker("task", "TASK")
	b := core.stored(1, "for users")
	read := wire.Read{Block: b.ID, Stamp: b.Stamp, Length: b.Size}
	for _, c := range []struct {
		role     security.Role
		block    int
		segments int
	}{
		{security.RoleUser, http.StatusOK, http.StatusForbidden},
		{security.RoleWorker, http.StatusOK, http.StatusNotFound},
		{security.RoleMaster, http.StatusOK, http.StatusForbidden},
	} {
		client := m.tlsClient(c.role, someone[c.role], security.NodeName(core.id))
		for url, want := range map[string]int{
			read.URL(core.address()):                            c.block,
			core.address() + "/v1/shuffle/s-J/0":                c.segments,
			core.address() + "/v1/segments/s-J/s-J-m-00000-1-1": c.segments,
		} {
			resp, err := client.Get(url)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			if want == http.StatusNotFound && resp.StatusCode == http.StatusMethodNotAllowed {
				continue // let through, and asked in the wrong way
			}
			require.Equal(t, want, resp.StatusCode, "%s: %s", c.role, url)
		}
	}
	resp, err := m.tlsClient(security.RoleUser, someone[security.RoleUser], security.NodeName(task.id)).Get(read.URL(task.address()))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusNotFound, resp.StatusCode, "a task node stores none")
}

func TestWhereANodeKeepsBlocks(t *testing.T) {
	m := newMaster(t)
	dirs := []string{filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")}
	n := m.worker("core", "CORE", func(c *Config) { c.DataDirs, c.BlockReserve = dirs, 1<<20 })
	n.await("both disks", func(g *api.WorkerMessage) bool { return len(g.GetBlocks().GetDisks()) == 2 })
	n.stored(1, "x")
	require.NoDirExists(t, filepath.Join(n.dir, "blocks"))

	task := m.worker("task", "TASK")
	task.w.cfg.DataDirs = dirs
	_, err := task.w.openBlocks()
	require.ErrorContains(t, err, "--data-dir is for core nodes")
}

// A disk that will never take a block says so in the log. What is kept free follows from the disk, also before the folder on it is made.
func TestDisksThatAreTooSmallForTheReserve(t *testing.T) {
	m := newMaster(t)
	logs, seen := observer.New(zap.WarnLevel)
	n := m.worker("core", "CORE", func(c *Config) { c.BlockReserve, c.Log = 1<<60, zap.New(logs) })
	n.await("the disk", func(g *api.WorkerMessage) bool {
		d := g.GetBlocks().GetDisks()
		return len(d) == 1 && d[0].ReserveBytes == 1<<60 && d[0].FreeBytes == 0 && d[0].Problem == ""
	})
	warned := seen.FilterMessageSnippet("never takes a block: name less with --data-reserve").All()
	require.Len(t, warned, 1)
	require.Equal(t, filepath.Join(n.dir, "blocks"), warned[0].ContextMap()["dir"])

	n.w.cfg.BlockReserve = 0
	require.Equal(t, n.w.blockReserve([]string{"/dev"}), n.w.blockReserve([]string{"/dev/none/such"})) // most often a small file system of its own
}
