package tracker

import (
	"cmp"
	"context"
	"slices"
	"sort"
	"time"

	"go.uber.org/zap"

	"millrace/master/scheduler"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// Locator knows where files of clusters' block stores lie.
type Locator interface {
	// Nodes gives the nodes that hold something of a range of a file, and how many bytes each.
	Nodes(ctx context.Context, bucket, key, etag string, offset, length int64) (map[string]int64, error)
}

const (
	// localWait is how long a node with room is passed over by a job of which nothing lies there, before it gets a map
	// whose input lies elsewhere: delay scheduling (M. Zaharia and others, EuroSys 2010), with a wait per node, so that
	// one that holds nothing waits once and not for each task.
	localWait    = time.Second
	locateWithin = 2 * time.Second // places are a help: nobody waits longer for them
	relocate     = time.Minute     // how often they are asked for again
)

// locate finds the nodes that hold at least half of each split's input, the most first. It is asked beside the loop.
func (t *Tracker) locate(ctx context.Context, j *job, splits []*api.Split) [][]string {
	if t.cfg.Locator == nil || !slices.ContainsFunc(splits, onFiles) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, locateWithin)
	defer cancel()
	places := make([][]string, len(splits))
	for i, s := range splits {
		held, total := map[string]int64{}, int64(0)
		for _, p := range s.Pieces {
			total += p.Length
			if !objectstore.IsHDFS(p.Bucket) {
				continue
			}
			nodes, err := t.cfg.Locator.Nodes(ctx, p.Bucket, p.Key, p.Etag, p.Offset, p.Length)
			if err != nil {
				j.log.Info("where the input lies is not known", zap.Error(err))
				return places
			}
			for node, bytes := range nodes {
				held[node] += bytes
			}
		}
		for node, bytes := range held {
			if 2*bytes >= total {
				places[i] = append(places[i], node)
			}
		}
		slices.SortFunc(places[i], func(a, b string) int { return cmp.Or(cmp.Compare(held[b], held[a]), cmp.Compare(a, b)) })
	}
	return places
}

// onFiles says whether something of a split is in a block store.
func onFiles(s *api.Split) bool {
	return slices.ContainsFunc(s.Pieces, func(p *api.Piece) bool { return objectstore.IsHDFS(p.Bucket) })
}

// setPlaces takes up where the maps' input lies; nil: that matters to none of them.
func (t *Tracker) setPlaces(j *job, places [][]string) {
	if places == nil {
		return
	}
	if j.near == nil {
		j.passedOver = map[string]time.Time{}
	}
	j.near, j.loose = map[string]*shelf{}, &shelf{}
	for i, k := range j.maps {
		if k.places = places[i]; k.done {
			continue
		}
		if k.near() {
			for _, node := range k.places {
				j.shelf(node).put(k)
			}
		} else {
			j.loose.put(k)
		}
	}
	t.after(relocate, func() { t.relocate(j) })
	t.touch(j)
}

// relocate looks again where the input lies, while there are maps to be leased.
func (t *Tracker) relocate(j *job) {
	if t.jobs[j.id] != j || j.rec.Ending != "" || j.rec.MapsDone == j.rec.Maps {
		return
	}
	splits := j.splits
	t.spawn(func() func() {
		places := t.locate(t.ctx, j, splits)
		return func() {
			if t.jobs[j.id] == j {
				t.setPlaces(j, places)
			}
		}
	})
}

// near says whether a task is to wait for a node that holds its input. One that has failed goes anywhere.
func (k *task) near() bool { return len(k.places) > 0 && len(k.avoid)+len(k.shun) == 0 }

// shelve has a task that waits again found by the nodes that hold its input.
func (j *job) shelve(k *task) {
	if j.near == nil || k.id.Kind != state.Map {
		return
	}
	if !k.near() {
		j.loose.put(k)
		return
	}
	for _, node := range k.places {
		j.shelf(node).put(k)
	}
}

func (j *job) shelf(node string) *shelf {
	if j.near[node] == nil {
		j.near[node] = &shelf{}
	}
	return j.near[node]
}

// shelf is maps in the order of their indices, each once. Those before from do not wait.
type shelf struct {
	tasks []*task
	from  int
}

func (s *shelf) put(k *task) {
	at := sort.Search(len(s.tasks), func(i int) bool { return s.tasks[i].id.Index >= k.id.Index })
	if at == len(s.tasks) || s.tasks[at] != k {
		s.tasks = slices.Insert(s.tasks, at, k)
	}
	s.from = min(s.from, at)
}

// first gives up to n that fit.
func (s *shelf) first(n int, fits func(*task) bool) (found []*task) {
	if s == nil {
		return nil
	}
	for s.from < len(s.tasks) && !s.tasks[s.from].waiting {
		s.from++
	}
	for i := s.from; i < len(s.tasks) && len(found) < n; i++ {
		if k := s.tasks[i]; k.waiting && fits(k) {
			found = append(found, k)
		}
	}
	return found
}

// offerNear lists up to n maps for nodes with room of a kind: to each node what lies there; what lies nowhere that is
// known to any; and to nodes that have been passed over for long enough what lies elsewhere.
func (t *Tracker) offerNear(j *job, n, kind int, fits func(*task) bool) (offered []scheduler.Task) {
	taken := map[*task]bool{}
	free := func(k *task) bool { return !taken[k] && fits(k) }
	add := func(list []*task, nodes func(*task) []string) {
		for _, k := range list {
			taken[k] = true
			near := nodes(k)
			offered = append(offered, scheduler.Task{Kind: k.id.Kind[0], Index: k.id.Index, Avoid: slices.Concat(k.avoid, k.shun),
				Near: near, Bound: len(near) > 0, Disk: t.need(j, k)})
		}
	}
	var patient []string
	for w := range t.roomsOf(j.rec.Cluster).rankings[kind].best() {
		if len(offered) >= n {
			break
		}
		if !t.hasDisk(w, leastDisk) {
			continue
		}
		here := j.near[w.id].first(min(w.room[kind], n-len(offered)), free)
		add(here, func(k *task) []string { return k.places })
		if len(here) > 0 {
			delete(j.passedOver, w.id)
		}
		if len(here) < w.room[kind] && t.passOver(j, w.id) {
			patient = append(patient, w.id)
		}
	}
	add(j.loose.first(n-len(offered), free), func(*task) []string { return nil })
	if len(patient) > 0 {
		add(j.waiting[state.Map].first(n-len(offered), free), func(*task) []string { return patient })
	}
	return offered
}

// passOver notes that nothing of the job lies on a node with room, and says whether it was passed over for long enough.
func (t *Tracker) passOver(j *job, node string) bool {
	since, ok := j.passedOver[node]
	if !ok {
		j.passedOver[node] = t.cfg.Now()
		t.after(localWait, func() { t.touch(j) })
		return false
	}
	return t.cfg.Now().Sub(since) >= localWait
}

// Counters of maps that read from a block store: on a node that holds their input, and on others.
const (
	counterLocal = "localMaps"
	counterOther = "otherMaps"
)

// locality counts where a map has run; nil if that does not matter to it.
func (a *attempt) locality() []*api.Counter {
	j, k := a.job, a.task
	if j.near == nil || k.id.Kind != state.Map || k.id.Index >= len(j.splits) || !onFiles(j.splits[k.id.Index]) {
		return nil
	}
	name := counterOther
	if slices.Contains(k.places, a.node) {
		name = counterLocal
	}
	return []*api.Counter{{Group: state.CounterGroup, Name: name, Value: 1}}
}
