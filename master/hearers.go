package master

import (
	"millrace/master/session"
	"millrace/master/state"
	"millrace/pkg/api"
)

// hearers hear of the workers' sessions: both who is there, and each its own messages. Of free nodes of the pool the fleet alone hears.
type hearers struct {
	view                func() *state.View
	blocks, jobs, fleet session.Handler
}

func (h hearers) Up(node string, hello *api.WorkerHello) {
	if n, ok := h.view().Node(node); !ok || n.Role != state.RolePool {
		h.blocks.Up(node, hello)
		h.jobs.Up(node, hello)
	}
	h.fleet.Up(node, hello)
}

func (h hearers) Down(node, reason string) {
	h.blocks.Down(node, reason)
	h.jobs.Down(node, reason)
	h.fleet.Down(node, reason)
}

func (h hearers) Message(node string, m *api.WorkerMessage) {
	switch {
	case m.GetBlocks() != nil:
		h.blocks.Message(node, m)
	case m.GetBootstrap() != nil || m.GetLeave() != nil:
		h.fleet.Message(node, m)
	default:
		h.jobs.Message(node, m)
	}
}
