// Package scheduler decides which task runs where. It is a pure function of a
// queue and of free slots: no clock, no I/O, no memory of its own.
package scheduler

import (
	"cmp"
	"container/heap"
	"slices"
)

// Task is one unit of work that may be started now.
type Task struct {
	Kind  byte // 'm' or 'r'
	Index int
	Avoid []string // nodes on which an attempt of it has failed: used only if there is no other
	Near  []string // nodes that hold its input
	Bound bool     // to those: no other node will do now
	Disk  int64    // bytes that it needs on its node's disk; 0: none
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

// Node is a worker that takes attempts. Each may be given once.
type Node struct {
	ID      string
	Cluster string
	Free    int // slots without attempt
	Core    bool
	Disk    int64  // bytes of its disk that tasks may still take
	Volume  string // nodes with the same one share their disk; "": its own
}

// Assignment puts one task on one node.
type Assignment struct {
	Job  string
	Task Task
	Node string
}

// Assign fills free slots: higher priority first; among equals the job with the
// smallest share of running attempts, oldest first on ties; spread over nodes
// (most free first, core before task nodes on ties, because those keep their map
// output where it is), near before far. It never over-fills a node, neither its slots
// nor its disk, and leaves no slot free while a task of the node's cluster waits that
// the node has the disk for, and that is not bound to others.
//
// A job's tasks start in their order, but for those that only avoided nodes have
// room for: its other tasks go first. Those that no node has the disk for wait.
//
// It takes O(nodes + tasks·(log jobs + log nodes + unsuited)), tasks being those it looks
// at: the assigned ones, those put off because of Avoid, and those that fit nowhere, of
// which only ever smaller ones are looked for; unsuited being the nodes with free
// slots that a task avoids or that lack the disk for it.
func Assign(jobs []Job, nodes []Node) []Assignment {
	clusters := map[string]*pool{}
	free := 0
	for i := range nodes {
		n := &nodes[i]
		if n.Free <= 0 {
			continue
		}
		if clusters[n.Cluster] == nil {
			clusters[n.Cluster] = newPool()
		}
		clusters[n.Cluster].add(n)
		free += n.Free
	}
	wanted := 0
	queues := make([]*queue, 0, len(jobs))
	for i := range jobs {
		if p := clusters[jobs[i].Cluster]; p != nil && len(jobs[i].Tasks) > 0 {
			queues = append(queues, &queue{job: &jobs[i], pool: p, share: jobs[i].Running})
			wanted += len(jobs[i].Tasks)
		}
	}
	if len(queues) == 0 {
		return nil
	}
	for _, p := range clusters {
		heap.Init(p)
	}
	// Clusters share nothing, so that one order over all jobs does for each of them.
	assigned := make([]Assignment, 0, min(free, wanted))
	slices.SortFunc(queues, func(a, b *queue) int { return cmp.Compare(b.job.Priority, a.job.Priority) })
	for len(queues) > 0 {
		equals := 1
		for equals < len(queues) && queues[equals].job.Priority == queues[0].job.Priority {
			equals++
		}
		assigned = fair(queues[:equals:equals], assigned)
		queues = queues[equals:]
	}
	return assigned
}

// fair gives slots to jobs of one priority, each time to the one with the smallest share.
func fair(jobs shares, assigned []Assignment) []Assignment {
	heap.Init(&jobs)
	for len(jobs) > 0 {
		q := jobs[0]
		task, node := q.next()
		if node == nil {
			heap.Pop(&jobs)
			continue
		}
		assigned = append(assigned, Assignment{Job: q.job.ID, Task: task, Node: node.ID})
		q.share++
		heap.Fix(&jobs, 0)
	}
	return assigned
}

// queue is a job while its tasks are given out.
type queue struct {
	job    *Job
	pool   *pool
	share  int
	taken  int   // tasks looked at
	putOff []int // tasks that only avoided nodes have room for, if any; for good, as room only shrinks
}

// next takes a slot for the job's next task; nil if there is no slot or no task left.
func (q *queue) next() (Task, *Node) {
	if q.pool.Len() == 0 {
		return Task{}, nil
	}
	for q.taken < len(q.job.Tasks) {
		task := &q.job.Tasks[q.taken]
		q.taken++
		if q.pool.hopeless(task) {
			continue
		}
		if s := q.pool.find(task); s != nil {
			return *task, q.pool.take(s, task)
		}
		if len(task.Avoid) > 0 {
			q.putOff = append(q.putOff, q.taken-1)
		}
	}
	for len(q.putOff) > 0 {
		task := &q.job.Tasks[q.putOff[0]]
		q.putOff = q.putOff[1:]
		if q.pool.hopeless(task) {
			continue
		}
		if s := q.pool.find(&Task{Near: task.Near, Bound: task.Bound, Disk: task.Disk}); s != nil {
			return *task, q.pool.take(s, task)
		}
	}
	return Task{}, nil
}

// shares is a heap of jobs, the one with the smallest share first.
type shares []*queue

func (h shares) Len() int { return len(h) }
func (h shares) Less(i, j int) bool {
	a, b := h[i], h[j]
	return cmp.Or(cmp.Compare(a.share, b.share), cmp.Compare(a.job.Sequence, b.job.Sequence), cmp.Compare(a.job.ID, b.job.ID)) < 0
}
func (h shares) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *shares) Push(x any)   { *h = append(*h, x.(*queue)) }
func (h *shares) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
