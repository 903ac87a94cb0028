package worker

import (
	"net"
	"time"
)

// port is the node's listening socket. It is lent to one server after another, and closed by its owner alone.
type port struct{ *net.TCPListener }

// lend gives it to the next server.
func (p port) lend() net.Listener {
	_ = p.SetDeadline(time.Time{}) // a closed one is for Accept to notice
	return p
}

// Close has a server's Accept return, and leaves the socket as it is.
func (p port) Close() error { return p.SetDeadline(time.Unix(1, 0)) }
