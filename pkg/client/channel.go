package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"connectrpc.com/connect"
)

const (
	dialTimeout = 3 * time.Second
	// A dead peer is noticed after pingAfter+pingTimeout, whatever TCP thinks.
	pingAfter   = 2 * time.Second
	pingTimeout = 3 * time.Second
)

// dialError says that none of the servers could be reached, and why each could not.
type dialError struct {
	servers   []string
	errs      []error
	unreached bool // the channel has never reached any
}

func (e *dialError) Error() string {
	lines := make([]string, len(e.errs))
	for i, err := range e.errs {
		lines[i] = fmt.Sprintf("https://%s: %v", e.servers[i], err)
	}
	return strings.Join(lines, "; ")
}

func (e *dialError) Unwrap() []error { return e.errs }

// Unreached says whether an error is that no server could be reached, and none had been before by the same client: it has been
// repeated for as long as the client does, and whoever asks anew will hardly fare better.
func Unreached(err error) bool {
	var dial *dialError
	return errors.As(err, &dial) && dial.unreached
}

// refused says whether all servers refused the connection: their machines are up, and nothing listens there.
func refused(err error) bool {
	var dial *dialError
	return errors.As(err, &dial) && !slices.ContainsFunc(dial.errs, func(e error) bool { return !errors.Is(e, syscall.ECONNREFUSED) })
}

// channel is one pooled HTTP/2 connection to whichever server answers. All servers
// carry the same name in their certificates, so failing over is a matter of dialling:
// requests above know nothing of it.
type channel struct {
	trusts atomic.Pointer[string] // TrustHeader, as it came last

	mu         sync.Mutex
	tls        *tls.Config // replaced, never changed
	servers    []string    // host:port; the first is dialled first
	transport  *http.Transport
	generation uint64     // of transport
	reached    bool       // some server, at some time
	passedOver *dialError // the servers that failed when the present one was found; nil if none did
	closed     bool
}

func newChannel(config *tls.Config, servers []string) *channel {
	c := &channel{tls: forHTTP(config), servers: append([]string(nil), servers...)}
	c.transport = c.newTransport()
	return c
}

func forHTTP(config *tls.Config) *tls.Config {
	config = config.Clone()
	config.NextProtos = []string{"h2", "http/1.1"}
	return config
}

// show has further requests go over connections with another configuration.
func (c *channel) show(config *tls.Config) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tls = forHTTP(config)
	c.renew()
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
func (c *channel) http() connect.HTTPClient {
	return plainClient{&http.Client{
		Transport:     c,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// plainClient does not say in its errors which URL was asked for: its host stands for any master, and nobody has named it.
type plainClient struct{ http *http.Client }

func (c plainClient) Do(req *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(req)
	var asked *url.Error
	if errors.As(err, &asked) {
		err = plainError{asked}
	}
	return resp, err
}

type plainError struct{ asked *url.Error }

func (e plainError) Error() string { return e.asked.Err.Error() }
func (e plainError) Unwrap() error { return e.asked }

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
	resp, err := transport.RoundTrip(req)
	if err == nil {
		if trusts := resp.Header.Get(TrustHeader); trusts != "" {
			c.trusts.Store(&trusts)
		}
	}
	return resp, err
}

// dial tries the servers in order, TLS included, and remembers the one that answered.
func (c *channel) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	c.mu.Lock()
	servers, config := c.servers, c.tls // never changed in place
	failed := &dialError{unreached: !c.reached}
	c.mu.Unlock()
	for _, server := range servers {
		conn, err := dialOne(ctx, network, server, config)
		if err == nil {
			c.found(server, failed)
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

func dialOne(ctx context.Context, network, server string, config *tls.Config) (net.Conn, error) {
	return dialTLS(ctx, &net.Dialer{KeepAlive: 15 * time.Second}, network, server, config)
}

// ErrRaftPort is what answers at a master's port for other masters. It is no matter of time or trust: who names that port means another.
var ErrRaftPort = errors.New("this is the port for masters among themselves (Raft), not the HTTPS port of a master, which is 7400 unless it was set otherwise")

// dialTLS connects to a master's API. Its Raft port has the same certificate, and speaks no protocol that HTTP could be.
func dialTLS(ctx context.Context, dialer *net.Dialer, network, server string, config *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	d := tls.Dialer{NetDialer: dialer, Config: config}
	conn, err := d.DialContext(ctx, network, server)
	if err != nil {
		return nil, err
	}
	if conn.(*tls.Conn).ConnectionState().NegotiatedProtocol == "" {
		conn.Close()
		return nil, ErrRaftPort
	}
	return conn, nil
}

// found notes that a server was reached after others had failed, and puts it first.
func (c *channel) found(server string, others *dialError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reached, c.passedOver = true, nil
	if len(others.errs) > 0 {
		c.passedOver = others
		c.servers = withFirst(c.servers, server)
	}
}

// outvoted is a server's error, or what is wrong behind it: a server that knows no leader is itself cut off if most of the others
// were passed over because they and this client do not trust each other, and then it is their answer that counts.
func (c *channel) outvoted(err error) error {
	if connect.CodeOf(err) != connect.CodeUnavailable || !connect.IsWireError(err) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if o := c.passedOver; o != nil && 2*len(o.errs) > len(c.servers) && Untrusted(o) {
		return o
	}
	return err
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
