package client

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"

	"millrace/pkg/security"
)

const nodeWithin = 2 * time.Second // for a connection with a node, handshake included

// Nodes are HTTP/1.1 clients for bulk data, one per node, each checking that
// it is that node it speaks with.
type Nodes struct {
	credential *security.Live
	mu         sync.Mutex
	byNode     map[string]*http.Client
}

// NewNodes returns clients that show a credential, as it then is; they connect to nobody yet.
func NewNodes(c *security.Live) *Nodes {
	return &Nodes{credential: c, byNode: map[string]*http.Client{}}
}

// Client gives the client for a node.
func (n *Nodes) Client(node string) (*http.Client, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.byNode[node]; c != nil {
		return c, nil
	}
	config, err := n.credential.Credential().ClientTLS(security.NodeName(node))
	if err != nil {
		return nil, err
	}
	config.NextProtos = []string{"http/1.1"}
	config.ClientSessionCache = tls.NewLRUClientSessionCache(0) // a pipeline is a connection of its own for each block: short handshakes
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: nodeWithin, KeepAlive: 15 * time.Second}, Config: config}
	c := &http.Client{Transport: &http.Transport{
		// A whole connection, handshake included, within the time.
		DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, nodeWithin)
			defer cancel()
			return dialer.DialContext(ctx, network, address)
		},
		MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second,
		ReadBufferSize: 64 << 10, WriteBufferSize: 64 << 10, DisableCompression: true,
	}}
	n.byNode[node] = c
	return c, nil
}

// Drop has further requests show the credential that is there by now, over connections of their own; those under way go on.
func (n *Nodes) Drop() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, c := range n.byNode {
		c.CloseIdleConnections()
		delete(n.byNode, id)
	}
}

// Close drops idle connections.
func (n *Nodes) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.byNode {
		c.CloseIdleConnections()
	}
}
