package tracker

// Load is what the jobs of a cluster ask of its nodes now.
type Load struct {
	Waiting int // tasks that wait for a slot
	Running int // attempts in slots
	Nodes   map[string]NodeLoad
}

// NodeLoad is what there is of jobs on a node.
type NodeLoad struct {
	Slots    int
	Attempts int // that are not over
	Needed   int // open jobs of which reduces are still to read map output that lies there
}

// Load tells what the jobs of a cluster ask of its nodes; Needed only if it is asked for, as that takes a look at what lies on each.
func (t *Tracker) Load(cluster string, needed bool) (l Load) {
	l = Load{Nodes: map[string]NodeLoad{}}
	t.ask(func() {
		l.Waiting = t.queued(cluster)
		for id, n := range t.nodes {
			if n.cluster != cluster {
				continue
			}
			load := NodeLoad{Slots: n.slots, Attempts: len(n.attempts)}
			for _, a := range n.attempts {
				if a.started && !a.ending {
					l.Running++
				}
			}
			for _, j := range t.order {
				if needed && j.needs(id) {
					load.Needed++
				}
			}
			l.Nodes[id] = load
		}
	})
	return l
}
