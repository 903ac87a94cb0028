package state

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/hashicorp/go-memdb"

	"millrace/hdfs/namespace"
)

// View is the state at one moment; it may be used by many goroutines.
type View struct {
	txn   *memdb.Txn // read-only
	files map[string]*namespace.Tree
	index uint64
}

// DefaultCluster is the name of the cluster that is meant when none is named.
const DefaultCluster = "default"

// Index is the log index of the newest command in the view.
func (v *View) Index() uint64 { return v.index }

// Site returns the site's record, if the site has been made.
func (v *View) Site() (*Site, bool) { return first[Site](v.txn, tableSite, byID, "site") }

// Protocol is what the site uses: no entry of the log so far takes a later one to be read.
func (v *View) Protocol() int {
	if s, ok := v.Site(); ok {
		return max(1, s.Protocol)
	}
	return 1
}

// Clusters returns all clusters in order of their ids, the last of those that have ended too.
func (v *View) Clusters() []*Cluster { return collect(each[Cluster](v.txn, tableCluster, byID)) }

// Files is the name space of a cluster (by its id).
func (v *View) Files(cluster string) *namespace.Tree { return filesOf(v.files, cluster) }

// Nodes returns a cluster's nodes, terminated ones too, in order of their ids; "" means all of the site.
func (v *View) Nodes(cluster string) []*Node {
	if cluster == "" {
		return collect(each[Node](v.txn, tableNode, byID))
	}
	return collect(each[Node](v.txn, tableNode, byCluster, cluster))
}

// Node finds a node by its id.
func (v *View) Node(id string) (*Node, bool) { return first[Node](v.txn, tableNode, byID, id) }

// Tokens returns all join tokens in order of their ids, expired and used ones too.
func (v *View) Tokens() []*Token { return collect(each[Token](v.txn, tableToken, byID)) }

// Token finds a join token by its id.
func (v *View) Token(id string) (*Token, bool) { return first[Token](v.txn, tableToken, byID, id) }

// Jobs returns a cluster's jobs that have not moved to the history, the newest first; "" means all of the site.
func (v *View) Jobs(cluster string) []*Job {
	var jobs []*Job
	if cluster == "" {
		jobs = collect(each[Job](v.txn, tableJob, byID))
		slices.SortFunc(jobs, func(a, b *Job) int { return cmp.Compare(a.Sequence, b.Sequence) })
	} else {
		jobs = collect(each[Job](v.txn, tableJob, byClusterPrefix, cluster))
	}
	slices.Reverse(jobs)
	return jobs
}

// OpenJobs returns the site's jobs that have not ended, the oldest first.
func (v *View) OpenJobs() []*Job { return collect(each[Job](v.txn, tableJob, byOpen)) }

// Reserved is the open job whose output equals, contains or lies in this one, or nil.
func (v *View) Reserved(output string) *Job { return reserved(v.txn, output) }

// Job finds a job by its id, unless it has moved to the history.
func (v *View) Job(id string) (*Job, bool) { return first[Job](v.txn, tableJob, byID, id) }

// JobOfRequest finds the job that a user's request id has made in a cluster (its id).
func (v *View) JobOfRequest(cluster, user, requestID string) (Entry, bool) {
	if j, ok := first[Job](v.txn, tableJob, byRequest, cluster, user, requestID); ok {
		return Entry{Job: j}, true
	}
	p, ok := first[PastJob](v.txn, tablePast, byRequest, cluster, user, requestID)
	return Entry{Past: p}, ok
}

// Entry finds a job by its id, one of the history too.
func (v *View) Entry(id string) (Entry, bool) {
	if j, ok := v.Job(id); ok {
		return Entry{Job: j}, true
	}
	p, ok := v.PastJob(id)
	return Entry{Past: p}, ok
}

// FindJob finds what a person may mean by ref in a cluster ("" = any): "last", an
// id, a name (the newest job of it) or the beginning of an id. More than one job
// means that the beginning is ambiguous; none is ErrNotFound.
func (v *View) FindJob(cluster, ref string) ([]Entry, error) {
	within := func(j *Job) bool { return cluster == "" || j.Cluster == cluster }
	missing := fmt.Errorf("job %q: %w", ref, ErrNotFound)
	if ref == "" {
		return nil, missing
	}
	if e, ok := v.Entry(ref); ok && within(e.Brief()) {
		return []Entry{e}, nil
	}
	for _, e := range v.List(cluster) {
		if ref == "last" || e.Name() == ref {
			return []Entry{e}, nil
		}
	}
	var found []Entry
	for j := range each[Job](v.txn, tableJob, byIDPrefix, partial(ref)) {
		if within(j) {
			found = append(found, Entry{Job: j})
		}
	}
	for p := range each[PastJob](v.txn, tablePast, byIDPrefix, partial(ref)) {
		if within(p.Brief()) {
			found = append(found, Entry{Past: p})
		}
	}
	if len(found) == 0 {
		return nil, missing
	}
	return found, nil
}

// Task finds what is logged of a task.
func (v *View) Task(job string, id TaskID) (*Task, bool) {
	return first[Task](v.txn, tableTask, byID, job, id.Kind, id.Index)
}

// Tasks returns what is logged of a job's tasks of one kind, in order of index.
func (v *View) Tasks(job, kind string) []*Task {
	return collect(each[Task](v.txn, tableTask, byIDPrefix, job, kind))
}

// Uploads returns the job's uploads that are logged and not dropped, in order of their ids.
func (v *View) Uploads(job string) []*Upload {
	return collect(each[Upload](v.txn, tableUpload, byIDPrefix, job))
}

// Watch returns a channel that is closed when the job, its tasks or its uploads
// change after this view. For a job that does not exist it may close for others' sake.
func (v *View) Watch(job string) <-chan struct{} {
	ch, _, _ := v.txn.FirstWatch(tableJob, byID, job) // fails as first does: never, by the schema
	return ch
}

// WatchJobs returns a channel that is closed when any job of the site changes after this view.
func (v *View) WatchJobs() <-chan struct{} {
	it, err := v.txn.Get(tableJob, byID)
	if err != nil {
		return nil
	}
	return it.WatchCh()
}

func collect[T any](seq func(yield func(*T) bool)) []*T { return slices.Collect(seq) }
