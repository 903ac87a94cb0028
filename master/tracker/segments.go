package tracker

import (
	"maps"
	"time"

	"go.uber.org/zap"

	"millrace/master/state"
	"millrace/pkg/api"
)

// maxLost is how many lost maps go into one log entry: one that changes more than some 8000 nodes of the state's
// trees costs a walk through all that is in them, to find who watches.
const maxLost = 500

// helloAge is how old a hello may be when it is taken up: its worker gives a session up that nobody welcomes within seconds, and
// a hello may wait for a leader that is busy taking over.
const helloAge = 10 * time.Second

// holds compares the segments a node says it holds with those it should hold,
// and has it drop what nobody will ask for.
func (t *Tracker) holds(n *node, segments []*api.HeldSegment) {
	held := map[string]bool{}
	ended := map[string]bool{}
	view := t.cfg.View()
	for _, s := range segments {
		held[s.Attempt] = true
		if _, seen := ended[s.Job]; !seen {
			rec, ok := view.Job(s.Job)
			ended[s.Job] = !ok || rec.Ended()
			t.forgetOn(n.id, s.Job)
		}
		if ended[s.Job] {
			continue
		}
		id := state.TaskID{Kind: state.Map, Index: int(s.Map)}
		if logged, ok := view.Task(s.Job, id); ok && logged.Done && logged.Win.Attempt != s.Attempt {
			t.sendAck(n.id, s.Attempt, false)
		}
	}
	for _, j := range t.order {
		if j.rec.Cluster != n.cluster || !j.tasked {
			continue
		}
		for _, k := range j.kept[n.id] {
			if k.done && k.win.SegmentNode == n.id {
				// What another node has brought there since the hello was written is not in it. Should it be missing all
				// the same, a reduce finds out.
				since := k.win.Node != n.id && !k.wonAt.IsZero() && t.cfg.Now().Sub(k.wonAt) < helloAge
				k.gone = !held[k.win.Attempt] && !since
				j.checkSegments = j.checkSegments || k.gone
				j.news[k.id.Index] = true // its address may be another now
			}
		}
	}
}

// needsSegments says whether some reduce of the job is still to read them.
func (j *job) needsSegments() bool {
	return j.tasked && !j.rec.MapOnly() && j.rec.Ending == "" && j.rec.ReducesDone < j.rec.Reduces
}

// loseSegments finds completed maps whose segment is nowhere any more, while
// reduces still need it.
func (t *Tracker) loseSegments(j *job) {
	if !j.checkSegments || !j.needsSegments() || j.inherited && !t.returned(j.rec.Cluster) {
		return
	}
	j.checkSegments = false
	var lost []*task
	again := false
	for _, k := range j.maps {
		switch {
		case !k.done || k.losing:
		case k.gone:
			lost = append(lost, k)
		case t.nodes[k.win.SegmentNode] != nil:
		case t.answered(k):
			again = true
		default:
			lost = append(lost, k)
		}
	}
	t.loseMaps(j, lost)
	if again {
		t.after(t.cfg.Lease, func() {
			if t.jobs[j.id] == j {
				j.checkSegments = true
				t.touch(j)
			}
		})
	}
}

// answered says whether the node that keeps a map's segment has answered another node within the last lease, though its own is
// over: it was frozen, most likely, and is about to come back.
func (t *Tracker) answered(k *task) bool {
	if k.win.Node == k.win.SegmentNode || k.wonAt.IsZero() || t.cfg.Now().Sub(k.wonAt) >= t.cfg.Lease {
		return false
	}
	rec, ok := t.cfg.View().Node(k.win.SegmentNode)
	return ok && works(rec)
}

// loseMaps logs that completed maps must run again.
func (t *Tracker) loseMaps(j *job, lost []*task) {
	for len(lost) > 0 {
		some := lost[:min(len(lost), maxLost)]
		lost = lost[len(some):]
		c := state.LoseMaps{Job: j.id}
		for _, k := range some {
			k.losing = true
			c.Maps = append(c.Maps, state.LostMap{Index: k.id.Index, Attempt: k.win.Attempt})
		}
		t.propose(j.id, c, func(_ any, err error) {
			for _, k := range some {
				k.losing = false
				t.reread(j, k)
				if !k.done {
					k.gone = false
					j.news[k.id.Index] = true
					j.log.Info("map output is lost, the map runs again", zap.String("task", k.String()))
				}
				t.await(j, k)
			}
			t.touch(j)
		})
	}
}

