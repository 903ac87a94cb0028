package wire

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"strings"
	"sync"
	"time"
)

const protocol = "millrace-block"

const maxReason = 512 // bytes of a refusal's text

// Conn is a pipeline's connection between two neighbours: packets go down, acknowledgements up. One goroutine may
// read while others write.
type Conn struct {
	net  net.Conn
	in   io.Reader // what of net was read already comes first
	body io.Closer

	mu   sync.Mutex // one frame at a time goes out
	ping *Packet
	last time.Time // when something went out
}

// Dial opens a pipeline at a node, within the timing's Dial.
func Dial(ctx context.Context, client *http.Client, address string, s Setup, t Timing) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, t.Dial)
	defer cancel()
	header, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("open a pipeline: %w", err)
	}
	c := &Conn{ping: &Packet{Ping: true, buf: make([]byte, dataAt)}}
	// The client gives no deadlines on what it connected: take them from the connection itself.
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { c.net = i.Conn }})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(address, "/")+PipelinePath, nil)
	if err != nil {
		return nil, fmt.Errorf("open a pipeline: %w", err)
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", protocol)
	req.Header.Set(HeaderSetup, string(header))
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("open a pipeline: %w", err)
	}
	both, ok := resp.Body.(io.ReadWriteCloser)
	if resp.StatusCode != http.StatusSwitchingProtocols || !ok {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxReason))
		resp.Body.Close()
		return nil, fmt.Errorf("open a pipeline at %s: %s: %s", address, resp.Status, strings.TrimSpace(string(text)))
	}
	c.in, c.body = bufio.NewReaderSize(both, ackHeader+maxText), both
	return c, nil
}

// Accept takes a request for a pipeline. If it cannot, it has answered.
func Accept(w http.ResponseWriter, r *http.Request) (*Conn, Setup, error) {
	refuse := func(status int, err error) (*Conn, Setup, error) {
		http.Error(w, err.Error(), status)
		return nil, Setup{}, err
	}
	if !strings.EqualFold(r.Header.Get("Upgrade"), protocol) {
		w.Header().Set("Upgrade", protocol)
		return refuse(http.StatusUpgradeRequired, fmt.Errorf("%w: Upgrade: %s is missing", ErrProtocol, protocol))
	}
	s, err := ParseSetup(r.Header.Get(HeaderSetup))
	if err != nil {
		return refuse(http.StatusBadRequest, err)
	}
	nc, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return refuse(http.StatusHTTPVersionNotSupported, fmt.Errorf("%w: %w", ErrProtocol, err))
	}
	c := &Conn{net: nc, in: buffered.Reader, body: nc}
	_, err = fmt.Fprintf(buffered, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", protocol)
	if err = errors.Join(err, nc.SetDeadline(time.Time{}), buffered.Flush()); err != nil {
		nc.Close()
		return nil, Setup{}, err
	}
	return c, s, nil
}

// Send sends a packet. It may wait for as long as the far end takes none, at the most within.
func (c *Conn) Send(p *Packet, within time.Duration) error { return c.write(p, within) }

// Acknowledge sends an acknowledgement.
func (c *Conn) Acknowledge(a Ack, within time.Duration) error { return c.write(a, within) }

func (c *Conn) write(f io.WriterTo, within time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = time.Now()
	if err := c.net.SetWriteDeadline(c.last.Add(within)); err != nil {
		return err
	}
	_, err := f.WriteTo(c.net)
	return err
}

// Receive reads the next packet that is no ping into p, and waits for each frame at the most so long.
func (c *Conn) Receive(p *Packet, within time.Duration) error {
	for {
		if err := c.net.SetReadDeadline(time.Now().Add(within)); err != nil {
			return err
		}
		if err := ReadPacket(c.in, p); err != nil || !p.Ping {
			return err
		}
	}
}

// Ack reads the next acknowledgement.
func (c *Conn) Ack(within time.Duration) (Ack, error) {
	if err := c.net.SetReadDeadline(time.Now().Add(within)); err != nil {
		return Ack{}, err
	}
	return ReadAck(c.in)
}

// Follow reads what a member says until it says Final or Failed, or is silent for too long: that is a fault on the
// way to it. Meanwhile it keeps up the signs of life. In the end the connection is closed.
func (c *Conn) Follow(t Timing, heard func(Ack)) {
	var pings sync.WaitGroup
	defer pings.Wait()
	defer c.Close()
	stop := make(chan struct{})
	defer close(stop)
	pings.Go(func() { c.signs(t, stop) })
	for {
		a, err := c.Ack(t.Stall)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			err = fmt.Errorf("nothing heard for %v", t.Stall)
			fallthrough
		case err != nil:
			a = Ack{State: Failed, Holder: -1, Fault: Way(0, Unreachable, err)}
		}
		heard(a)
		if a.State >= Final {
			return
		}
	}
}

func (c *Conn) signs(t Timing, stop <-chan struct{}) {
	tick := time.NewTicker(t.Beat)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			if c.beat(t) != nil {
				return // the reader will see
			}
		}
	}
}

// beat sends a ping if nothing has been sent for a while.
func (c *Conn) beat(t Timing) error {
	if !c.mu.TryLock() {
		return nil // a packet is just going out
	}
	quiet := time.Since(c.last) >= t.Beat
	c.mu.Unlock()
	if !quiet {
		return nil
	}
	return c.write(c.ping, t.Slow)
}

// Linger reads what still comes and throws it away until the far end closes, at the most so long: closing with
// unread input would take from it what was sent last.
func (c *Conn) Linger(within time.Duration) {
	if c.net.SetReadDeadline(time.Now().Add(within)) == nil {
		_, _ = io.Copy(io.Discard, c.in)
	}
}

// Close ends all calls. It may be called more than once, by anybody.
func (c *Conn) Close() {
	c.body.Close()
}
