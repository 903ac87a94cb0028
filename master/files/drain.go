package files

import (
	"fmt"

	"millrace/hdfs"
	"millrace/hdfs/blockmanager"
	"millrace/master/state"
	"millrace/pkg/api"
)

// ErrCannotDrain says that the other core nodes cannot take a node's blocks; its text says what would be needed.
var ErrCannotDrain = blockmanager.ErrCannotDrain

// waitingMost is how many of the blocks that wait are named in one answer.
const waitingMost = 100

// NodeChanged takes up what the log says of a node by now: that it drains, or no more, or has left its cluster.
func (f *Files) NodeChanged(node string) {
	f.forgetNodes()
	if n, ok := f.cfg.View().Node(node); ok && n.Role == state.RoleCore && n.State != state.NodeTerminated {
		f.manager(n.Cluster).Drain(node, n.Draining())
	}
}

// CanDrain says what it takes to copy the blocks of core nodes of one cluster to the others; ErrCannotDrain if these cannot take
// them, and hdfs.ErrUnavailable while too little is known.
func (f *Files) CanDrain(nodes ...string) (*api.NodeDrain, error) {
	if len(nodes) == 0 {
		return &api.NodeDrain{}, nil
	}
	m, _, err := f.managerOf(nodes[0])
	if err != nil {
		return nil, err
	}
	p, err := m.CanDrain(nodes...)
	if err != nil {
		return nil, err
	}
	return &api.NodeDrain{Blocks: int64(p.Blocks), Bytes: p.Bytes, EstimateMs: p.Estimate.Milliseconds()}, nil
}

// Draining says what of the blocks is left on a draining core node; it is drained when nothing is.
func (f *Files) Draining(node string) (*api.NodeDrain, error) {
	m, cluster, err := f.managerOf(node)
	if err != nil {
		return nil, err
	}
	st := m.DrainStatus(node)
	d := &api.NodeDrain{
		Drained: st.Done, Blocks: int64(st.Blocks), Bytes: st.Bytes, EstimateMs: st.Estimate.Milliseconds(),
		WaitingTotal: int64(len(st.Waiting)), Writing: int64(st.Writing),
	}
	for _, c := range st.Waiting[:min(len(st.Waiting), waitingMost)] {
		d.Waiting = append(d.Waiting, &api.BlockWaiting{Path: f.pathOf(cluster, c.File), Block: uint64(c.Block), Size: c.Size, Reason: c.Why})
	}
	return d, nil
}

// Alone lists the blocks of which no node but this one is known to have a good replica, with the files that they are of;
// hdfs.ErrUnavailable while too little is known.
func (f *Files) Alone(node string) (list []*api.BlockTrouble, err error) {
	m, cluster, err := f.managerOf(node)
	if err != nil {
		return nil, err
	}
	alone, err := m.Alone(node)
	if err != nil {
		return nil, err
	}
	for _, c := range alone {
		list = append(list, &api.BlockTrouble{Path: f.pathOf(cluster, c.File), Block: &api.StoredBlock{Id: uint64(c.Block), Size: c.Size}, Replicas: int32(c.Good), Wanted: int32(c.Wanted)})
	}
	return list, nil
}

func (f *Files) managerOf(node string) (*blockmanager.Manager, string, error) {
	n, ok := f.cfg.View().Node(node)
	if !ok || n.Role != state.RoleCore {
		return nil, "", fmt.Errorf("core node %s: %w", node, state.ErrNotFound)
	}
	return f.manager(n.Cluster), n.Cluster, nil
}

// pathOf says where a file is, or will be once it is complete.
func (f *Files) pathOf(cluster string, id hdfs.FileID) string {
	tree := f.cfg.View().Files(cluster)
	if info, err := tree.StatID(id); err == nil {
		return "hdfs://" + info.Path
	}
	if hidden, ok := tree.Hidden(id); ok {
		return "hdfs://" + hidden.Path
	}
	return "a file that is gone"
}
