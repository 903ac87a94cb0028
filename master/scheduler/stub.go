// Package scheduler decides which task runs where. It is a pure function of a
// queue and of free slots: no clock, no I/O, no memory of its own.
package scheduler

// Task is one unit of work that may be started now.
type Task struct {
	Kind  byte // 'm' or 'r'
	Index int
	Avoid []string // nodes on which an attempt of it has failed: used only if there is no other
	Near  []string // nodes that hold its input
}

// Job is a job with tasks to start, in the order of Tasks.
type Job struct {
	ID       string
	Cluster  string
	Priority int    // higher first
	Sequence uint64 // order of submission: smaller is older
	Running  int    // attempts in slots now: the fair share
	Tasks    []Task // ready to run; the first len(free slots) are enough
}

// Node is a worker that takes attempts.
type Node struct {
	ID      string
	Cluster string
	Free    int // slots without attempt
	Core    bool
}

// Assignment puts one task on one node.
type Assignment struct {
	Job  string
	Task Task
	Node string
}

// Assign fills free slots: higher priority first; among equals the job with the
// smallest share of running attempts, oldest first on ties; spread over nodes
// (most free first), near before far, avoided nodes last. It never over-fills a node.
func Assign(jobs []Job, nodes []Node) []Assignment { panic("unwritten") }
