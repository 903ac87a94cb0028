package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// draw makes a small queue and a few nodes, so that shortage, avoidance and ties are common.
func draw(t *rapid.T) ([]Job, []Node) {
	clusters := []string{"x", "y"}
	var nodes []Node
	var names []string
	volumes := map[string]*int64{}
	for i := range rapid.IntRange(0, 6).Draw(t, "nodes") {
		n := Node{
			ID:      fmt.Sprintf("n%d", i),
			Cluster: rapid.SampledFrom(clusters).Draw(t, "cluster"),
			Free:    rapid.IntRange(-1, 4).Draw(t, "free"),
			Core:    rapid.Bool().Draw(t, "core"),
			Disk:    rapid.Int64Range(-2, 10).Draw(t, "disk"),
			Volume:  rapid.SampledFrom([]string{"", "", "v"}).Draw(t, "volume"),
		}
		if n.Volume != "" {
			if n.Volume += n.Cluster; volumes[n.Volume] == nil {
				volumes[n.Volume] = &n.Disk
			}
			n.Disk = *volumes[n.Volume]
		}
		nodes, names = append(nodes, n), append(names, n.ID)
	}
	names = append(names, "gone")
	someNodes := rapid.SliceOfN(rapid.SampledFrom(names), 0, 3)
	var jobs []Job
	for i := range rapid.IntRange(0, 5).Draw(t, "jobs") {
		j := Job{
			ID:       fmt.Sprintf("j%d", i),
			Cluster:  rapid.SampledFrom(clusters).Draw(t, "cluster"),
			Priority: rapid.IntRange(0, 2).Draw(t, "priority"),
			Sequence: uint64(rapid.IntRange(0, 3).Draw(t, "sequence")),
			Running:  rapid.IntRange(0, 4).Draw(t, "running"),
		}
		for k := range rapid.IntRange(0, 6).Draw(t, "tasks") {
			j.Tasks = append(j.Tasks, Task{Kind: 'm', Index: k, Avoid: someNodes.Draw(t, "avoid"), Near: someNodes.Draw(t, "near"),
				Bound: rapid.IntRange(0, 3).Draw(t, "bound") == 0, Disk: rapid.SampledFrom([]int64{0, 1, 3, 8}).Draw(t, "need")})
		}
		jobs = append(jobs, j)
	}
	return jobs, nodes
}

// TestLikeTwin compares with a scheduler that looks at everything for every slot.
func TestLikeTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		jobs, nodes := draw(t)
		if d := gocmp.Diff(brief(twin(jobs, nodes)), brief(Assign(jobs, nodes))); d != "" {
			t.Fatal(d)
		}
	})
}

func twin(jobs []Job, nodes []Node) []Assignment {
	nodes = slices.Clone(nodes)
	jobs = slices.Clone(jobs)
	var out []Assignment
	for {
		var eligible []*Job
		for i := range jobs {
			if slices.ContainsFunc(jobs[i].Tasks, func(task Task) bool { return twinNode(&jobs[i], task, nodes) != nil }) {
				eligible = append(eligible, &jobs[i])
			}
		}
		if len(eligible) == 0 {
			return out
		}
		j := slices.MinFunc(eligible, func(a, b *Job) int {
			return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.Running, b.Running),
				cmp.Compare(a.Sequence, b.Sequence), cmp.Compare(a.ID, b.ID))
		})
		k := slices.IndexFunc(j.Tasks, func(task Task) bool {
			n := twinNode(j, task, nodes)
			return n != nil && !slices.Contains(task.Avoid, n.ID)
		})
		if k < 0 {
			k = slices.IndexFunc(j.Tasks, func(task Task) bool { return twinNode(j, task, nodes) != nil })
		}
		task := j.Tasks[k]
		n := twinNode(j, task, nodes)
		out = append(out, Assignment{j.ID, task, n.ID})
		n.Free--
		twinTake(nodes, n, task)
		j.Running++
		j.Tasks = slices.Delete(slices.Clone(j.Tasks), k, k+1)
	}
}

// twinTake takes a task's disk from a node and from all that share its disk.
func twinTake(nodes []Node, n *Node, task Task) {
	volume := n.Volume
	for i := range nodes {
		if &nodes[i] == n || volume != "" && nodes[i].Volume == volume {
			nodes[i].Disk -= task.Disk
		}
	}
}

