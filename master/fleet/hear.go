package fleet

import (
	"cmp"
	"context"
	"time"

	"go.uber.org/zap"

	"millrace/master/session"
	"millrace/master/state"
	"millrace/pkg/api"
)

// heard is something that a node has said of itself.
type heard struct {
	node   string
	digest string // of the bootstrap actions that it speaks of
	state  string // DONE, FAILED
	reason string
}

// Up, Down and Message make the Fleet a session.Handler.
func (f *Fleet) Up(node string, hello *api.WorkerHello) {
	f.born(node, session.ProcessOf(hello.Incarnation))
	if hello.Bootstrapped != "" { // in case its report went to a leader that was about to end
		f.hear(heard{node, hello.Bootstrapped, state.BootstrapDone, ""})
	}
	f.note(f.came, node)
	f.Poke()
}

// born takes note of a node's process. What another one said before it, that it is about to end, has come true: it is not this one's word.
func (f *Fleet) born(node, process string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.leave[node].Process != process {
		delete(f.leave, node)
	}
	f.lives[node] = process
}

// Down has the fleet look who is there.
func (f *Fleet) Down(node, reason string) { f.Poke() }

// Message hears of bootstrap actions, and of nodes that are to go for good.
func (f *Fleet) Message(node string, m *api.WorkerMessage) {
	switch v := m.Message.(type) {
	case *api.WorkerMessage_Bootstrap:
		if s := v.Bootstrap.State; s == state.BootstrapDone || s == state.BootstrapFailed {
			f.hear(heard{node, v.Bootstrap.Digest, s, v.Bootstrap.Reason})
		}
	case *api.WorkerMessage_Leave:
		f.mu.Lock()
		f.leave[node] = Farewell{Grace: time.Duration(max(0, v.Leave.GraceMs)) * time.Millisecond, Process: f.lives[node]}
		f.mu.Unlock()
		f.Poke()
	}
}

func (f *Fleet) hear(h heard) {
	f.mu.Lock()
	f.heard = append(f.heard, h)
	f.mu.Unlock()
	f.Poke()
}

// again keeps something that was heard for the next round.
func (f *Fleet) again(h heard) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard = append(f.heard, h)
}

// takeHeard logs what nodes have said of their bootstrap actions, for the clusters that they are of.
func (f *Fleet) takeHeard(ctx context.Context) {
	f.mu.Lock()
	all := f.heard
	f.heard = nil
	f.mu.Unlock()
	v := f.cfg.View()
	for _, h := range all {
		n, ok := v.Node(h.node)
		if !ok || n.Bootstrap != "" || n.Cluster == "" || n.State != state.NodeAdmitted {
			continue
		}
		c, ok := v.Cluster(n.Cluster)
		if !ok || len(c.Bootstrap) == 0 || f.cfg.Digest(c) != h.digest {
			continue
		}
		if _, err := f.cfg.Apply(ctx, state.NoteBootstrap{ID: n.ID, Cluster: c.ID, State: h.state, Failure: h.reason}); err != nil {
			f.trouble("the end of bootstrap actions is not logged", err)
			f.again(h) // the node says it once in a session, which may last
			continue
		}
		f.cfg.Jobs.NodeChanged(n.ID)
		f.log.Info("bootstrap actions ended", zap.String("node", n.ID), zap.String("state", h.state), zap.String("reason", h.reason))
		if h.state == state.BootstrapFailed {
			e := state.Event{At: f.cfg.Now().UTC(), Kind: "BOOTSTRAP", Subject: n.ID, Message: "bootstrap actions failed on " + called(n) + ": " + h.reason}
			if _, err := f.cfg.Apply(ctx, state.AddEvents{Cluster: c.ID, Events: []state.Event{e}}); err != nil {
				f.trouble("events are not kept", err)
			}
		}
	}
}

// farewells finds the nodes that are to go for good: as they say themselves, or as they said to a leader before this one. Those that run as another
// process by now, which has said no such thing, are back.
func (f *Fleet) farewells(w *World) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w.Farewells, w.Back = map[string]Farewell{}, map[string]bool{}
	for _, n := range w.Nodes {
		if n.State != state.NodeAdmitted {
			continue
		}
		runs := cmp.Or(w.Processes[n.ID], f.lives[n.ID])
		switch l, said := f.leave[n.ID]; {
		case said && l.Process == runs:
			w.Farewells[n.ID] = l
		case n.Bye == "":
		case runs == "" || runs == n.Bye:
			w.Farewells[n.ID] = Farewell{Process: n.Bye}
		default:
			w.Back[n.ID] = true
		}
	}
}

// forgetNodes drops what was kept of nodes that are gone, whoever removed them.
func (f *Fleet) forgetNodes() {
	f.mu.Lock()
	defer f.mu.Unlock()
	there, v := map[string]bool{}, f.cfg.View() // not an older one: what is kept by now is of nodes that it has
	for _, n := range v.Nodes("") {
		there[n.ID] = n.State == state.NodeAdmitted
	}
	only(f.leave, there)
	only(f.lives, there)
	only(f.placed, there)
	only(f.came, there)
}

// note keeps when something happened to a node.
func (f *Fleet) note(when map[string]time.Time, node string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	when[node] = f.cfg.Now()
}

// Arriving says whether a node without a session was given its place a moment ago, and has not had one there.
func (f *Fleet) Arriving(n *state.Node) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	given := later(f.placed[n.ID], n.JoinedAt)
	return n.State == state.NodeAdmitted && f.came[n.ID].Before(given) && f.cfg.Now().Sub(given) < arrivesWithin
}
