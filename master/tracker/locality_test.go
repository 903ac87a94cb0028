package tracker

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/master/state"
	"millrace/pkg/api"
)

// located says where each split of ten bytes of hdfs:///in/text lies.
type located struct {
	nodes map[int64][]string // by the split's number
	asked int
	err   error
}

func (l *located) Nodes(_ context.Context, bucket, key, _ string, offset, length int64) (map[string]int64, error) {
	l.asked++
	if bucket != "hdfs://j-1" || key != "in/text" {
		return nil, fmt.Errorf("where does %s/%s lie?", bucket, key)
	}
	held := map[string]int64{}
	for _, n := range l.nodes[offset/10] {
		held[n] = length
	}
	return held, l.err
}

// onFilesInput has a job read as many splits from the block store.
func (w *world) onFilesInput(maps int) func(*state.Job, *api.JobSpec) {
	text := ""
	for range maps {
		text += "123456789\n"
	}
	w.files.Write("hdfs://j-1/in/text", text)
	return func(j *state.Job, spec *api.JobSpec) {
		j.Input, spec.Input = []string{"hdfs://j-1/in/text"}, []string{"hdfs:///in/text"}
	}
}

// counted gives how many maps were local, and how many were not.
func (w *world) counted() (local, other int64) {
	for _, c := range w.job().Counters {
		switch {
		case c.Group == "millrace" && c.Name == "localMaps":
			local = c.Value
		case c.Group == "millrace" && c.Name == "otherMaps":
			other = c.Value
		}
	}
	return local, other
}

func spread(maps int, nodes ...string) map[int64][]string {
	places := map[int64][]string{}
	for i := range maps {
		places[int64(i)] = []string{nodes[(i/3)%len(nodes)]}
	}
	return places
}

func TestMapsRunWhereTheirInputLies(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for _, id := range []string{"i-a", "i-b", "i-c"} {
			w.join(id, state.RoleCore, 2)
		}
		w.locator = &located{nodes: spread(36, "i-a", "i-b", "i-c")}
		w.lead()
		w.submit(36, 2, w.onFilesInput(36))
		w.await()
		w.committed()
		local, other := w.counted()
		require.EqualValues(t, 36, local)
		require.Zero(t, other)
	})
}

// A node of which nothing is asked is passed over for a moment, and then has its share: nobody waits for a node that is busy.
func TestANodeThatHoldsNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.join("i-a", state.RoleCore, 1), w.join("i-b", state.RoleTask, 1)
		a.at(5 * time.Second)
		b.at(5 * time.Second)
		w.locator = &located{nodes: spread(8, "i-a")}
		w.lead()
		w.submit(8, 1, w.onFilesInput(8))
		w.until("the one that holds all has begun", func() bool { return len(a.starts()) == 1 })
		require.Empty(t, b.starts())
		begun := time.Now()
		w.until("the other one has begun", func() bool { return len(b.starts()) == 1 })
		require.GreaterOrEqual(t, time.Since(begun), localWait-100*time.Millisecond)
		require.Less(t, time.Since(begun), 2*localWait)
		w.await()
		w.committed()
		local, other := w.counted()
		require.EqualValues(t, 8, local+other)
		require.EqualValues(t, 4, other, "it waits once, and not for each of them")
	})
}

// Input on nodes that are gone, or nowhere that is known, is read from anywhere.
func TestPlacesThatAreNoUse(t *testing.T) {
	for name, l := range map[string]*located{
		"gone nodes": {nodes: spread(6, "i-x", "i-y")},
		"nowhere":    {},
		"an error":   {err: errors.New("no leader")},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.join("i-a", state.RoleCore, 2)
				w.locator = l
				w.lead()
				w.submit(6, 1, w.onFilesInput(6))
				w.await()
				w.committed()
				local, other := w.counted()
				require.Zero(t, local)
				require.EqualValues(t, 6, other)
				require.Less(t, w.job().EndedAt.Sub(w.job().PlannedAt), 3*time.Second)
			})
		})
	}
}

// One that has failed where its input lies goes elsewhere at once, as any other.
func TestAFailedMapLeavesItsPlace(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 2)
		w.join("i-b", state.RoleCore, 2)
		a.play = func(l *api.Lease) *api.Failure {
			if l.Kind == api.TaskKind_TASK_KIND_MAP && l.Index == 1 {
				return &api.Failure{Kind: api.FailureKind_FAILURE_KIND_PROGRAM, Message: "exit status 3"}
			}
			return nil
		}
		w.locator = &located{nodes: spread(4, "i-a")}
		w.lead()
		w.submit(4, 1, w.onFilesInput(4))
		w.await()
		w.committed()
		k, _ := w.log.View().Task(testJob, state.TaskID{Kind: state.Map, Index: 1})
		require.Equal(t, "i-b", k.Win.Node)
		require.Len(t, k.Ended, 1)
	})
}

// A new leader asks again, and so does one whose job takes long: replicas move.
func TestPlacesAreAskedForAgain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 1)
		a.at(25 * time.Second)
		l := &located{nodes: spread(8, "i-a")}
		w.locator = l
		w.lead()
		w.submit(8, 1, w.onFilesInput(8))
		w.until("it runs", func() bool { return len(a.starts()) == 1 })
		require.Equal(t, 8, l.asked)
		w.depose()
		w.lead()
		w.await()
		w.committed()
		require.GreaterOrEqual(t, l.asked, 3*8)
		local, other := w.counted()
		require.EqualValues(t, 8, local)
		require.Zero(t, other)
	})
}

// Jobs on object stores say nothing of it, and jobs beside one another have what is near to each.
func TestNoPlacesInAnObjectStore(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.join("i-a", state.RoleCore, 2)
		l := &located{}
		w.locator = l
		w.lead()
		w.submit(4, 1, nil)
		w.await()
		w.committed()
		require.Zero(t, l.asked)
		local, other := w.counted()
		require.Zero(t, local+other)
	})
}
