//go:build cluster

package clustertest

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore/faultproxy"
)

// nightly is set by `make nightly`: everything is struck everywhere.
var nightly = os.Getenv("MILLRACE_NIGHTLY") != ""

// TestKillAtEveryRequestOfACommit: kill -9 of the master, or of the store, at every request of a commit in
// turn: before it reaches the store, when it was carried out and nobody has heard of it, and the store also
// in the midst of it. The job completes with the right set and nothing beside it, and somebody who reads
// all the while never sees a wrong one. CI leaves out kinds of jobs over MinIO, and requests that arrive late.
func TestKillAtEveryRequestOfACommit(t *testing.T) {
	for _, store := range []string{"embedded", "minio"} {
		for _, kind := range commitKinds {
			if store == "minio" && kind.name != "overwrite" && !nightly {
				continue
			}
			for _, victim := range []string{"master", "store"} {
				t.Run(store+"/"+kind.name+"/"+victim, func(t *testing.T) {
					t.Parallel()
					newKills(t, store, kind, victim).all(t)
				})
			}
		}
	}
}

// commitKind is a kind of job: its flags, and whether an old set lies in its place.
type commitKind struct {
	name      string
	args      []string
	overwrite bool
}

var commitKinds = []commitKind{
	{"overwrite", []string{"wordcount", "--reduces", "2", "--overwrite"}, true},
	{"plain", []string{"wordcount", "--reduces", "3"}, false},
	{"map-only", []string{"cat", "--split-size", "16"}, false},
}

// commitInput gives each word once in two lines of 16 bytes: two splits.
const commitInput, oldInput = "one two three 4\nfive six seven 8\n", "quite another te\n"

// want is the truth about a job's output, made without the engine: a set of lines.
func (k commitKind) want(input string) []string {
	var lines []string
	for line := range strings.Lines(input) {
		if k.name == "map-only" {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
			continue
		}
		for _, w := range strings.Fields(line) {
			lines = append(lines, w+"\t1")
		}
	}
	slices.Sort(lines)
	return lines
}

// oldSet shares one name with the new one and has two of its own.
var oldSet = set{"part-r-00000": []byte("old\t1\n"), "part-r-00002": []byte("older\t2\n"), "part-r-00003": nil}

// kills is one cluster and store, and what is struck there again and again.
type kills struct {
	store  *storeProcess
	c      *cluster
	kind   commitKind
	victim string
	jobs   int
	killed int // masters of this cluster
	truth  set
	prefix string // of this job's output

	whole, changed, absent int // what the readers found

	mu     sync.Mutex
	begun  bool           // the commit has
	seen   map[string]int // its requests, by name
	names  []string       // … in their order
	strike *strike
}

// strike is what happens at one request of a commit.
type strike struct {
	point string
	when  string // before, after, during, late

	reached, release chan struct{} // the request is here; its sender, or the store, is dead
	land, landed     chan struct{} // of a late one: let it go on to the store; it has been carried out
}

func newStrike(point, when string) *strike {
	return &strike{point, when, make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})}
}

var errGone = errors.New("one of the two ends is gone")

func (s *strike) fault() faultproxy.Fault {
	hold := func(context.Context) error { close(s.reached); <-s.release; return errGone }
	switch s.when {
	case "before":
		return faultproxy.Fault{Before: hold}
	case "during":
		return faultproxy.Fault{Before: func(context.Context) error { close(s.reached); return nil }}
	case "after":
		return faultproxy.Fault{After: hold}
	}
	return faultproxy.Fault{
		Before: func(ctx context.Context) error { _ = hold(ctx); return nil },
		Late:   func() error { <-s.land; return nil }, Landed: func() { close(s.landed) },
	}
}

func newKills(t *testing.T, store string, kind commitKind, victim string) *kills {
	k := &kills{kind: kind, victim: victim}
	k.store = startStore(t, store, k.fault)
	require.NoError(t, k.store.direct.MakeBucket(t.Context(), "data"))
	k.store.put("data", "in/a", commitInput)
	k.startCluster()
	return k
}

func (k *kills) startCluster() {
	k.c, k.killed = k.store.cluster("--core", "1", "--task", "0", "--slots", "2"), 0
}

// all strikes at every request that an undisturbed commit makes.
func (k *kills) all(t *testing.T) {
	points, strikes := k.undisturbed(t), 0
	whens := []string{"before", "after"}
	switch {
	case k.victim == "store" && nightly:
		whens = append(whens, slices.Repeat([]string{"during"}, 8)...)
	case k.victim == "store":
		whens = append(whens, "during")
	case nightly:
		whens = append(whens, "late")
	}
	for _, p := range points {
		for _, when := range whens {
			k.struck(t, newStrike(p, when))
			strikes++
		}
	}
	t.Logf("struck %d times, at %s; readers found %d whole sets, %d that changed under their eyes, none %d times",
		strikes, strings.Join(points, ", "), k.whole, k.changed, k.absent)
}

