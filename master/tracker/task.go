package tracker

import (
	"fmt"
	"slices"
	"time"

	"millrace/master/state"
)

// task is a map or a reduce, as of the log, with its attempt.
type task struct {
	id       state.TaskID
	done     bool
	wonAt    time.Time // by this leader's clock; zero: in an earlier one's time
	win      *state.Completion
	prior    *state.Completion
	failures int
	number   int       // attempts so far
	fetched  bool      // it was in a worker's queue and taken back: next it gets a slot
	choosy   time.Time // until then it waits for a node that is not in those lists
	refusals int       // completions the log did not take
	// unreadable counts failures that are the input's own.
	unreadable int
	starved    int            // attempts that ended because their node had run out of something
	dropped    int            // attempts whose upload the store has lost
	unread     map[string]int // maps: outputs that reduces on a node could not read
	avoid      []string       // nodes where one has failed
	shun       []string       // nodes where one could not read what others could
	waiting    bool           // in the queue
	look       uint64         // at the queue: the last one that it was seen in
	straggles  bool           // it is to have an upload for a second attempt
	live       attempts
	current    *attempt // that may still win
	spare      *upload  // made ahead, for the next attempt
	gone       bool     // the winner's segment node says it does not have it
	losing     bool     // a LoseMaps is under way
	bytes      int64    // maps: of the split
	places     []string // maps: nodes that hold their input, as far as that is known
	disk       int64    // maps: that its spills and segment are taken to need
}

// shunNode has the task's next attempts made elsewhere, where that is possible.
func (k *task) shunNode(id string) {
	if !slices.Contains(k.shun, id) {
		k.shun = append(k.shun, id)
	}
}

func (k *task) String() string { return taskName(k.id) }

// taskName is a task's name for people: m-00003.
func taskName(id state.TaskID) string { return fmt.Sprintf("%s-%05d", id.Kind, id.Index) }

// upload is a logged multipart upload and the attempt it was made for.
type upload struct {
	id, key, attempt string
	made             time.Time
}

func makeTasks(kind string, n int) []*task {
	tasks := make([]*task, n)
	all := make([]task, n)
	for i := range all {
		all[i].id = state.TaskID{Kind: kind, Index: i}
		tasks[i] = &all[i]
	}
	return tasks
}
