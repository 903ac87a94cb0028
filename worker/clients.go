package worker

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"

	"millrace/pkg/security"
)

const dialWithin = 2 * time.Second

// nodeClients are HTTP/1.1 clients for bulk data, one per node, each checking that
// it is that node it speaks with.
type nodeClients struct {
	mu         sync.Mutex
	credential security.Credential
	byNode     map[string]*http.Client
}

func newNodeClients(c security.Credential) *nodeClients {
	return &nodeClients{credential: c, byNode: map[string]*http.Client{}}
}

// Client gives the client for a node.
func (n *nodeClients) Client(node string) (*http.Client, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.byNode[node]; c != nil {
		return c, nil
	}
	config, err := n.credential.ClientTLS(security.NodeName(node))
	if err != nil {
		return nil, err
	}
	config.NextProtos = []string{"http/1.1"}
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: dialWithin, KeepAlive: 15 * time.Second}, Config: config}
	c := &http.Client{Transport: &http.Transport{
		// A whole connection, handshake included, within the time.
		DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, dialWithin)
			defer cancel()
			return dialer.DialContext(ctx, network, address)
		},
		MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second,
		ReadBufferSize: 64 << 10, WriteBufferSize: 64 << 10, DisableCompression: true,
	}}
	n.byNode[node] = c
	return c, nil
}

// renew makes further clients with another certificate.
func (n *nodeClients) renew(c security.Credential) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.credential = c
	for id, c := range n.byNode { // requests under way go on
		c.CloseIdleConnections()
		delete(n.byNode, id)
	}
}

func (n *nodeClients) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.byNode {
		c.CloseIdleConnections()
	}
}
