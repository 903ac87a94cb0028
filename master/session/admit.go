package session

import (
	"fmt"
	"net/url"

	"millrace/master/state"
	"millrace/pkg/api"
)

// admit decides whether this worker may have a session with this leader.
func (r *Registry) admit(nodeID string, hello *api.WorkerHello) (*state.Node, error) {
	if hello.NodeId != nodeID {
		return nil, fmt.Errorf("%s says it is %s: %w", nodeID, hello.NodeId, ErrProtocol)
	}
	if !ownPort(hello.Address) {
		return nil, fmt.Errorf("%s says that it answers at %q, not at https://host:port: %w", nodeID, hello.Address, ErrProtocol)
	}
	if len(hello.Incarnation) > longestName {
		return nil, fmt.Errorf("%s names its process with %d bytes: %w", nodeID, len(hello.Incarnation), ErrProtocol)
	}
	if hello.HighestTerm > r.cfg.Term {
		return nil, fmt.Errorf("%w: term %d, this one's is %d", ErrStaleTerm, hello.HighestTerm, r.cfg.Term)
	}
	return r.admitted(nodeID)
}

// longestName bounds the name of a node's process, in bytes: it goes into the log when the node takes its leave.
const longestName = 128

// ownPort says whether an address is that of a port under TLS, where only the node itself can answer, and no more than that: masters and
// nodes go where a node says that it is, and a path, or plain HTTP, would take them to servers of others.
func ownPort(address string) bool {
	u, err := url.Parse(address)
	return err == nil && u.Host != "" && address == "https://"+u.Host
}

// admitted looks the node up in the log's state.
func (r *Registry) admitted(id string) (*state.Node, error) {
	n, ok := r.cfg.View().Node(id)
	switch {
	case !ok:
		return nil, fmt.Errorf("session of %s: %w", id, ErrUnknownNode)
	case n.State == state.NodeTerminated:
		return nil, fmt.Errorf("session of %s: %w", id, ErrTerminated)
	case n.Role != state.RoleCore && n.Role != state.RoleTask && n.Role != state.RolePool:
		return nil, fmt.Errorf("session of %s, which is a %s: %w", id, n.Role, ErrUnknownNode)
	}
	return n, nil
}
