package files

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"millrace/hdfs"
	"millrace/hdfs/blockmanager"
	"millrace/hdfs/client"
	"millrace/hdfs/namespace"
	"millrace/master/state"
)

// Names is the name space of a cluster, for calls made from a node ("" = from none): replicas near it come first. Whoever finds a file
// being written by that node, or else by this user, is told so.
func (f *Files) Names(cluster, node, user string) client.Names { return &names{f, cluster, node, user} }

type names struct {
	*Files
	cluster, node, user string
}

// caller is who calls, for people.
func (n *names) caller() string {
	switch {
	case n.node != "":
		return "node " + n.nameOf(n.node)
	case n.user != "":
		return "user " + n.user
	}
	return "the cluster"
}

func (n *names) tree() *namespace.Tree { return n.cfg.View().Files(n.cluster) }

func (n *names) Stat(_ context.Context, path string) (hdfs.Info, error) { return n.tree().Stat(path) }

func (n *names) List(_ context.Context, path, after string, limit int) ([]hdfs.Info, error) {
	return n.tree().List(path, after, limit)
}

func (n *names) Usage(_ context.Context, path string) (hdfs.Usage, error) {
	return n.tree().Usage(path)
}

func (n *names) Locate(_ context.Context, path string, id hdfs.FileID, offset, length int64) (hdfs.Info, []hdfs.Located, error) {
	tree := n.tree()
	if id == 0 {
		info, err := tree.Stat(path)
		if err != nil {
			return hdfs.Info{}, nil, err
		}
		id = info.ID
	}
	if length < 0 {
		length = math.MaxInt64 - max(offset, 0)
	}
	info, blocks, err := tree.Locate(id, offset, length)
	if err != nil {
		return hdfs.Info{}, nil, err
	}
	m := n.manager(n.cluster)
	for i := range blocks {
		b := &blocks[i]
		b.Nodes, b.Settled = m.Locate(b.ID, n.node, ""), true
		for _, id := range m.Away(b.ID, n.coreNodes) {
			b.Away = append(b.Away, n.nameOf(id))
		}
	}
	return info, blocks, nil
}

// coreNodes goes through the cluster's core nodes, whether up or not.
func (n *names) coreNodes(yield func(id string) bool) {
	for _, of := range n.cfg.View().Nodes(n.cluster) {
		if of.Role == state.RoleCore && of.State != state.NodeTerminated && !yield(of.ID) {
			return
		}
	}
}

// awaitsCore says whether the cluster has core nodes, up or not, or is to get some.
func (n *names) awaitsCore() bool {
	for range n.coreNodes {
		return true
	}
	c, ok := n.cfg.View().Cluster(n.cluster)
	return ok && slices.ContainsFunc(c.Groups, func(g state.Group) bool { return g.Role == state.RoleCore && g.Target > 0 })
}

func (n *names) clusterName() string {
	if c, ok := n.cfg.View().Cluster(n.cluster); ok {
		return c.Name
	}
	return n.cluster
}

// nameOf is what people call a node.
func (f *Files) nameOf(id string) string {
	if n, ok := f.cfg.View().Node(id); ok {
		return cmp.Or(n.Name, id)
	}
	return id
}

func (n *names) Create(ctx context.Context, c hdfs.Create) (hdfs.FileID, error) {
	id, err := result[hdfs.FileID](n.apply(ctx, namespace.CreateFile{Cluster: n.cluster, Path: c.Path, Lease: c.Lease,
		Replication: c.Replication, BlockSize: c.BlockSize, Overwrite: c.Overwrite, Group: c.Group, Task: c.Task}))
	if err == nil && c.Group == "" {
		n.manager(n.cluster).Renew(n.caller(), []string{c.Lease})
	}
	if errors.Is(err, hdfs.ErrBusy) {
		err = n.busy(c.Path, err)
	}
	return id, err
}

