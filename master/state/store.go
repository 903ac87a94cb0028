// Package state owns the replicated records and their legal transitions. It is
// pure: no clock, no randomness, no I/O; applying the same commands gives the same state.
//
// Records lie in immutable radix trees: a view is a pointer to their roots, and a
// record, once stored, is never changed but replaced by a changed copy. Beside them lie the name spaces of the
// clusters' files, which package namespace owns: a view has both as they were at one moment.
package state

import (
	"fmt"
	"maps"
	"sync/atomic"

	"github.com/hashicorp/go-memdb"

	"millrace/hdfs/namespace"
)

// Store holds the state. Apply and Restore are called by one goroutine at a time;
// views may be taken by any.
type Store struct {
	db    *memdb.MemDB
	files map[string]*namespace.Tree // by cluster; views have it too, so it is never changed but replaced
	view  atomic.Pointer[View]
}

// New returns an empty store.
func New() *Store {
	db, _ := memdb.NewMemDB(schema()) // fails on a schema that is not valid; this one is a constant, and tested
	s := &Store{db: db}
	s.publish(0)
	return s
}

// View is an immutable state; taking one costs next to nothing. The records it
// returns must not be changed.
func (s *Store) View() *View { return s.view.Load() }

// publish makes what is committed the current view, as of the given log index.
func (s *Store) publish(index uint64) {
	s.view.Store(&View{txn: s.db.Txn(false), files: s.files, index: index})
}

// Apply carries out one command, logged at index. The result is what the command's
// comment says; an error means that no record changed.
func (s *Store) Apply(index uint64, c Command) (any, error) {
	if c, ok := c.(namespace.Command); ok {
		return s.applyFiles(index, c)
	}
	t := &txn{Txn: s.db.Txn(true), index: index}
	result, err := t.apply(c)
	if err != nil {
		t.Abort()
	} else {
		t.Commit()
		if end, ok := c.(EndCluster); ok {
			s.dropFiles(end.Cluster)
		}
	}
	s.publish(index) // a refused command was applied too: whoever waits for its index must see it
	return result, err
}

// applyFiles carries out a command on a cluster's name space.
func (s *Store) applyFiles(index uint64, c namespace.Command) (any, error) {
	defer s.publish(index)
	if cluster, ok := first[Cluster](s.db.Txn(false), tableCluster, byID, c.In()); !ok || cluster.Ended() {
		return nil, fmt.Errorf("cluster %q: %w", c.In(), ErrNotFound)
	}
	tree, result, err := filesOf(s.files, c.In()).Apply(c)
	if err != nil {
		return nil, err
	}
	files := maps.Clone(s.files)
	if files == nil {
		files = map[string]*namespace.Tree{}
	}
	files[c.In()] = tree
	s.files = files
	return result, nil
}

// dropFiles forgets the name space of a cluster that has ended.
func (s *Store) dropFiles(cluster string) {
	if _, ok := s.files[cluster]; ok {
		s.files = maps.Clone(s.files)
		delete(s.files, cluster)
	}
}

// SkipFileIDs sees to it that the clusters' files get no ids that they may have had in a state that is lost, of which this one is a
// backup. It is for a store that nobody else uses.
func (s *Store) SkipFileIDs() {
	v := s.View()
	files := map[string]*namespace.Tree{}
	for _, c := range v.LiveClusters() {
		files[c.ID] = v.Files(c.ID).Skip()
	}
	s.files = files
	s.publish(v.Index())
}

// DoubtPlaces has the nodes of the pool be asked where they are: what a state that is lost, of which this one is a backup, may have
// made of them. It is for a store that nobody else uses.
func (s *Store) DoubtPlaces() error {
	v, t := s.View(), s.db.Txn(true)
	defer t.Abort() // nothing, once it is committed
	for _, old := range v.Nodes("") {
		if n := *old; n.Pooled && n.State == NodeAdmitted {
			n.Unsure = true
			if err := t.Insert(tableNode, &n); err != nil {
				return fmt.Errorf("doubt where node %s is: %w", n.ID, err)
			}
		}
	}
	t.Commit()
	s.publish(v.Index())
	return nil
}

