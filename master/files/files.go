// Package files is the leader's side of the clusters' block stores: it puts what clients ask for into the log, where
// each cluster's name space is, hears from the core nodes what they have, and sends them what the clusters' block
// managers order. It decides neither what a name space allows (hdfs/namespace) nor where replicas go (hdfs/blockmanager).
package files

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"millrace/hdfs"
	"millrace/hdfs/blockmanager"
	"millrace/hdfs/client"
	"millrace/hdfs/namespace"
	"millrace/master/state"
	"millrace/pkg/api"
)

const (
	tickEvery  = time.Second
	moreEvery  = 250 * time.Millisecond // copies that nodes have become free for
	trashEvery = time.Minute
	// Entries of the log are to be small, whatever there is to say: so many leases, and ids, one holds.
	leasesPerEntry, idsPerEntry = 300, 10_000
	// DefaultTrashAge is how long what was removed stays in the trash.
	DefaultTrashAge = 24 * time.Hour
)

// ErrTooSoon says that a command cannot be logged yet; asking again soon does not help.
var ErrTooSoon = errors.New("files cannot be kept yet")

// Config sets up Files. Zero values mean defaults.
type Config struct {
	Term uint64
	View func() *state.View
	// Apply logs a command and returns what it gave. Errors of package hdfs are answers, and so is ErrTooSoon; any other one may be
	// gone when another leader is asked.
	Apply func(context.Context, state.Command) (any, error)
	// Send queues a message for a worker; false if it is not connected.
	Send     func(node string, m *api.MasterMessage) bool
	Now      func() time.Time
	TrashAge time.Duration       // 0 = DefaultTrashAge
	Manager  blockmanager.Config // limits and durations alone
	Log      *zap.Logger
}

// Files is one leader's, for one term.
type Files struct {
	cfg Config
	log *zap.Logger

	mu       sync.Mutex
	managers map[string]*blockmanager.Manager // by cluster
	homes    map[string]home                  // by node, of the core nodes that managers wait for or have
}

// home is the cluster whose manager has a node, and whether it is up.
type home struct {
	cluster string
	up      bool
}