// busy says of a path that has a writer who that is, and how long it may keep it.
func (n *names) busy(path string, err error) error {
	clean, bad := hdfs.CleanPath(path)
	lease, ok := n.tree().Writer(clean)
	if bad != nil || !ok { // it has ended just now
		return err
	}
	w := n.manager(n.cluster).Writer(lease)
	who := fmt.Sprintf("%s, last heard of %s ago", w.Who, w.Heard.Round(time.Second))
	if w.Who == "" {
		who = fmt.Sprintf("not heard of since there is a new leader, for %s", w.Heard.Round(time.Second))
	}
	return &hdfs.PathError{Op: "create", Path: clean, Err: fmt.Errorf("%w (%s): free again in %s, if it is not heard of until then", hdfs.ErrBusy, who, w.Left.Round(time.Second)+time.Second)}
}

func (n *names) AddBlock(ctx context.Context, id hdfs.FileID, lease string, prev *hdfs.Block, avoid []string) (hdfs.Located, error) {
	at, err := result[hdfs.Located](n.apply(ctx, namespace.AddBlock{Cluster: n.cluster, File: id, Lease: lease, Prev: prev}))
	if err != nil {
		return hdfs.Located{}, err
	}
	m := n.manager(n.cluster)
	if prev != nil {
		m.BlockFinal(prev.ID)
	}
	file, ok := n.tree().Hidden(id)
	if !ok { // ended just now
		return hdfs.Located{}, fmt.Errorf("block %s: %w", at.ID, hdfs.ErrLease)
	}
	want := blockmanager.Write{Block: at.ID, Size: file.BlockSize, Count: file.Replication, Writer: n.node, Avoid: avoid}
	at.Nodes, err = m.Targets(want)
	if errors.Is(err, hdfs.ErrNoNodes) && len(avoid) > 0 { // where there is no other it may be well again
		want.Avoid = nil
		at.Nodes, err = m.Targets(want)
	}
	if errors.Is(err, hdfs.ErrNoNodes) && !n.awaitsCore() {
		err = fmt.Errorf("%w in cluster %s, and only those keep files", hdfs.ErrNoCore, n.clusterName())
	}
	if errors.Is(err, hdfs.ErrNoNodes) && !m.Status().Complete {
		err = fmt.Errorf("%w: not all core nodes have come to this leader yet: %s", hdfs.ErrUnavailable, err)
	}
	if err != nil {
		return hdfs.Located{}, err
	}
	return at, nil
}

func (n *names) Restamp(ctx context.Context, id hdfs.FileID, lease string, block hdfs.Block, nodes []string) (hdfs.Located, error) {
	at, err := result[hdfs.Located](n.apply(ctx, namespace.Restamp{Cluster: n.cluster, File: id, Lease: lease, Block: block}))
	if err != nil {
		return hdfs.Located{}, err
	}
	if at.Nodes = n.manager(n.cluster).Pipeline(at.ID, nodes); len(at.Nodes) == 0 { // a new leader, perhaps: they are about to come
		return hdfs.Located{}, fmt.Errorf("block %s: %w: none of %s is up", at.ID, hdfs.ErrNoNodes, strings.Join(nodes, ", "))
	}
	return at, nil
}

func (n *names) Complete(ctx context.Context, id hdfs.FileID, lease string, last *hdfs.Block) (hdfs.Info, error) {
	info, err := result[hdfs.Info](n.apply(ctx, namespace.CompleteFile{Cluster: n.cluster, File: id, Lease: lease, Last: last, At: n.cfg.Now().UTC()}))
	if err == nil && last != nil {
		n.manager(n.cluster).BlockFinal(last.ID)
	}
	return info, err
}

func (n *names) Abandon(ctx context.Context, id hdfs.FileID, lease string) error {
	_, err := n.apply(ctx, namespace.AbandonFile{Cluster: n.cluster, File: id, Lease: lease})
	return err
}

func (n *names) Renew(_ context.Context, leases []string) ([]string, error) {
	return n.manager(n.cluster).Renew(n.caller(), leases), nil
}

