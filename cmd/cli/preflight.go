package cli

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"millrace/pkg/api"
	"millrace/pkg/client"
	"millrace/pkg/membership"
	"millrace/pkg/security"
)

// mostSkew is how far a node's clock may be from the masters': object stores refuse requests that are some minutes off.
const mostSkew = 5 * time.Minute

// outWithin bounds one connection to a master.
const outWithin = 5 * time.Second

// nodePorts are where a node of a role serves, host:port each.
type nodePorts struct{ api, raft, gossip string }

// of gives the ports as host:port of one address, API first.
func (p nodePorts) of(host netip.Addr) (tcp, udp []string) {
	at := func(listen string) string {
		_, port, _ := net.SplitHostPort(listen) // checked before
		return net.JoinHostPort(host.String(), port)
	}
	tcp = append(tcp, at(p.api))
	if p.raft != "" {
		tcp = append(tcp, at(p.raft))
	}
	return append(tcp, at(p.gossip)), []string{at(p.gossip)}
}

// preflight finds out before a machine joins whether it can: what its token is for, whether its clock is right, and whether it and the
// masters reach each other at every port. It changes nothing.
type preflight struct {
	masters []string // https://host:port, as given
	token   security.Token
	host    netip.Addr // that the node will be reached by
	local   bool       // host is an address of this machine: what is sent comes from there
	nodeID  string     // that it has had in an attempt before; "" = none
	ports   func(role string) nodePorts
}

// describe asks the first master that answers what the token is for.
func (p *preflight) describe(ctx context.Context) (*api.ReachResponse, error) {
	var failed []error
	for _, m := range p.masters {
		sent := time.Now()
		resp, err := client.Reach(ctx, m, p.token.String(), p.from(), &api.ReachRequest{})
		if err == nil {
			return resp, clockFault(time.UnixMilli(resp.GetNowMs()), sent, time.Now())
		}
		err = p.fault(m, err)
		if again := (*againError)(nil); !errors.As(err, &again) {
			return nil, err
		}
		failed = append(failed, err)
	}
	return nil, allFaults(failed)
}

func (p *preflight) from() netip.Addr {
	if p.local {
		return p.host
	}
	return netip.Addr{}
}

// check tries every port in both directions. All that is wrong is said at once.
func (p *preflight) check(ctx context.Context, d *api.ReachResponse) error {
	tcp, udp := p.ports(d.GetRole()).of(p.host)
	doors, err := openDoors(p.ports(d.GetRole()), p.from())
	if err != nil {
		return err
	}
	defer doors.close()
	var mu sync.Mutex
	var failed []error
	say := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil && !slices.ContainsFunc(failed, func(e error) bool { return e.Error() == err.Error() }) {
			failed = append(failed, err)
		}
	}
	var tries sync.WaitGroup
	for _, m := range d.GetMasters() {
		tries.Go(func() {
			resp, err := client.Reach(ctx, m, p.token.String(), p.from(), &api.ReachRequest{Tcp: tcp, Udp: udp, Address: "https://" + tcp[0], NodeId: p.nodeID})
			if err != nil {
				say(p.fault(m, err))
				return
			}
			if taken := resp.GetTaken(); taken != "" {
				say(usagef("give this machine an address of its own, or name another of its addresses: --advertise IP", "https://%s is the address of %s already, which is up", tcp[0], taken))
			}
			for _, line := range resp.GetUnreachable() {
				port, why, _ := strings.Cut(line, ": ")
				say(again(reachNext, "master %s cannot reach %s: open the port, or --advertise (%s)", resp.GetName(), port, why))
			}
		})
	}
	for _, address := range d.GetTcp() {
		tries.Go(func() { say(p.outTCP(ctx, address)) })
	}
	for i, address := range d.GetUdp() {
		tries.Go(func() {
			if err := doors.knock(ctx, address, append(bytes.Clone(d.GetKnock()), byte(i))); err != nil {
				say(again(reachNext, "cannot reach %s/udp: open the port, or --advertise (%s)", address, netWhy(err)))
			}
		})
	}
	tries.Wait()
	return allFaults(failed)
}

