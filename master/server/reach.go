package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"millrace/master/session"
	"millrace/master/state"
	"millrace/pkg/api"
)

const (
	// probeWithin bounds the wait for the nodes. Each is told to answer a little earlier.
	probeWithin = 5 * time.Second
	probeMargin = 500 * time.Millisecond
	// reachedFor is how long a node that reached a store is believed to reach it still.
	reachedFor = 5 * time.Minute
	// reachedKept bounds what is remembered: beyond, all of it is forgotten.
	reachedKept = 10_000
	// nodesNamed bounds how many nodes one line names.
	nodesNamed = 5
)

// reach knows which nodes have reached which stores of late. Only what went well is
// remembered: a node that did not reach a store is asked again by the next submit.
type reach struct {
	now func() time.Time

	mu    sync.Mutex
	known map[reached]time.Time // when
}

// reached is one process of a node, and a store with its key, hashed.
type reached struct {
	node, incarnation string
	store             [sha256.Size]byte
}

// unreached is a node that cannot use a store, and why.
type unreached struct{ node, why string }

// ask finds out which of a cluster's connected nodes cannot reach a store, all at once and within
// probeWithin. A node that goes while it is asked is none of them: its attempts go elsewhere.
func (r *reach) ask(ctx context.Context, sessions Sessions, cluster string, store *api.ObjectStore, bucket string) []unreached {
	settings, err := proto.MarshalOptions{Deterministic: true}.Marshal(store)
	if err != nil {
		return nil // then the store could not have been opened either
	}
	sum := sha256.Sum256(settings)
	ctx, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		found []unreached
	)
	for _, n := range sessions.Nodes() {
		what := reached{n.ID, n.Incarnation, sum}
		if n.Cluster != cluster || !n.Connected || r.fresh(what) {
			continue
		}
		wg.Go(func() {
			why, err := sessions.Probe(ctx, n.ID, &api.StoreProbe{Store: store, Bucket: bucket, WithinMs: (probeWithin - probeMargin).Milliseconds()})
			switch {
			case errors.Is(err, context.DeadlineExceeded):
				why = fmt.Sprintf("no answer within %s", probeWithin)
			case err != nil:
				return
			}
			if why == "" {
				r.note(what)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			found = append(found, unreached{n.ID, why})
		})
	}
	wg.Wait()
	return found
}

func (r *reach) fresh(what reached) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.known[what]
	return ok && r.now().Sub(at) < reachedFor
}

func (r *reach) note(what reached) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil || len(r.known) >= reachedKept {
		r.known = map[reached]time.Time{}
	}
	r.known[what] = r.now()
}

// unreached notes the nodes that cannot use the store, of so many. Where the masters cannot
// either, that says it all.
func (f *findings) unreached(v *state.View, endpoint string, nodes []session.Node, cluster string, found []unreached) {
	if len(found) == 0 || slices.ContainsFunc(f.troubles, func(m mistake) bool { return m.next == unreachableNext }) {
		return
	}
	asked := 0
	for _, n := range nodes {
		if n.Cluster == cluster && n.Connected {
			asked++
		}
	}
	names := map[string][]string{} // by cause
	for _, u := range found {
		name := u.node
		if n, ok := v.Node(u.node); ok && n.Name != "" {
			name = n.Name
		}
		names[u.why] = append(names[u.why], name)
	}
	var causes []string
	for why, who := range names {
		slices.Sort(who)
		if more := len(who) - nodesNamed; more > 0 {
			who = append(who[:nodesNamed:nodesNamed], fmt.Sprintf("%d more", more))
		}
		causes = append(causes, strings.Join(who, ", ")+": "+why)
	}
	slices.Sort(causes)
	f.troubles = append(f.troubles, mistake{
		fmt.Sprintf("%d of %d nodes cannot reach %s (%s)", len(found), max(asked, len(found)), endpoint, strings.Join(causes, "; ")),
		"name the store by an address that every node reaches (localhost is another machine on each), or mend those nodes: millrace node list"})
}
