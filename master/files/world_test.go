package files

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
	"millrace/hdfs/client"
	"millrace/master/state"
	"millrace/pkg/api"
)

const (
	cluster = "j-1"
	chunk   = int64(hdfs.ChunkSize)
)

// world is a log with one site, whose leader and core nodes are the test. It lives in a bubble of synctest.
type world struct {
	*testing.T
	*Files
	store *state.Store

	mu      sync.Mutex
	index   uint64
	entries []state.Command
	refuse  error                         // that the log answers with
	sent    map[string][]*api.BlockOrders // by node
	away    map[string]bool               // nodes that cannot be sent to
}

// newWorld has core nodes i-1, i-2 … that are up and empty, if up.
func newWorld(t *testing.T, nodes ...string) *world {
	w := &world{T: t, store: state.New(), sent: map[string][]*api.BlockOrders{}, away: map[string]bool{}}
	w.do(state.CreateSite{Site: state.Site{ID: "site"}, Cluster: state.Cluster{ID: cluster, Name: "default", Groups: []state.Group{
		{ID: "ig-core", Role: state.RoleCore, Target: 1}, {ID: "ig-task", Role: state.RoleTask, Target: 1}}}})
	for _, role := range []string{state.RoleCore, state.RoleTask} {
		w.do(state.CreateToken{Token: state.Token{ID: role, SecretHash: []byte{1}, Role: role, Cluster: cluster, ExpiresAt: time.Now().Add(1000 * time.Hour), UsesLeft: -1}})
	}
	for _, n := range nodes {
		w.admit(n, state.RoleCore)
	}
	w.lead(1)
	for _, n := range nodes {
		w.up(n)
	}
	return w
}

func (w *world) admit(node, role string) {
	w.do(state.AdmitNode{Token: role, Now: time.Now(), Node: state.Node{ID: node, Name: node, Cluster: cluster, Role: role}})
}

// lead has a leader begin a term.
func (w *world) lead(term uint64) {
	w.Files = New(Config{Term: term, View: w.store.View, Apply: w.apply, Send: w.send})
}

// run lets the leader work for a while.
func (w *world) run(d time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { w.Files.Run(ctx) })
	time.Sleep(d)
	cancel()
	work.Wait()
}

func (w *world) apply(_ context.Context, c state.Command) (any, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse != nil {
		return nil, w.refuse
	}
	w.entries = append(w.entries, c)
	w.index++
	return w.store.Apply(w.index, c)
}

func (w *world) do(c state.Command) any {
	w.Helper()
	result, err := w.apply(context.Background(), c)
	require.NoError(w, err)
	return result
}

func (w *world) send(node string, m *api.MasterMessage) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.away[node] {
		return false
	}
	w.sent[node] = append(w.sent[node], m.GetBlockOrders())
	return true
}

// up opens a node's session and reports what it has.
func (w *world) up(node string, has ...hdfs.Block) {
	w.Up(node, &api.WorkerHello{Address: "https://" + node, Rack: "r", Protocol: storesSince})
	w.tell(node, &api.BlockReport{Disks: []*api.DataDisk{{Dir: "/d", CapacityBytes: 1 << 40, FreeBytes: 1 << 40}}})
	w.tell(node, &api.BlockReport{Full: true, Last: true, Stored: stored(has...)})
}

func (w *world) tell(node string, r *api.BlockReport) {
	w.Message(node, &api.WorkerMessage{Message: &api.WorkerMessage_Blocks{Blocks: r}})
}

func (w *world) names() client.Names { return w.Names(cluster, "", "") }

// begin creates a file of one-chunk blocks.
func (w *world) begin(path, lease string, replication int) hdfs.FileID {
	w.Helper()
	id, err := w.names().Create(w.Context(), hdfs.Create{Path: path, Lease: lease, Replication: replication, BlockSize: chunk})
	require.NoError(w, err)
	return id
}

// write makes a whole file of one block, which its pipeline's nodes report.
func (w *world) write(path string, replication int) hdfs.Located {
	w.Helper()
	ctx := w.Context()
	id := w.begin(path, "writer of "+path, replication)
	at, err := w.names().AddBlock(ctx, id, "writer of "+path, nil, nil)
	require.NoError(w, err)
	at.Size = 10
	for _, n := range at.Nodes {
		w.tell(n.ID, &api.BlockReport{Stored: stored(at.Block)})
	}
	_, err = w.names().Complete(ctx, id, "writer of "+path, &at.Block)
	require.NoError(w, err)
	return at
}

// all lists all files by their paths, without those in the trash.
func (w *world) all() (paths []string) {
	infos, err := w.store.View().Files(cluster).Walk("/")
	require.NoError(w, err)
	for i := range infos {
		if !i.Directory && !inTrash(i.Path) {
			paths = append(paths, i.Path)
		}
	}
	return paths
}

// orders is what a node has been sent, all of it in one.
func (w *world) orders(node string) *api.BlockOrders {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := &api.BlockOrders{}
	for _, o := range w.sent[node] {
		all.Term = o.Term
		all.Copies = append(all.Copies, o.Copies...)
		all.Deletes = append(all.Deletes, o.Deletes...)
		all.Verifies = append(all.Verifies, o.Verifies...)
	}
	return all
}

func ids(nodes []hdfs.Node) (out []string) {
	for _, n := range nodes {
		out = append(out, n.ID)
	}
	return out
}

func blocksOf(list []*api.StoredBlock) (out []hdfs.Block) {
	for _, b := range list {
		out = append(out, client.BlockOf(b))
	}
	return out
}

// count counts the entries of a kind.
func (w *world) count(name string) (n int) {
	for _, c := range w.entries {
		if c.CommandName() == name {
			n++
		}
	}
	return n
}

func stored(blocks ...hdfs.Block) (out []*api.StoredBlock) {
	for _, b := range blocks {
		out = append(out, client.BlockMessage(b))
	}
	return out
}