func (n *names) Mkdir(ctx context.Context, path string) error {
	_, err := n.apply(ctx, namespace.Mkdir{Cluster: n.cluster, Path: path, At: n.cfg.Now().UTC()})
	return err
}

func (n *names) Rename(ctx context.Context, from, to string) error {
	_, err := n.apply(ctx, namespace.Rename{Cluster: n.cluster, From: from, To: to, At: n.cfg.Now().UTC(), Request: rand.Text()})
	return err
}

func (n *names) Remove(ctx context.Context, path string, recursive, skipTrash bool) error {
	_, err := n.Discard(ctx, n.cluster, path, recursive, skipTrash)
	return err
}

func (n *names) RemoveIf(ctx context.Context, path string, id hdfs.FileID) error {
	c := namespace.Remove{Cluster: n.cluster, Path: path, File: id, Request: rand.Text()}
	_, err := n.apply(ctx, c)
	if !errors.Is(err, ErrTooSoon) {
		return err
	}
	// Not all masters read the condition yet: it is seen to here, a moment before.
	info, err := n.tree().Stat(path)
	if err == nil && info.ID != id {
		err = &hdfs.PathError{Op: "remove", Path: path, Err: hdfs.ErrChanged}
	}
	if err != nil {
		return err
	}
	c.File = 0
	_, err = n.apply(ctx, c)
	return err
}

func (n *names) SetReplication(ctx context.Context, path string, wanted int) error {
	_, err := n.apply(ctx, namespace.SetReplication{Cluster: n.cluster, Path: path, Replication: wanted})
	if err != nil {
		return err
	}
	if info, err := n.tree().Stat(path); err == nil {
		n.manager(n.cluster).ReplicationChanged(n.tree().FileBlocks(info.ID))
	}
	return nil
}

func (n *names) BadReplica(_ context.Context, block hdfs.Block, node, reason string) error {
	n.manager(n.cluster).Accused(block, node, reason) // it may be the reader's own fault: the node looks
	return nil
}

func (n *names) Publish(ctx context.Context, group, prefix string, count int, replace bool, at time.Time) error {
	_, err := n.apply(ctx, namespace.Publish{Cluster: n.cluster, Group: group, Prefix: prefix, Count: count, Replace: replace, At: at})
	return err
}

func (n *names) Uploads(_ context.Context, group string) ([]hdfs.Upload, error) {
	return n.tree().Uploads(group), nil
}

func (n *names) AbortUploads(ctx context.Context, group string, ids []hdfs.FileID) error {
	if len(ids) == 0 { // all of them
		_, err := n.apply(ctx, namespace.AbortUploads{Cluster: n.cluster, Group: group})
		return err
	}
	for some := range slices.Chunk(ids, idsPerEntry) {
		if _, err := n.apply(ctx, namespace.AbortUploads{Cluster: n.cluster, Group: group, Files: some}); err != nil {
			return err
		}
	}
	return nil
}

// result is what a command gave, as what it is.
func result[T any](v any, err error) (T, error) {
	t, ok := v.(T)
	if err == nil && !ok {
		return t, fmt.Errorf("the log answered with %T", v)
	}
	return t, err
}

// As the block manager sees the name space.

func (m manned) Block(id hdfs.BlockID) (blockmanager.Block, bool) {
	b, ok := m.tree().Block(id)
	return managed(b), ok
}

func managed(b namespace.Block) blockmanager.Block {
	return blockmanager.Block{Block: b.Block, File: b.File, Wanted: b.Replication, Final: b.Final}
}

func (m manned) Blocks(from hdfs.BlockID) iter.Seq[blockmanager.Block] {
	return func(yield func(blockmanager.Block) bool) {
		for b := range m.tree().Blocks(max(from, 1) - 1) {
			if !yield(managed(b)) {
				return
			}
		}
	}
}

func (m manned) HasLease(lease string) bool { return m.tree().HasLease(lease) }
func (m manned) Leases() iter.Seq[string]   { return m.tree().Leases() }
