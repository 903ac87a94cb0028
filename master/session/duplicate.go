package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"millrace/pkg/api"
)

// ErrDuplicate is for a second process that says it is a node of which one runs.
var ErrDuplicate = errors.New("another process runs as this node")

// alone makes sure that no other process has the node's session: each would have the other cut off, without end, and none of
// their attempts would come to anything. The one that is there has half a lease to be heard of, which is many heartbeats;
// one that is dead is silent, and the newcomer is its successor.
func (r *Registry) alone(ctx context.Context, nodeID string, hello *api.WorkerHello) error {
	r.mu.Lock()
	e := r.nodes[nodeID]
	if e == nil || ProcessOf(e.node.Incarnation) == ProcessOf(hello.Incarnation) {
		r.mu.Unlock()
		return nil
	}
	if e.copies[hello.Incarnation] { // it was refused before: it does not become the node because its stream broke
		defer r.mu.Unlock()
		return duplicate(nodeID, e.node)
	}
	if e.conn == nil {
		r.mu.Unlock()
		return nil
	}
	other, over, heard := e.node, e.conn.over, make(chan struct{})
	e.heard = append(e.heard, heard)
	r.mu.Unlock()

	patience := time.NewTimer(r.cfg.Lease / 2)
	defer patience.Stop()
	select {
	case <-heard:
		r.mu.Lock()
		defer r.mu.Unlock()
		if e.copies == nil {
			e.copies = map[string]bool{}
		}
		e.copies[hello.Incarnation] = true
		return duplicate(nodeID, other)
	case <-over:
	case <-patience.C:
	case <-r.done:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// ProcessOf is the process of an incarnation, which may have several lives: PROCESS.LIFE.
func ProcessOf(incarnation string) string {
	process, _, _ := strings.Cut(incarnation, ".")
	return process
}

func duplicate(nodeID string, other Node) error {
	return fmt.Errorf("%w (%s, at %s, pid %d): was its folder copied? Give every node a folder of its own, and a token to join with",
		ErrDuplicate, nodeID, other.Address, other.PID)
}

// wasHeard tells those who wait to hear of a node. Registry.mu is held.
func (e *entry) wasHeard() {
	for _, c := range e.heard {
		close(c)
	}
	e.heard = nil
}