// twinNode is the best node with room, avoided or not; nil if there is none.
func twinNode(j *Job, task Task, nodes []Node) *Node {
	rank := func(n Node) int {
		switch {
		case n.Cluster != j.Cluster || n.Free <= 0 || task.Disk > 0 && task.Disk > n.Disk, task.Bound && !slices.Contains(task.Near, n.ID):
			return 4
		case slices.Contains(task.Avoid, n.ID) && slices.Contains(task.Near, n.ID):
			return 2
		case slices.Contains(task.Avoid, n.ID):
			return 3
		case slices.Contains(task.Near, n.ID):
			return 0
		}
		return 1
	}
	core := map[bool]int{true: 0, false: 1}
	if !slices.ContainsFunc(nodes, func(n Node) bool { return rank(n) < 4 }) {
		return nil
	}
	best := slices.MinFunc(nodes, func(a, b Node) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(b.Free, a.Free),
			cmp.Compare(core[a.Core], core[b.Core]), cmp.Compare(a.ID, b.ID))
	})
	return &nodes[slices.IndexFunc(nodes, func(n Node) bool { return n.ID == best.ID })]
}

// TestProperties holds what any scheduler must hold, whatever its taste.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		jobs, nodes := draw(t)
		free, cluster := map[string]int{}, map[string]string{}
		for _, n := range nodes {
			free[n.ID], cluster[n.ID] = max(n.Free, 0), n.Cluster
		}
		at := map[string]*Node{}
		after := slices.Clone(nodes)
		for i := range after {
			at[after[i].ID] = &after[i]
		}
		given, seen := map[string]int{}, map[string]bool{}
		byID := map[string]Job{}
		for _, j := range jobs {
			byID[j.ID] = j
		}
		for _, a := range Assign(jobs, nodes) {
			key := fmt.Sprint(a.Job, a.Task.Kind, a.Task.Index)
			if seen[key] {
				t.Fatalf("%s twice", key)
			}
			seen[key] = true
			if cluster[a.Node] != byID[a.Job].Cluster {
				t.Fatalf("%v is in another cluster", a)
			}
			given[a.Job]++
			if a.Task.Bound && !slices.Contains(a.Task.Near, a.Node) {
				t.Fatalf("%v is bound to %v", a, a.Task.Near)
			}
			if free[a.Node]--; free[a.Node] < 0 {
				t.Fatalf("%s is over-filled", a.Node)
			}
			if n := at[a.Node]; a.Task.Disk > 0 && a.Task.Disk > n.Disk {
				t.Fatalf("%s has %d bytes of disk, %v", n.ID, n.Disk, a)
			}
			twinTake(after, at[a.Node], a.Task)
		}
		waits := func(j Job) bool { return given[j.ID] < len(j.Tasks) }
		fits := func(j Job, n Node) bool {
			return slices.ContainsFunc(j.Tasks, func(task Task) bool {
				return !seen[fmt.Sprint(j.ID, task.Kind, task.Index)] && (task.Disk <= 0 || task.Disk <= n.Disk) && (!task.Bound || slices.Contains(task.Near, n.ID))
			})
		}
		for _, a := range jobs {
			for _, n := range after {
				if n.Cluster == a.Cluster && free[n.ID] > 0 && fits(a, n) {
					t.Fatalf("%s waits while %s has room", a.ID, n.ID)
				}
			}
			undemanding := !slices.ContainsFunc(a.Tasks, func(task Task) bool { return task.Disk > 0 || task.Bound })
			for _, b := range jobs {
				if a.Cluster != b.Cluster || !waits(a) || !undemanding || given[b.ID] == 0 {
					continue
				}
				if b.Priority < a.Priority {
					t.Fatalf("%s waits, %s of lower priority got slots", a.ID, b.ID)
				}
				if b.Priority == a.Priority && b.Running+given[b.ID] > a.Running+given[a.ID]+1 {
					t.Fatalf("%s waits with a share of %d, %s got %d more to have %d", a.ID, a.Running+given[a.ID], b.ID, given[b.ID], b.Running+given[b.ID])
				}
			}
		}
	})
}
