package cli

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// hostAddress is the address by which others will reach this machine: the one that was given (an address, a host name, or the name of an
// interface), else the one that this machine has on the way to a peer. local says whether it is one of the machine's own.
func hostAddress(given, peer string) (host netip.Addr, local bool, err error) {
	own, err := ownAddresses()
	if err != nil {
		return netip.Addr{}, false, err
	}
	if given == "" {
		host, err = sourceOf(peer)
	} else {
		host, err = namedAddress(given)
	}
	if err != nil {
		return netip.Addr{}, false, err
	}
	return host, slices.Contains(own, host), nil
}

// namedAddress turns what --advertise names into an address.
func namedAddress(given string) (netip.Addr, error) {
	if ip, err := netip.ParseAddr(given); err == nil {
		return ip.Unmap(), nil
	}
	if i, err := net.InterfaceByName(given); err == nil {
		addresses, err := i.Addrs()
		if err != nil {
			return netip.Addr{}, err
		}
		for _, a := range addresses {
			if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
				return p.Addr().Unmap(), nil
			}
		}
		return netip.Addr{}, fmt.Errorf("interface %s has no address", given)
	}
	ips, err := net.LookupHost(given)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%s is neither an address, nor an interface, nor a host name that is known here", given)
	}
	ip, err := netip.ParseAddr(ips[0])
	return ip.Unmap(), err
}

// sourceOf is this machine's address on the way to a peer, host:port. Nothing is sent.
func sourceOf(peer string) (netip.Addr, error) {
	conn, err := net.Dial("udp", peer)
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	source, err := netip.ParseAddrPort(conn.LocalAddr().String())
	return source.Addr().Unmap(), err
}

// outwardAddress is where this machine is reached by others as far as it can tell: on the way to the world, or its only address.
func outwardAddress() (netip.Addr, error) {
	if ip, err := sourceOf("192.0.2.1:9"); err == nil && !ip.IsLoopback() { // an address of nobody's, for documentation
		return ip, nil
	}
	own, err := ownAddresses()
	if err != nil {
		return netip.Addr{}, err
	}
	own = slices.DeleteFunc(own, func(a netip.Addr) bool { return a.IsLoopback() || a.IsLinkLocalUnicast() })
	switch len(own) {
	case 1:
		return own[0], nil
	case 0:
		return netip.Addr{}, errors.New("this machine has no address in a network")
	}
	var all []string
	for _, a := range own {
		all = append(all, a.String())
	}
	return netip.Addr{}, errors.New("this machine has several addresses: " + strings.Join(all, ", "))
}

// ownAddresses are those of this machine's interfaces.
func ownAddresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("this machine's addresses: %w", err)
	}
	var own []netip.Addr
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, p.Addr().Unmap())
		}
	}
	return own, nil
}
