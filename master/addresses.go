package master

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"millrace/pkg/objectstore"
)

// listen opens a TCP port, and says in plain words when it cannot.
func listen(ctx context.Context, what, address string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s port: %s is in use by another process: %w", what, address, syscall.EADDRINUSE)
	}
	return nil, fmt.Errorf("%s port: %w", what, err)
}

// advertised is the address under which others find a listener: https://host:port.
func advertised(advertise string, bound net.Addr) (string, error) {
	hostport, err := reachable(advertise, bound)
	if err != nil {
		return "", err
	}
	return "https://" + hostport, nil
}

// AddressOf is where others would find a master with these flags, https://host:port; "" if that is not known before it listens.
func AddressOf(listen, advertise string) string {
	at, err := net.ResolveTCPAddr("tcp", listen)
	if err != nil {
		return ""
	}
	address, err := advertised(advertise, at)
	if err != nil || strings.HasSuffix(address, ":0") {
		return ""
	}
	return address
}

// reachable makes host:port of what was bound: the advertised host, the bound one, or, if
// that is all of them, this machine's name.
func reachable(advertise string, bound net.Addr) (string, error) {
	host, port, err := net.SplitHostPort(bound.String())
	if err != nil {
		return "", fmt.Errorf("address %s: %w", bound, err)
	}
	if advertise != "" {
		if h, p, err := net.SplitHostPort(advertise); err == nil {
			host = h
			if p != "" && p != "0" {
				port = p
			}
		} else {
			host = advertise
		}
		return net.JoinHostPort(host, port), nil
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		name, err := os.Hostname()
		if err != nil {
			return "", fmt.Errorf("no address to advertise given, and no host name: %w", err)
		}
		host = name
	}
	return net.JoinHostPort(host, port), nil
}

func hostOf(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	return address
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// slashed is a place with the slash at its end that a prefix has.
func slashed(u objectstore.URL) objectstore.URL {
	if u.Key != "" && u.Key[len(u.Key)-1] != '/' {
		u.Key += "/"
	}
	return u
}
