package view

import (
	"millrace/hdfs"
	"millrace/pkg/api"
)

// Drain is what it takes to drain a node: all of it in a dry run, what is left of it later.
type Drain struct {
	Node         Node           `json:"node"`
	Drained      bool           `json:"drained"` // nothing is left on it
	Blocks       int64          `json:"blocks"`  // that are to be copied
	Bytes        int64          `json:"bytes"`
	EstimateMs   int64          `json:"estimateMs"`
	Waiting      []BlockWaiting `json:"waiting"` // of them, those that no node can take; a hundred at most
	WaitingTotal int64          `json:"waitingTotal"`
	Writing      int64          `json:"writing"` // blocks that lie there and are not final yet
	Attempts     int64          `json:"attempts"`
	KillAt       Time           `json:"killAt"` // what runs then is killed
	Jobs         []string       `json:"jobs"`   // that are still to read map output that lies there
}

// BlockWaiting is a block that cannot be copied now.
type BlockWaiting struct {
	Path   string `json:"path"`
	Block  string `json:"block"`
	Size   int64  `json:"size"`
	Reason string `json:"reason"`
}

// OfDrain converts what a drain takes.
func OfDrain(d *api.NodeDrain) Drain {
	v := Drain{
		Node: OfNode(d.GetNode()), Drained: d.GetDrained(), Blocks: d.GetBlocks(), Bytes: d.GetBytes(), EstimateMs: d.GetEstimateMs(),
		Waiting: []BlockWaiting{}, WaitingTotal: d.GetWaitingTotal(), Writing: d.GetWriting(), Attempts: d.GetAttempts(), KillAt: At(d.GetKillAt()), Jobs: list(d.GetJobs()),
	}
	for _, w := range d.GetWaiting() {
		v.Waiting = append(v.Waiting, BlockWaiting{w.GetPath(), hdfs.BlockID(w.GetBlock()).String(), w.GetSize(), w.GetReason()})
	}
	return v
}
