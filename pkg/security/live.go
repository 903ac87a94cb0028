package security

import (
	"context"
	"crypto/tls"
	"net"
	"sync/atomic"
)

// Live is a credential that is replaced while it is in use: connections that are made later have the new one, those that
// are there go on. It may be used by many goroutines.
type Live struct{ now atomic.Pointer[Credential] }

// NewLive takes up a credential that is whole.
func NewLive(c Credential) (*Live, error) {
	l := &Live{}
	return l, l.Replace(c)
}

// Replace takes up another credential, or says what is wrong with it and keeps the one it has.
func (l *Live) Replace(c Credential) error {
	if _, _, err := c.load(); err != nil {
		return err
	}
	l.now.Store(&c)
	return nil
}

// Credential is the present one.
func (l *Live) Credential() Credential { return *l.now.Load() }

// ServerTLS is Credential.ServerTLS whose every handshake is with the present credential. change, if any, adapts each configuration.
func (l *Live) ServerTLS(require bool, change func(*tls.Config)) (*tls.Config, error) {
	type made struct {
		of     *Credential
		config *tls.Config
	}
	var latest atomic.Pointer[made]
	present := func() (*tls.Config, error) {
		of := l.now.Load()
		if m := latest.Load(); m != nil && m.of == of {
			return m.config, nil
		}
		config, err := of.ServerTLS(require)
		if err != nil {
			return nil, err
		}
		if change != nil {
			change(config)
		}
		latest.Store(&made{of, config})
		return config, nil
	}
	first, err := present()
	if err != nil {
		return nil, err
	}
	outer := first.Clone()
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return present() }
	return outer, nil
}

// Dialer makes TLS connections with the present credential to servers of a name, over dial; nil: net.Dialer's. Protocols are
// those offered by ALPN.
func (l *Live) Dialer(serverName string, dial func(ctx context.Context, network, address string) (net.Conn, error), protocols ...string) func(ctx context.Context, network, address string) (net.Conn, error) {
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		config, err := l.Credential().ClientTLS(serverName)
		if err != nil {
			return nil, err
		}
		config.NextProtos = protocols
		raw, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		conn := tls.Client(raw, config)
		if err := conn.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, err
		}
		return conn, nil
	}
}
