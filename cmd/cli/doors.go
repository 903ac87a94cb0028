package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"millrace/pkg/membership"
)

// doors listen where a node will, so that masters can try them: TCP is taken and closed, UDP is sent back. What the machine itself sends by UDP
// goes out by the same door, as a node's gossip does: a firewall that lets answers through to that port is enough.
type doors struct {
	tcp  []net.Listener
	udp  net.PacketConn
	done sync.WaitGroup

	mu      sync.Mutex
	waiting map[string]*knocked // by what was sent
}

// knocked is a knock that was sent. It may come back several times, and is never sent back in turn: that would go on for ever.
type knocked struct {
	back chan struct{} // closed when it is back
	once sync.Once
}

// openDoors listens at a node's ports; by UDP at that address of the machine, so that answers come from there; the zero one means any.
func openDoors(p nodePorts, host netip.Addr) (_ *doors, err error) {
	d := &doors{waiting: map[string]*knocked{}}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	for _, address := range []string{p.api, p.raft, p.gossip} {
		if address == "" {
			continue
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			return nil, doorFault(address, "tcp", err)
		}
		d.tcp = append(d.tcp, l)
	}
	gossip := p.gossip
	if host.IsValid() {
		gossip = net.JoinHostPort(host.String(), gossip[strings.LastIndexByte(gossip, ':')+1:])
	}
	if d.udp, err = net.ListenPacket("udp", gossip); err != nil {
		return nil, doorFault(gossip, "udp", err)
	}
	for _, l := range d.tcp {
		d.done.Go(func() { takeAll(l) })
	}
	d.done.Go(d.sendBack)
	return d, nil
}

func takeAll(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		conn.Close()
	}
}

func (d *doors) sendBack() {
	buf := make([]byte, 256)
	for {
		n, from, err := d.udp.ReadFrom(buf)
		if err != nil {
			return
		}
		d.mu.Lock()
		own := d.waiting[string(buf[:n])]
		d.mu.Unlock()
		if own != nil {
			own.once.Do(func() { close(own.back) })
		} else {
			_, _ = d.udp.WriteTo(buf[:n], from) // it is asked for again
		}
	}
}

// knock sends a knock to a member's gossip, several times, as datagrams get lost, until it is back.
func (d *doors) knock(ctx context.Context, address string, knock []byte) error {
	to, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return err
	}
	k := &knocked{back: make(chan struct{})}
	d.mu.Lock()
	d.waiting[string(knock)] = k
	d.mu.Unlock()
	const tries = 4
	for range tries {
		if _, sendErr := d.udp.WriteTo(knock, to); sendErr != nil {
			err = sendErr
		}
		select {
		case <-k.back:
			return nil
		case <-time.After(outWithin / tries):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err == nil {
		err = membership.ErrNoEcho
	}
	return err
}

func doorFault(address, network string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		line := fmt.Sprintf("port %s/%s of this machine is in use by another process", address[strings.LastIndexByte(address, ':')+1:], network)
		if who := listener(address); who != "" {
			line += " (" + who + ")"
		}
		return usagef("end what has the port, or choose others: --listen, --gossip-listen", "%s", line)
	}
	return usagef("choose another port: --listen HOST:PORT", "listen on %s/%s: %s", address, network, err)
}

func (d *doors) close() {
	for _, l := range d.tcp {
		l.Close()
	}
	if d.udp != nil {
		d.udp.Close()
	}
	d.done.Wait()
}
