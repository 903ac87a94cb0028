package master

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"millrace/pkg/connlimit"
	"millrace/pkg/security"
)

const (
	handshakeTimeout = 5 * time.Second
	handshakesAtOnce = 32
)

// nopFSM is for reading a configuration from the log without applying anything.
type nopFSM struct{}

func (nopFSM) Apply(*raft.Log) any                 { return nil }
func (nopFSM) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.New("nothing to snapshot") }
func (nopFSM) Restore(r io.ReadCloser) error       { return r.Close() }

// layer is Raft's raft.StreamLayer: mutual TLS between masters, nobody else.
type layer struct {
	listener  net.Listener
	advertise string // host:port
	server    *tls.Config
	dial      dialer // TLS included
	log       *zap.Logger
	conns     chan net.Conn
	done      chan struct{}
	life      context.Context // ends when done is closed
	cancel    context.CancelFunc
	once      sync.Once
	wait      sync.WaitGroup
}

// dialer makes the connections to other masters that Raft's traffic goes over: a net.Dialer's DialContext.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

func openLayer(ctx context.Context, address, advertise string, dial dialer, c *security.Live, log *zap.Logger) (*layer, error) {
	server, err := c.ServerTLS(true, func(config *tls.Config) {
		config.NextProtos = nil
		config.VerifyConnection = mastersOnly
	})
	if err != nil {
		return nil, fmt.Errorf("raft port: %w", err)
	}
	listener, err := listen(ctx, "raft", address)
	if err != nil {
		return nil, err
	}
	host := ""
	if advertise != "" {
		host = hostOf(advertise)
	}
	reach, err := reachable(host, listener.Addr())
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	l := &layer{
		listener: connlimit.New(listener, connlimit.Total, connlimit.PerHost), advertise: reach, server: server, dial: c.Dialer(security.MasterName, dial), log: log,
		conns: make(chan net.Conn), done: make(chan struct{}),
	}
	l.life, l.cancel = context.WithCancel(context.Background())
	l.wait.Go(l.accept)
	return l, nil
}

func mastersOnly(s tls.ConnectionState) error {
	if id, ok := security.PeerIdentity(&s); !ok || id.Role != security.RoleMaster {
		return errors.New("the raft port is for masters only")
	}
	return nil
}

// accept shakes hands beside the loop: a stranger that says nothing holds nobody up.
func (l *layer) accept() {
	limit := make(chan struct{}, handshakesAtOnce)
	for {
		raw, err := l.listener.Accept()
		if err != nil {
			select {
			case <-l.done:
				return
			case <-time.After(50 * time.Millisecond): // too many open files: it may get better
				l.log.Warn("raft port: accept failed", zap.Error(err))
				continue
			}
		}
		select {
		case limit <- struct{}{}:
		case <-l.done:
			raw.Close()
			return
		}
		l.wait.Go(func() {
			defer func() { <-limit }()
			l.shake(raw)
		})
	}
}

func (l *layer) shake(raw net.Conn) {
	conn := tls.Server(raw, l.server)
	ctx, cancel := context.WithTimeout(l.life, handshakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		l.log.Info("raft port: refused", zap.String("remote", raw.RemoteAddr().String()), zap.Error(err))
		raw.Close()
		return
	}
	select {
	case l.conns <- conn:
	case <-l.done:
		conn.Close()
	}
}

func (l *layer) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *layer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return l.dial(ctx, "tcp", string(address))
}

func (l *layer) Close() (err error) {
	l.once.Do(func() {
		close(l.done)
		l.cancel()
		err = l.listener.Close()
		l.wait.Wait()
	})
	return err
}

// Addr is what Raft tells others: the advertised address.
func (l *layer) Addr() net.Addr { return layerAddr(l.advertise) }

type layerAddr string

func (layerAddr) Network() string  { return "tcp" }
func (a layerAddr) String() string { return string(a) }
