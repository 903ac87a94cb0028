// Package connlimit bounds how many connections a port holds, in all and from one host: nobody takes all that there are.
package connlimit

import (
	"net"
	"sync"
)

// What a node's port holds. A node speaks to another over a handful; nodes that share a host are counted together.
const (
	Total   = 16384
	PerHost = 1024
)

// Listener accepts as another does, and closes at once what is too much.
type Listener struct {
	net.Listener
	total, perHost int

	mu    sync.Mutex
	open  int
	hosts map[string]int
}

// New bounds a listener: to so many connections in all, and from one host.
func New(l net.Listener, total, perHost int) *Listener {
	return &Listener{Listener: l, total: total, perHost: perHost, hosts: map[string]int{}}
}

// Accept gives the next connection that is not too much.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		host, _, err := net.SplitHostPort(c.RemoteAddr().String())
		if err != nil {
			host = c.RemoteAddr().String()
		}
		if l.take(host) {
			return &conn{Conn: c, release: sync.OnceFunc(func() { l.give(host) })}, nil
		}
		c.Close()
	}
}

func (l *Listener) take(host string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.total || l.hosts[host] >= l.perHost {
		return false
	}
	l.open++
	l.hosts[host]++
	return true
}

func (l *Listener) give(host string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.hosts[host]--; l.hosts[host] == 0 {
		delete(l.hosts, host)
	}
}

type conn struct {
	net.Conn
	release func()
}

func (c *conn) Close() error {
	err := c.Conn.Close()
	c.release()
	return err
}