const reachNext = "let the ports through between the machines (millrace init lists them), or have the node use another interface: --advertise IP"

func (p *preflight) outTCP(ctx context.Context, address string) error {
	dialer := net.Dialer{Timeout: outWithin}
	if p.local {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.host, 0))
	}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return again(reachNext, "cannot reach %s/tcp: open the port, or --advertise (%s)", address, netWhy(err))
	}
	return conn.Close()
}

// fault says why a master did not answer, or what it refused.
func (p *preflight) fault(master string, err error) error {
	address := strings.TrimPrefix(master, "https://")
	var invalid x509.CertificateInvalidError
	var dial *net.OpError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return again("set this machine's clock (date shows it), then repeat the command",
			"this machine's clock says %s, and the master's certificate is good from %s until %s", time.Now().UTC().Format(time.RFC3339),
			invalid.Cert.NotBefore.UTC().Format(time.RFC3339), invalid.Cert.NotAfter.UTC().Format(time.RFC3339))
	case errors.Is(err, security.ErrUntrusted):
		return faultf(exitUnreachable, "copy the token whole, and check that the URL is of the same site: millrace join-token create prints both", "https://%s: %s", address, strings.Join(client.Problems(err).GetErrors(), "; "))
	case errors.Is(err, client.ErrRaftPort):
		return usagef("name the HTTPS port of a master: millrace join https://HOST:7400 TOKEN", "https://%s: %s", address, client.ErrRaftPort)
	case errors.As(err, &dial) && dial.Op == "dial" && errors.Is(err, syscall.EADDRNOTAVAIL):
		return usagef("name an address of this machine: ip addr lists them", "--advertise %s: this machine cannot send from there", p.host)
	case errors.As(err, &dial), errors.Is(err, context.DeadlineExceeded):
		return again(reachNext, "cannot reach %s/tcp: open the port, or --advertise (%s)", address, netWhy(err))
	case connect.CodeOf(err) == connect.CodeUnavailable:
		return again("repeat the command in a moment", "https://%s: %s", address, strings.Join(client.Problems(err).GetErrors(), "; "))
	case connect.CodeOf(err) == connect.CodeUnauthenticated, connect.CodeOf(err) == connect.CodePermissionDenied:
		return faultf(exitUnreachable, "on a machine with a context: millrace join-token create", "https://%s: %s", address, strings.Join(client.Problems(err).GetErrors(), "; "))
	}
	return err
}

// clockFault holds this machine's clock against a master's, as read between two moments.
func clockFault(master, sent, got time.Time) error {
	skew := sent.Add(got.Sub(sent) / 2).Sub(master)
	switch off := skew.Abs().Round(time.Second); {
	case off <= mostSkew:
		return nil
	case skew > 0:
		return again("set this machine's clock, then repeat the command", "this machine's clock is %s ahead of the master's: at most %s are allowed", off, mostSkew)
	default:
		return again("set this machine's clock, then repeat the command", "this machine's clock is %s behind the master's: at most %s are allowed", off, mostSkew)
	}
}

// againError is a fault that may be gone the next time.
type againError struct{ *fault }

func (e *againError) Unwrap() error { return e.fault }

func again(next, format string, args ...any) error {
	return &againError{faultf(exitUnreachable, next, format, args...)}
}

// allFaults makes one fault of several, that is worth another try if all of them are; nil of none.
func allFaults(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	all, repeat := &fault{}, true
	slices.SortStableFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	for _, err := range errs {
		var f *fault
		if !errors.As(err, &f) {
			return err
		}
		var r *againError
		repeat = repeat && errors.As(err, &r)
		all.lines, all.next, all.code = append(all.lines, f.lines...), cmp.Or(all.next, f.next), max(all.code, f.code)
	}
	if repeat {
		return &againError{all}
	}
	return all
}

// netWhy is a network error without what the line says anyhow.
func netWhy(err error) string {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, membership.ErrNoEcho) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Sprintf("no answer within %s", outWithin)
	}
	var errno syscall.Errno
	var dns *net.DNSError
	switch {
	case errors.As(err, &errno):
		return errno.Error()
	case errors.As(err, &dns):
		return "no such host"
	}
	return err.Error()
}
