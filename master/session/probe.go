package session

import (
	"context"
	"errors"

	"millrace/pkg/api"
)

// ErrNotConnected is Probe's answer for a worker that has no stream now.
var ErrNotConnected = errors.New("worker is not connected")

// probes are questions to workers that wait for their answers.
type probes struct {
	last    uint64
	waiting map[uint64]probe
}

type probe struct {
	node   string
	answer chan string // capacity 1
}

// Probe asks a worker whether it reaches a store and waits for its answer: why it does not, "" if
// it does. The id in p is set here. A worker that goes meanwhile is ErrNotConnected.
func (r *Registry) Probe(ctx context.Context, node string, p *api.StoreProbe) (reason string, err error) {
	waiting := probe{node: node, answer: make(chan string, 1)}
	r.mu.Lock()
	r.probes.last++
	id := r.probes.last
	r.probes.waiting[id] = waiting
	var over <-chan struct{}
	if e := r.nodes[node]; e != nil && e.conn != nil {
		over = e.conn.over
	}
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.probes.waiting, id)
		r.mu.Unlock()
	}()
	p.Id = id
	if !r.Send(node, &api.MasterMessage{Message: &api.MasterMessage_Probe{Probe: p}}) {
		return "", ErrNotConnected
	}
	select {
	case reason := <-waiting.answer:
		return reason, nil
	case <-r.done:
		return "", ErrClosed
	case <-over:
		return "", ErrNotConnected
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// probed hands an answer to whoever asked. Registry.mu is held.
func (r *Registry) probed(node string, m *api.StoreProbed) {
	if p, ok := r.probes.waiting[m.Id]; ok && p.node == node {
		select {
		case p.answer <- m.Error:
		default: // answered already
		}
	}
}
