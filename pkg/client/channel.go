package client

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	dialTimeout = 3 * time.Second
	// A dead peer is noticed after pingAfter+pingTimeout, whatever TCP thinks.
	pingAfter   = 2 * time.Second
	pingTimeout = 3 * time.Second
)

// dialError says that none of the servers could be reached, and why each could not.
type dialError struct {
	servers []string
	errs    []error
}

func (e *dialError) Error() string {
	lines := make([]string, len(e.errs))
	for i, err := range e.errs {
		lines[i] = fmt.Sprintf("https://%s: %v", e.servers[i], err)
	}
	return strings.Join(lines, "; ")
}

func (e *dialError) Unwrap() []error { return e.errs }

// channel is one pooled HTTP/2 connection to whichever server answers. All servers
// carry the same name in their certificates, so failing over is a matter of dialling:
// requests above know nothing of it.
type channel struct {
	tls *tls.Config

	mu         sync.Mutex
	servers    []string // host:port; the first is dialled first
	transport  *http.Transport
	generation uint64 // of transport
	closed     bool
}

func newChannel(config *tls.Config, servers []string) *channel {
	config = config.Clone()
	config.NextProtos = []string{"h2", "http/1.1"}
	c := &channel{tls: config, servers: append([]string(nil), servers...)}
	c.transport = c.newTransport()
	return c
}

func (c *channel) newTransport() *http.Transport {
	return &http.Transport{
		DialTLSContext:        c.dial,
		ForceAttemptHTTP2:     true,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   2,
		ExpectContinueTimeout: time.Second,
		HTTP2:                 &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}
}

// http is a client over the channel. It follows no redirects: masters send none.
func (c *channel) http() *http.Client {
	return &http.Client{
		Transport:     c,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// RoundTrip sends over the present transport.
func (c *channel) RoundTrip(req *http.Request) (*http.Response, error) {
	c.mu.Lock()
	transport, closed := c.transport, c.closed
	c.mu.Unlock()
	if closed {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, ErrClosed
	}
	return transport.RoundTrip(req)
}

// dial tries the servers in order, TLS included, and remembers the one that answered.
func (c *channel) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	c.mu.Lock()
	servers := c.servers // never changed in place
	c.mu.Unlock()
	failed := &dialError{}
	for i, server := range servers {
		conn, err := c.dialOne(ctx, network, server)
		if err == nil {
			if i > 0 {
				c.prefer(server)
			}
			return conn, nil
		}
		failed.servers = append(failed.servers, server)
		failed.errs = append(failed.errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}

func (c *channel) dialOne(ctx context.Context, network, server string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	d := tls.Dialer{NetDialer: &net.Dialer{KeepAlive: 15 * time.Second}, Config: c.tls}
	return d.DialContext(ctx, network, server)
}

// prefer puts a server first.
func (c *channel) prefer(server string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.servers = withFirst(c.servers, server)
}

func withFirst(servers []string, first string) []string {
	out := []string{first}
	for _, s := range servers {
		if s != first {
			out = append(out, s)
		}
	}
	return out
}

// redirect sends further requests to a server, over a connection of its own.
func (c *channel) redirect(server string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.servers = withFirst(c.servers, server)
	c.renew()
}

// present names the transport that the next request will take.
func (c *channel) present() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.generation
}

// rotate gives up the transport of the given generation, whose server answered but could not help:
// the next request starts with the next server. Only the first to complain does so.
func (c *channel) rotate(generation uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.generation != generation || c.closed || len(c.servers) < 2 {
		return
	}
	c.servers = append(append([]string(nil), c.servers[1:]...), c.servers[0])
	c.renew()
}

// renew replaces the transport. Requests under way keep theirs, whose connection
// ends when it has been idle. Called with mu held.
func (c *channel) renew() {
	if c.closed {
		return
	}
	c.transport.CloseIdleConnections()
	c.transport = c.newTransport()
	c.generation++
}

func (c *channel) setServers(servers []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := c.servers[0]
	c.servers = append([]string(nil), servers...)
	for _, s := range servers {
		if s == first { // what works now stays first
			c.servers = withFirst(servers, first)
		}
	}
}

func (c *channel) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

func (c *channel) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.transport.CloseIdleConnections()
}
