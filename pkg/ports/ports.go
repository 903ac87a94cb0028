// Package ports chooses ports of loopback for processes that will listen there later, and again each time they are started anew. Who
// chooses in the same way, on the same machine, at the same time, gets others.
package ports

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strconv"
)

// Reserved are the ports that one chooser holds. The zero value holds none; it is not safe for concurrent use.
type Reserved struct{ claims map[int]io.Closer }

// Take reserves some port from low up to below high that is free for TCP and UDP. A range below 32768 has none that systems give to
// outgoing connections: those come and go.
func (r *Reserved) Take(low, high int) (int, error) {
	for range 1000 {
		port := low + rand.IntN(high-low)
		if _, given := r.claims[port]; !given && r.Reserve(port) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port between %d and %d on 127.0.0.1", low, high)
}

// Reserve says whether a port is free, for TCP and UDP, and reserved for nobody else. From then on it is reserved here.
func (r *Reserved) Reserve(port int) bool {
	if port <= 0 {
		return false
	}
	claimed, ok := r.claims[port]
	if !ok {
		if claimed, ok = claim(port); !ok {
			return false
		}
	}
	if !isFree(Address(port)) {
		delete(r.claims, port)
		claimed.Close()
		return false
	}
	if r.claims == nil {
		r.claims = map[int]io.Closer{}
	}
	r.claims[port] = claimed
	return true
}

// Close gives all of them back. The end of the process does, too.
func (r *Reserved) Close() {
	for _, c := range r.claims {
		c.Close()
	}
	r.claims = nil
}

// Address is that of a port.
func Address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// claim takes what only one process can have: a socket whose name is not in the file system, and goes with the process and the network
// namespace. Only Linux has these; elsewhere nothing is claimed.
func claim(port int) (io.Closer, bool) {
	if runtime.GOOS != "linux" {
		return io.NopCloser(nil), true
	}
	l, err := net.Listen("unix", fmt.Sprintf("@millrace-port-%d", port))
	return l, err == nil
}

func isFree(address string) bool {
	t, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	defer t.Close()
	u, err := net.ListenPacket("udp", address)
	if err != nil {
		return false
	}
	u.Close()
	return true
}
