package worker

import (
	"sync"

	"millrace/pkg/api"
	"millrace/worker/shuffle"
)

// reduces knows, per job, where the leader says that segments lie, and tells those who
// fetch. The leader says it once to a node and then only what changes, for as long as
// the node has leases of the job's reduces.
type reduces struct {
	mu       sync.Mutex
	places   map[string]map[int32]*api.SegmentLocation // job, map
	fetchers map[string]*shuffle.Fetcher               // by reduce attempt
	jobs     map[string]string                         // reduce attempt to job
}

func newReduces() *reduces {
	return &reduces{places: map[string]map[int32]*api.SegmentLocation{},
		fetchers: map[string]*shuffle.Fetcher{}, jobs: map[string]string{}}
}

func (r *reduces) update(m *api.SegmentLocations) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.places[m.Job]
	if known == nil {
		known = map[int32]*api.SegmentLocation{}
		r.places[m.Job] = known
	}
	for _, lost := range m.Lost {
		delete(known, lost)
	}
	for _, l := range m.Segments {
		known[l.Map] = l
	}
	for attempt, f := range r.fetchers {
		if r.jobs[attempt] == m.Job {
			f.Update(m.Segments, m.Lost)
		}
	}
}

// add tells a fetcher what is known, and from then on what changes.
func (r *reduces) add(job, attempt string, f *shuffle.Fetcher) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fetchers[attempt], r.jobs[attempt] = f, job
	list := make([]*api.SegmentLocation, 0, len(r.places[job]))
	for _, l := range r.places[job] {
		list = append(list, l)
	}
	f.Update(list, nil)
}

func (r *reduces) remove(attempt string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.fetchers, attempt)
	delete(r.jobs, attempt)
}

// forget drops a job's places: the leader tells them anew with the next reduce.
func (r *reduces) forget(job string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.places, job)
}

// problems lists what fetchers wait for the leader to mend.
func (r *reduces) problems() (out []*api.SegmentProblem) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.fetchers {
		out = append(out, f.Problems()...)
	}
	return out
}