// filesOf is a cluster's name space, an empty one if it has no files yet.
func filesOf(files map[string]*namespace.Tree, cluster string) *namespace.Tree {
	if tree, ok := files[cluster]; ok {
		return tree
	}
	return namespace.New()
}

// txn is the writable state while one command is applied.
type txn struct {
	*memdb.Txn
	index uint64
}

func (t *txn) apply(c Command) (any, error) {
	switch c := c.(type) {
	case CreateSite:
		return result(t.createSite(c))
	case PutStore:
		return result(t.putStore(c))
	case RaiseSite:
		return result(t.raiseSite(c))
	case PutNode:
		return result(t.putNode(c))
	case AdmitNode:
		return result(t.admitNode(c))
	case RemoveNode:
		return result(t.removeNode(c))
	case DrainNode:
		return result(t.drainNode(c))
	case CreateToken:
		return result(t.createToken(c))
	case RevokeToken:
		return result(t.revokeToken(c))
	case SubmitJob:
		return result(t.submitJob(c))
	case PlanJob:
		return result(t.planJob(c))
	case AddUploads:
		return nil, t.addUploads(c)
	case DropUploads:
		return result(t.dropUploads(c))
	case EndTasks:
		return result(t.endTasks(c))
	case LoseMaps:
		return result(t.loseMaps(c))
	case BeginCommit:
		return result(t.beginCommit(c))
	case RedoParts:
		return result(t.redoParts(c))
	case CompleteJob:
		return result(t.completeJob(c))
	case FailJob:
		return result(t.failJob(c))
	case CancelJob:
		return result(t.cancelJob(c))
	case EndJob:
		return result(t.endJob(c))
	case RetireJobs:
		return result(t.retireJobs(c))
	case ForgetJobs:
		return result(t.forgetJobs(c))
	}
	return t.applyFleet(c)
}

// applyFleet is apply for what clusters, their nodes and people come and go by.
func (t *txn) applyFleet(c Command) (any, error) {
	switch c := c.(type) {
	case CreateCluster:
		return result(t.createCluster(c))
	case ResizeCluster:
		return result(t.resizeCluster(c))
	case SetTarget:
		return result(t.setTarget(c))
	case SetCluster:
		return result(t.setCluster(c))
	case TerminateCluster:
		return result(t.terminateCluster(c))
	case EndCluster:
		return result(t.endCluster(c))
	case SuspendGroup:
		return result(t.suspendGroup(c))
	case AddEvents:
		return result(t.addEventsTo(c))
	case AssignNode:
		return result(t.assignNode(c))
	case LeaveNode:
		return result(t.leaveNode(c))
	case ReleaseNode:
		return result(t.releaseNode(c))
	case FindNode:
		return result(t.findNode(c))
	case NoteBootstrap:
		return result(t.noteBootstrap(c))
	case PutLaunch:
		return result(t.putLaunch(c))
	case DropLaunch:
		return result(t.dropLaunch(c))
	case CreateUser:
		return result(t.createUser(c))
	case PutLoginCode:
		return result(t.putLoginCode(c))
	case RemoveUser:
		return result(t.removeUser(c))
	case LoginUser:
		return result(t.loginUser(c))
	case SetSite:
		return result(t.setSite(c))
	case PutCA:
		return result(t.putCA(c))
	}
	return nil, fmt.Errorf("%w: %T", ErrInvalid, c)
}

// result keeps a typed nil out of the interface when there is an error.
func result[T any](v T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}

// first finds one record. Look-ups fail only on a table, index or argument that the
// schema does not have, which is a mistake in this package: the record is then not found.
func first[T any](t *memdb.Txn, table, index string, args ...any) (*T, bool) {
	raw, err := t.First(table, index, args...)
	if err != nil || raw == nil {
		return nil, false
	}
	r, ok := raw.(*T)
	return r, ok
}

// each calls yield for the records of an index in its order, until it returns false.
func each[T any](t *memdb.Txn, table, index string, args ...any) func(yield func(*T) bool) {
	return func(yield func(*T) bool) {
		it, err := t.Get(table, index, args...)
		if err != nil {
			return
		}
		for raw := it.Next(); raw != nil; raw = it.Next() {
			if !yield(raw.(*T)) {
				return
			}
		}
	}
}
