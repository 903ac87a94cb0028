package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"go.uber.org/zap"

	"millrace/pkg/membership"
)

// advertised is the URL under which others find this node.
func (w *Worker) advertised(bound net.Addr) (string, error) {
	host, port, err := net.SplitHostPort(bound.String())
	if err != nil {
		return "", fmt.Errorf("worker: %w", err)
	}
	if a := w.cfg.Advertise; a != "" {
		if h, p, err := net.SplitHostPort(a); err == nil {
			host, port = h, p
		} else {
			host = a
		}
	} else if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		if host, err = outward(append(slices.Clone(w.id.Masters), w.cfg.Join...)); err != nil {
			return "", err
		}
	}
	return "https://" + net.JoinHostPort(host, port), nil
}

// outward is this machine's address on the way to the masters. Nothing is sent.
func outward(masters []string) (string, error) {
	for _, m := range masters {
		conn, err := net.Dial("udp", strings.TrimPrefix(strings.TrimSuffix(m, "/"), "https://"))
		if err != nil {
			continue
		}
		host, _, err := net.SplitHostPort(conn.LocalAddr().String())
		conn.Close()
		if err == nil {
			return host, nil
		}
	}
	return "", errors.New("worker: listening on all addresses, which one others are to use is not clear: say it (advertise)")
}

// followMasters learns from gossip where the masters are, and keeps it for the next start.
func (w *Worker) followMasters(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.gossip.Changes():
		}
		var masters, peers []string
		for _, alive := range []bool{true, false} { // those alive first
			for _, m := range w.gossip.Members() {
				if m.Role == membership.RoleMaster && m.Alive == alive && m.Address != "" {
					masters, peers = append(masters, m.Address), append(peers, m.Gossip)
				}
			}
		}
		if err := w.mastersAt(masters, peers); err != nil {
			w.log.Warn("masters' addresses from gossip", zap.Strings("masters", masters), zap.Error(err))
		}
	}
}

// mastersAt takes up where the masters are.
func (w *Worker) mastersAt(masters, peers []string) error {
	w.idMu.Lock()
	defer w.idMu.Unlock()
	if len(masters) == 0 || slices.Equal(masters, w.id.Masters) && slices.Equal(peers, w.id.GossipPeers) {
		return nil
	}
	if err := w.client.Load().SetServers(masters); err != nil {
		return err
	}
	w.id.Masters, w.id.GossipPeers = masters, peers
	return w.dir.WriteJSON(w.id.nodeFile, "node.json")
}