// New begins a term; Run does the work that nobody asks for.
func New(c Config) *Files {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.TrashAge == 0 {
		c.TrashAge = DefaultTrashAge
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	f := &Files{cfg: c, log: c.Log.Named("files"), managers: map[string]*blockmanager.Manager{}, homes: map[string]home{}}
	for _, cluster := range c.View().LiveClusters() {
		f.manager(cluster.ID)
	}
	return f
}

// manager gives a cluster's block manager.
func (f *Files) manager(cluster string) *blockmanager.Manager {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m := f.managers[cluster]; m != nil {
		return m
	}
	c := f.cfg.Manager
	c.Names, c.Now, c.Log = manned{f.cfg.View, cluster}, f.cfg.Now, f.log
	for _, n := range f.cfg.View().Nodes(cluster) {
		if n.Role == state.RoleCore && n.State != state.NodeTerminated {
			c.Expected = append(c.Expected, n.ID)
			if f.homes[n.ID].cluster != cluster {
				f.leave(n.ID)
				f.homes[n.ID] = home{cluster: cluster}
			}
		}
	}
	m := blockmanager.New(c)
	for _, n := range f.cfg.View().Nodes(cluster) {
		if n.Draining() {
			m.Drain(n.ID, true)
		}
	}
	f.managers[cluster] = m
	return m
}

func (f *Files) all() map[string]*blockmanager.Manager {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make(map[string]*blockmanager.Manager, len(f.managers))
	for cluster, m := range f.managers {
		out[cluster] = m
	}
	return out
}

// Run ends leases, empties the trash and has blocks copied and deleted, until ctx ends.
func (f *Files) Run(ctx context.Context) {
	var trash sync.WaitGroup
	defer trash.Wait()
	trash.Go(func() { f.sweepTrash(ctx) }) // of its own: what waits there may take thousands of entries
	tick, more := time.NewTicker(tickEvery), time.NewTicker(moreEvery)
	defer tick.Stop()
	defer more.Stop()
	for {
		select {
		case <-tick.C:
			f.forgetNodes()
			f.forgetClusters()
			f.noteDisks(ctx)
			for cluster, m := range f.all() {
				f.sendAll(m.Tick())
				f.expireLeases(ctx, cluster, m)
			}
		case <-more.C:
			for _, m := range f.all() {
				f.sendAll(m.MoreCopies())
			}
		case <-ctx.Done():
			return
		}
	}
}

func (f *Files) sendAll(orders map[string]*blockmanager.Orders) {
	for node, o := range orders {
		f.send(node, o)
	}
}

func (f *Files) expireLeases(ctx context.Context, cluster string, m *blockmanager.Manager) {
	for over := range slices.Chunk(m.ExpiredLeases(), leasesPerEntry) {
		result, err := f.cfg.Apply(ctx, namespace.ExpireLeases{Cluster: cluster, Leases: over})
		if err != nil {
			f.log.Warn("leases that are over could not be ended", zap.Error(err))
			return
		}
		if files, ok := result.([]hdfs.FileID); ok && len(files) > 0 {
			f.log.Info("unfinished files deleted: their writers are gone", zap.String("cluster", cluster), zap.Int("files", len(files)))
		}
	}
}

// forgetNodes drops what is known of nodes that have left their clusters: for good, or for the pool.
func (f *Files) forgetNodes() {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.cfg.View()
	for node, h := range f.homes {
		if n, ok := v.Node(node); !ok || n.State == state.NodeTerminated || n.Role != state.RoleCore || n.Cluster != h.cluster {
			f.leave(node)
		}
	}
}

// leave has the manager that has a node forget it. mu is held, so that it is not told of what came before after what came then.
func (f *Files) leave(node string) {
	if h, ok := f.homes[node]; ok {
		delete(f.homes, node)
		if m := f.managers[h.cluster]; m != nil {
			m.NodeGone(node)
		}
	}
}

// forgetClusters drops the managers of clusters that have ended: nothing is named in them any more, and they have no nodes.
func (f *Files) forgetClusters() {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.cfg.View()
	for cluster := range f.managers {
		if c, ok := v.Cluster(cluster); !ok || c.Ended() {
			delete(f.managers, cluster)
		}
	}
}

// send gives a node its orders; those that do not arrive are given again.
func (f *Files) send(node string, o *blockmanager.Orders) {
	m := &api.BlockOrders{Term: f.cfg.Term}
	for _, b := range o.Delete {
		m.Deletes = append(m.Deletes, client.BlockMessage(b))
	}
	for _, b := range o.Verify {
		m.Verifies = append(m.Verifies, client.BlockMessage(b))
	}
	for _, c := range o.Copy {
		m.Copies = append(m.Copies, &api.CopyBlock{Block: client.BlockMessage(c.Block), Targets: client.NodeMessages([]hdfs.Node{c.To}), BytesPerSecond: c.Rate})
	}
	f.cfg.Send(node, &api.MasterMessage{Message: &api.MasterMessage_BlockOrders{BlockOrders: m}})
}

// apply logs a command; what another leader may mend is hdfs.ErrUnavailable.
func (f *Files) apply(ctx context.Context, c namespace.Command) (any, error) {
	result, err := f.cfg.Apply(ctx, c)
	switch {
	case err == nil || hdfs.Kind(err) != "" || ctx.Err() != nil || errors.Is(err, state.ErrNotFound) || errors.Is(err, ErrTooSoon):
		return result, err
	}
	return nil, fmt.Errorf("%w: %w", hdfs.ErrUnavailable, err)
}

// manned is a name space as its block manager sees it.
type manned struct {
	view    func() *state.View
	cluster string
}

func (m manned) tree() *namespace.Tree { return m.view().Files(m.cluster) }