// onProblem: a running reduce cannot get a map's segment.
func (t *Tracker) onProblem(node string, p *api.SegmentProblem) {
	j := t.jobs[p.Job]
	if j == nil || !j.tasked {
		return
	}
	j.log.Warn("segment cannot be fetched", zap.Int32("map", p.Map), zap.String("attempt", p.MapAttempt),
		zap.String("node", p.SegmentNode), zap.String("reduce", p.ReduceAttempt), zap.String("reason", p.Reason))
	if !unreached(p) {
		fault := t.unreadable(j, int(p.Map), p.MapAttempt, node, p.Reason)
		if a := t.reducing(j, node, p.ReduceAttempt); a != nil && fault != "" {
			t.failReading(a, fault)
		}
		return
	}
	if t.away(p.SegmentNode) {
		// Its lease decides: it comes back, and its places are told again, or it is
		// down, and all its segments are lost.
		return
	}
	t.cutOff(j, node, p)
}

// away says whether a node is in its lease without a connection.
func (t *Tracker) away(id string) bool {
	return t.nodes[id] != nil && !t.cfg.Workers.Connected(id)
}

// loseSegment makes one map run again, if that attempt is the one that counts.
func (t *Tracker) loseSegment(j *job, index int, attempt string) (lost bool) {
	k := j.task(state.TaskID{Kind: state.Map, Index: index})
	if k == nil || !k.done || k.losing || !j.needsSegments() || k.win.Attempt != attempt {
		if k != nil && k.done && !k.losing {
			j.news[index] = true // whoever asks has not heard of the new place
			t.touch(j)
		}
		return false
	}
	t.loseMaps(j, []*task{k})
	return true
}

// place says where a map's segment lies now; false: it will be made (again).
func (t *Tracker) place(k *task) (*api.SegmentLocation, bool) {
	if !k.done {
		return nil, false
	}
	l := &api.SegmentLocation{Map: int32(k.id.Index), Attempt: k.win.Attempt, Node: k.win.SegmentNode, Digest: k.win.Digest}
	if n := t.nodes[k.win.SegmentNode]; n != nil {
		l.Address = n.address
	}
	return l, l.Address != ""
}

func (t *Tracker) places(j *job, indexes func(yield func(int) bool)) *api.MasterMessage {
	m := &api.SegmentLocations{Job: j.id, TotalMaps: int32(j.rec.Maps)}
	for i := range indexes {
		k := j.maps[i]
		if l, ok := t.place(k); ok {
			m.Segments = append(m.Segments, l)
		} else {
			m.Lost = append(m.Lost, int32(i))
		}
	}
	return &api.MasterMessage{Message: &api.MasterMessage_Locations{Locations: m}}
}

// tellPlaces sends all places to a node that runs a reduce of the job, once.
func (t *Tracker) tellPlaces(j *job, node string) {
	if j.told[node] || t.nodes[node] == nil {
		return
	}
	if j.telling == nil || len(j.news) > 0 {
		j.telling = t.places(j, func(yield func(int) bool) {
			for i := range j.maps {
				if !yield(i) {
					return
				}
			}
		})
	}
	j.told[node] = t.send(node, j.telling)
}

// tellAgain names a map's place once more after a while, to whoever has given it up.
func (t *Tracker) tellAgain(j *job, index int) {
	if j.task(state.TaskID{Kind: state.Map, Index: index}) == nil {
		return
	}
	if j.again == nil {
		j.again = map[int]bool{}
		t.after(settledAfter, func() {
			again := j.again
			j.again = nil
			if t.jobs[j.id] == j {
				maps.Copy(j.news, again)
				t.touch(j)
			}
		})
	}
	j.again[index] = true
}

// tellNews sends the places that changed to the nodes that know the others.
func (t *Tracker) tellNews(j *job) {
	if len(j.news) == 0 {
		return
	}
	news := j.news
	j.news, j.telling = map[int]bool{}, nil
	if len(j.told) == 0 {
		return
	}
	m := t.places(j, func(yield func(int) bool) {
		for i := range news {
			if !yield(i) {
				return
			}
		}
	})
	for node := range j.told {
		t.send(node, m)
	}
}

// untell forgets that a node knows the places when its last reduce of the job is over.
func (t *Tracker) untell(a *attempt) {
	j := a.job
	if a.task.id.Kind != state.Reduce {
		return
	}
	if n := t.nodes[a.node]; n != nil {
		for _, other := range n.attempts {
			if other.job == j && other.task.id.Kind == state.Reduce {
				return
			}
		}
	}
	delete(j.told, a.node)
}
