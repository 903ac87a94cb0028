package files

import (
	"go.uber.org/zap"

	"millrace/hdfs"
	"millrace/hdfs/blockmanager"
	"millrace/hdfs/client"
	"millrace/master/state"
	"millrace/pkg/api"
)

// storesSince is the protocol from which on core nodes store blocks, and say what they have.
const storesSince = 3

// Up says that a node opened a session; what it stores it will say itself. One of an older version stores nothing: it is no place to
// write to, and no report of it is waited for.
func (f *Files) Up(node string, hello *api.WorkerHello) {
	n, ok := f.cfg.View().Node(node)
	if !ok || n.Role != state.RoleCore || n.State == state.NodeTerminated {
		return
	}
	if hello.Protocol < storesSince {
		f.log.Info("a core node stores no blocks before it is upgraded", zap.String("node", node), zap.Int32("protocol", hello.Protocol))
		return
	}
	m := f.manager(n.Cluster)
	f.mu.Lock()
	if f.homes[node].cluster != n.Cluster {
		f.leave(node)
	}
	f.homes[node] = home{n.Cluster, true}
	f.mu.Unlock()
	m.Drain(node, n.Draining())
	m.NodeUp(hdfs.Node{ID: node, Address: hello.Address, Rack: hello.Rack, Name: n.Name})
}

// Down says that a node left or its lease is over.
func (f *Files) Down(node, _ string) {
	f.mu.Lock()
	h, known := f.homes[node]
	if known {
		f.homes[node] = home{cluster: h.cluster}
	}
	f.mu.Unlock()
	if known {
		f.manager(h.cluster).NodeDown(node)
	}
}

// Message hears of a node's blocks; other messages are not for the block stores.
func (f *Files) Message(node string, m *api.WorkerMessage) {
	report := m.GetBlocks()
	if report == nil {
		return
	}
	f.mu.Lock()
	h := f.homes[node]
	f.mu.Unlock()
	if !h.up {
		return
	}
	manager := f.manager(h.cluster)
	if len(report.Disks) > 0 {
		manager.Disks(node, disksOf(report.Disks))
	}
	if report.Full {
		piece := make([]blockmanager.Replica, 0, len(report.Stored)+len(report.Unfinished))
		for _, b := range report.Stored {
			piece = append(piece, blockmanager.Replica{Block: client.BlockOf(b)})
		}
		for _, b := range report.Unfinished {
			piece = append(piece, blockmanager.Replica{Block: client.BlockOf(b), Unfinished: true})
		}
		manager.Report(node, piece, report.Last)
		return
	}
	for _, b := range report.Unfinished { // first: what became of them meanwhile is among the others
		manager.Unfinished(node, client.BlockOf(b))
	}
	for _, b := range report.Gone {
		manager.Deleted(node, client.BlockOf(b))
	}
	for _, b := range report.Stored {
		manager.Received(node, client.BlockOf(b))
	}
	for _, b := range report.Verified {
		manager.Verified(node, client.BlockOf(b))
	}
	for _, b := range report.Bad { // it has read it itself
		manager.Bad(client.BlockOf(b.Block), node, b.Reason)
	}
	for _, c := range report.Failed {
		manager.CopyFailed(client.BlockOf(c.Block), c.Target, c.Reason)
	}
}

func disksOf(disks []*api.DataDisk) []blockmanager.Disk {
	out := make([]blockmanager.Disk, len(disks))
	for i, d := range disks {
		out[i] = blockmanager.Disk{Dir: d.Dir, Capacity: d.CapacityBytes, Free: d.FreeBytes, Reserve: d.ReserveBytes, Problem: d.Problem}
	}
	return out
}
