package scheduler

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tasks makes n map tasks without wishes.
func tasks(n int) []Task {
	all := make([]Task, n)
	for i := range all {
		all[i] = Task{Kind: 'm', Index: i}
	}
	return all
}

// needing makes map tasks that need so many bytes of disk.
func needing(disk ...int64) []Task {
	all := tasks(len(disk))
	for i := range all {
		all[i].Disk = disk[i]
	}
	return all
}

// brief writes assignments as "job task node".
func brief(as []Assignment) []string {
	var out []string
	for _, a := range as {
		out = append(out, fmt.Sprintf("%s %c%d %s", a.Job, a.Task.Kind, a.Task.Index, a.Node))
	}
	return out
}

func TestAssign(t *testing.T) {
	for _, c := range []struct {
		name  string
		jobs  []Job
		nodes []Node
		want  []string
	}{
		{name: "nothing to do", nodes: []Node{{ID: "n1", Free: 1}}},
		{name: "nowhere to go", jobs: []Job{{ID: "a", Tasks: tasks(1)}}},
		{
			name:  "a job stays in its cluster",
			jobs:  []Job{{ID: "a", Cluster: "x", Tasks: tasks(2)}},
			nodes: []Node{{ID: "n1", Cluster: "y", Free: 4}, {ID: "n2", Cluster: "x", Free: 1}},
			want:  []string{"a m0 n2"},
		},
		{
			name:  "tasks spread, most free slots first, core nodes first on ties",
			jobs:  []Job{{ID: "a", Tasks: tasks(4)}},
			nodes: []Node{{ID: "n1", Free: 1}, {ID: "n2", Free: 2}, {ID: "n3", Free: 2, Core: true}},
			want:  []string{"a m0 n3", "a m1 n2", "a m2 n3", "a m3 n1"},
		},
		{
			name:  "a bound task goes to its nodes or nowhere, and keeps nobody else from a slot",
			jobs:  []Job{{ID: "a", Tasks: []Task{{Kind: 'm', Near: []string{"n1", "n3"}, Bound: true}, {Kind: 'm', Index: 1, Near: []string{"n1"}, Bound: true}, {Kind: 'm', Index: 2}}}},
			nodes: []Node{{ID: "n1", Free: 1}, {ID: "n2", Free: 3}},
			want:  []string{"a m0 n1", "a m2 n2"},
		},
		{
			name:  "a bound task that has failed there waits",
			jobs:  []Job{{ID: "a", Tasks: []Task{{Kind: 'm', Near: []string{"n1"}, Bound: true, Avoid: []string{"n1"}}}}},
			nodes: []Node{{ID: "n2", Free: 3}},
		},
		{
			name:  "higher priority first, however young and however much it has",
			jobs:  []Job{{ID: "a", Sequence: 1, Tasks: tasks(2)}, {ID: "b", Sequence: 2, Priority: 1, Running: 9, Tasks: tasks(2)}},
			nodes: []Node{{ID: "n1", Free: 3}},
			want:  []string{"b m0 n1", "b m1 n1", "a m0 n1"},
		},
		{
			name:  "among equals the smallest share, the oldest on ties",
			jobs:  []Job{{ID: "a", Sequence: 3, Tasks: tasks(9)}, {ID: "b", Sequence: 2, Running: 2, Tasks: tasks(9)}, {ID: "c", Sequence: 1, Running: 1, Tasks: tasks(9)}},
			nodes: []Node{{ID: "n1", Free: 6}},
			want:  []string{"a m0 n1", "c m0 n1", "a m1 n1", "c m1 n1", "b m0 n1", "a m2 n1"},
		},
		{
			name:  "near before far, even on a fuller node",
			jobs:  []Job{{ID: "a", Tasks: []Task{{Kind: 'm', Near: []string{"gone", "n1"}}, {Kind: 'm', Index: 1, Near: []string{"n1"}}}}},
			nodes: []Node{{ID: "n1", Free: 1}, {ID: "n2", Free: 3}},
			want:  []string{"a m0 n1", "a m1 n2"},
		},
		{
			name:  "an avoided node is not near",
			jobs:  []Job{{ID: "a", Tasks: []Task{{Kind: 'm', Near: []string{"n1"}, Avoid: []string{"n1"}}}}},
			nodes: []Node{{ID: "n1", Free: 3}, {ID: "n2", Free: 1}},
			want:  []string{"a m0 n2"},
		},
		{
			name:  "avoided nodes are passed over, several too",
			jobs:  []Job{{ID: "a", Tasks: []Task{{Kind: 'm', Avoid: []string{"n1", "n2"}}}}},
			nodes: []Node{{ID: "n1", Free: 9}, {ID: "n2", Free: 8}, {ID: "n3", Free: 1}, {ID: "n4", Free: 2}},
			want:  []string{"a m0 n4"},
		},
		{
			name:  "the job's other tasks go before one that only avoided nodes have room for",
			jobs:  []Job{{ID: "a", Tasks: []Task{{Kind: 'm', Avoid: []string{"n1"}}, {Kind: 'm', Index: 1}}}},
			nodes: []Node{{ID: "n1", Free: 2}},
			want:  []string{"a m1 n1", "a m0 n1"},
		},
		{
			name:  "a full node is no node",
			jobs:  []Job{{ID: "a", Tasks: tasks(2)}},
			nodes: []Node{{ID: "n1"}, {ID: "n2", Free: -1}, {ID: "n3", Free: 1}},
			want:  []string{"a m0 n3"},
		},
		{
			name:  "a disk takes what it has room for, in bytes and not in tasks",
			jobs:  []Job{{ID: "a", Tasks: needing(30, 30, 50, 20)}},
			nodes: []Node{{ID: "n1", Free: 9, Disk: 100}},
			want:  []string{"a m0 n1", "a m1 n1", "a m3 n1"},
		},
		{
			name:  "a full disk's slots stay free, the next node's do not",
			jobs:  []Job{{ID: "a", Tasks: needing(10, 10, 10)}},
			nodes: []Node{{ID: "n1", Free: 9, Disk: 9}, {ID: "n2", Free: 2, Disk: 100}, {ID: "n3", Free: 5, Disk: -4}},
			want:  []string{"a m0 n2", "a m1 n2"},
		},
		{
			name:  "nodes of one machine share its disk",
			jobs:  []Job{{ID: "a", Tasks: needing(10, 10, 10)}},
			nodes: []Node{{ID: "n1", Free: 2, Disk: 25, Volume: "v"}, {ID: "n2", Free: 2, Disk: 25, Volume: "v"}},
			want:  []string{"a m0 n1", "a m1 n2"},
		},
		{
			name:  "a task without need runs on a full disk, too",
			jobs:  []Job{{ID: "a", Tasks: tasks(1)}},
			nodes: []Node{{ID: "n1", Free: 2, Disk: -1}},
			want:  []string{"a m0 n1"},
		},
		{
			name:  "near before far, but for the disk; an avoided node with room before none",
			jobs:  []Job{{ID: "a", Tasks: []Task{{Kind: 'm', Disk: 10, Near: []string{"n1"}, Avoid: []string{"n2"}}}}},
			nodes: []Node{{ID: "n1", Free: 2, Disk: 5}, {ID: "n2", Free: 2, Disk: 50}},
			want:  []string{"a m0 n2"},
		},
		{
			name:  "who fits nowhere does not keep others from their slots",
			jobs:  []Job{{ID: "a", Priority: 1, Tasks: needing(60)}, {ID: "b", Tasks: needing(70, 10)}},
			nodes: []Node{{ID: "n1", Free: 2, Disk: 50}},
			want:  []string{"b m1 n1"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if d := cmp.Diff(c.want, brief(Assign(c.jobs, c.nodes))); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestAssignChangesNothingItIsGiven(t *testing.T) {
	jobs := []Job{{ID: "b", Sequence: 2, Tasks: tasks(3)}, {ID: "a", Priority: 1, Tasks: []Task{{Avoid: []string{"n1"}}}}}
	nodes := []Node{{ID: "n1", Free: 1}, {ID: "n2", Free: 2}}
	jobsBefore, nodesBefore := slices.Clone(jobs), slices.Clone(nodes)
	Assign(jobs, nodes)
	if d := cmp.Diff(jobsBefore, jobs) + cmp.Diff(nodesBefore, nodes); d != "" {
		t.Error(d)
	}
}

func BenchmarkAssign(b *testing.B) {
	nodes := make([]Node, 10_000)
	for i := range nodes {
		nodes[i] = Node{ID: fmt.Sprintf("i-%017x", i), Free: 4, Core: i%3 == 0, Disk: int64(1+i%5) << 29}
	}
	for _, wishes := range []bool{false, true} {
		jobs := make([]Job, 100)
		for i := range jobs {
			jobs[i] = Job{ID: fmt.Sprintf("s-%d", i), Sequence: uint64(i), Priority: i % 3, Running: i % 7, Tasks: tasks(40_000)}
			for k := range jobs[i].Tasks {
				jobs[i].Tasks[k].Disk = 128 << 20
				if wishes {
					jobs[i].Tasks[k].Near = []string{nodes[(i+k*31)%len(nodes)].ID, nodes[(i+k*17)%len(nodes)].ID}
					jobs[i].Tasks[k].Avoid = []string{nodes[k%len(nodes)].ID}
				}
			}
		}
		b.Run(fmt.Sprintf("wishes=%v", wishes), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if n := len(Assign(jobs, nodes)); n != 40_000 {
					b.Fatalf("%d assignments", n)
				}
			}
		})
	}
}