// undisturbed says what the output must be, and which requests a commit makes.
func (k *kills) undisturbed(t *testing.T) (points []string) {
	job := k.c.waitJob(k.submit(t, nil))
	require.Equal(t, "COMPLETED", job.str("state"), job)
	_, lines := readSet(t, k.store.direct, "data", k.prefix)
	slices.Sort(lines)
	require.Equal(t, k.kind.want(commitInput), lines)
	k.truth = setAt(t, k.store.direct, "data", k.prefix)
	return k.requests()
}

// submit submits the next job, into a place of its own.
func (k *kills) submit(t *testing.T, s *strike) string {
	t.Helper()
	k.jobs++
	k.mu.Lock()
	k.prefix, k.begun, k.seen, k.names, k.strike = fmt.Sprintf("out/%d/", k.jobs), false, map[string]int{}, nil, s
	k.mu.Unlock()
	if k.kind.overwrite {
		oldSet.put(t, k.store.direct, "data", k.prefix, "old")
	}
	return k.c.submit(append(k.kind.args, "--input", "s3://data/in", "--output", "s3://data/"+k.prefix)...)
}

// struck runs a job whose commit is struck, and checks that its output is as if nothing had been.
func (k *kills) struck(t *testing.T, s *strike) {
	t.Helper()
	if k.killed == 4 { // dev waits longer after each early end: a new one is faster
		k.c.stop()
		k.startCluster()
	}
	master := k.c.node("MASTER", 0)
	r := startReader(k.store.direct, "data", fmt.Sprintf("out/%d/", k.jobs+1), oldSet, k.truth)
	defer r.stop()
	id := k.submit(t, s)
	select {
	case <-s.reached:
	case <-time.After(patience):
		t.Fatalf("%s never came; there were %v; the job: %v", s.point, k.requests(), k.c.json("job", "show", id))
	}
	if k.victim == "master" {
		k.c.kill(master)
		k.killed++
		waitFor(t, "the master is gone", func() (bool, string) { return !alive(master.num("pid")), "" })
		close(s.release)
	} else {
		if s.when == "during" {
			time.Sleep(time.Duration(rand.Int63n(int64(3 * time.Millisecond)))) // anywhere in its work
		}
		k.store.kill()
		close(s.release)
		k.store.start()
	}
	if s.when == "late" && s.point == "Delete _SUCCESS" {
		// Later than its follower's Put it would take away what that has put: S3 has no delete
		// that asks first.
		close(s.land)
	}
	job := k.c.waitJob(id)
	require.Equal(t, "COMPLETED", job.str("state"), "struck %s %s: %v", s.when, s.point, job)
	require.Zero(t, job.num("attempts", "failed"), "struck %s %s: %v", s.when, s.point, job)
	k.check(t, id, s)
	if s.when == "late" {
		if s.point != "Delete _SUCCESS" {
			close(s.land)
		}
		<-s.landed
		k.check(t, id, s)
	}
	r.end(t)
	k.whole, k.changed, k.absent = k.whole+r.whole, k.changed+r.changed, k.absent+r.absent
}

// check compares what lies at the output with the truth, unfinished uploads and all.
func (k *kills) check(t *testing.T, id string, s *strike) {
	t.Helper()
	m, _ := readSet(t, k.store.direct, "data", k.prefix)
	require.Equal(t, id, m.Job)
	require.True(t, setAt(t, k.store.direct, "data", k.prefix).equal(k.truth), "struck %s %s: another set", s.when, s.point)
}

func alive(pid int64) bool {
	_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	return err == nil
}

func (k *kills) requests() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.names
}

// fault is asked about every request of the cluster. A commit begins with the first that only
// the leader makes; attempts send parts and read input, and no more.
func (k *kills) fault(r faultproxy.Request) faultproxy.Fault {
	k.mu.Lock()
	defer k.mu.Unlock()
	place := r.Key + r.Prefix
	if r.Bucket != "data" || r.Op != faultproxy.DeleteObjects && (k.prefix == "" || !strings.HasPrefix(place, k.prefix)) {
		return faultproxy.Fault{}
	}
	switch r.Op {
	case faultproxy.ListParts, faultproxy.CompleteUpload, faultproxy.Delete, faultproxy.DeleteObjects:
		k.begun = true
	}
	if !k.begun {
		return faultproxy.Fault{}
	}
	name := strings.TrimSpace(string(r.Op) + " " + strings.TrimPrefix(place, k.prefix))
	if k.seen[name]++; k.seen[name] > 1 {
		name += fmt.Sprintf(" (%d)", k.seen[name])
	}
	k.names = append(k.names, name)
	if s := k.strike; s != nil && s.point == name {
		k.strike = nil
		return s.fault()
	}
	return faultproxy.Fault{}
}
