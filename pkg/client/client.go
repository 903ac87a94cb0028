// Package client finds a master and speaks to it: mutual TLS, failing over from
// one master to the next, repeating what may be repeated. The command line,
// workers and users' programs use it; it also owns the context files in which
// people keep where their cluster is and who they are.
//
// Every server is known by the name master.millrace in its certificate, so which
// address answers does not matter.
package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"millrace/pkg/api"
	"millrace/pkg/api/apiconnect"
	"millrace/pkg/security"
)

// DefaultRetryFor is how long calls that may be repeated are, while no master answers.
const DefaultRetryFor = 10 * time.Second

// LeaderHeader names the leader's address in the error by which a follower refuses
// a worker's session.
const LeaderHeader = "Millrace-Leader"

// ErrClosed says that the client was closed.
var ErrClosed = errors.New("client is closed")

// Config sets up a Client.
type Config struct {
	Servers    []string // https://host:port of one or more masters
	Credential security.Credential
	Log        *zap.Logger // nil: nothing is logged
	UserAgent  string
	// RetryFor bounds how long a call is repeated while masters are unavailable:
	// 0 means DefaultRetryFor, negative means never.
	RetryFor time.Duration
}

// Client speaks to the masters of one site. It may be used by many goroutines.
type Client struct {
	api      *channel
	session  *channel
	log      *zap.Logger
	millrace apiconnect.MillraceServiceClient
	worker   apiconnect.WorkerServiceClient
	join     apiconnect.JoinServiceClient
	masters  apiconnect.MasterServiceClient
	identity security.Identity
}

// New checks the configuration; it connects to nobody yet.
func New(c Config) (*Client, error) {
	addresses, err := addressesOf(c.Servers)
	if err != nil {
		return nil, err
	}
	config, err := c.Credential.ClientTLS(security.MasterName)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	identity, err := c.Credential.Identity()
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.RetryFor == 0 {
		c.RetryFor = DefaultRetryFor
	}
	cl := &Client{
		api:      newChannel(config, addresses),
		session:  newChannel(config, addresses),
		log:      c.Log,
		identity: identity,
	}
	options := func(i connect.Interceptor) connect.ClientOption {
		return connect.WithClientOptions(connect.WithInterceptors(userAgent(c.UserAgent), i))
	}
	retry := &retrier{channel: cl.api, log: c.Log, retryFor: c.RetryFor}
	cl.millrace = apiconnect.NewMillraceServiceClient(cl.api.http(), baseURL, options(retry))
	cl.join = apiconnect.NewJoinServiceClient(cl.api.http(), baseURL, options(retry))
	cl.masters = apiconnect.NewMasterServiceClient(cl.api.http(), baseURL, options(retry))
	cl.worker = apiconnect.NewWorkerServiceClient(cl.session.http(), baseURL, options(&leaderFollower{channel: cl.session}))
	return cl, nil
}

// API is the service for people's tools, over one pooled HTTP/2 connection.
// Unary calls that may be repeated are, while no master or no leader is available;
// SubmitJob gets a request id if it has none (in the caller's message), so that it may, too.
func (c *Client) API() apiconnect.MillraceServiceClient { return c.millrace }

// Identity is whom the client's credential names.
func (c *Client) Identity() security.Identity { return c.identity }

// Session opens a worker's session with the leader, as far as it is known. A follower refuses
// at the first Receive with FailedPrecondition and names the leader: the next
// Session goes there. So callers open another session whenever one ends.
func (c *Client) Session(ctx context.Context) (*connect.BidiStreamForClient[api.WorkerMessage, api.MasterMessage], error) {
	if c.session.isClosed() {
		return nil, ErrClosed
	}
	return c.worker.Session(ctx), nil
}

// Rejoin renews the certificate of a node that is already admitted, which the
// client's credential must be of. It needs no token.
func (c *Client) Rejoin(ctx context.Context, req *api.JoinRequest) (*api.JoinResponse, error) {
	resp, err := c.join.Join(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// Announce tells the leader of a master, which the client's credential must be of.
func (c *Client) Announce(ctx context.Context, req *api.AnnounceRequest) (*api.AnnounceResponse, error) {
	resp, err := c.masters.Announce(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// SetServers replaces the masters' addresses; connections that work are kept.
func (c *Client) SetServers(servers []string) error {
	addresses, err := addressesOf(servers)
	if err != nil {
		return err
	}
	c.api.setServers(addresses)
	c.session.setServers(addresses)
	return nil
}

// Close drops idle connections; later calls fail with ErrClosed. Calls under way end with their contexts.
func (c *Client) Close() error {
	c.api.close()
	c.session.close()
	return nil
}

// Join trades a token for a certificate at the first of the servers that answers. The server must be of the
// token's site: its CA's hash is in the token.
func Join(ctx context.Context, servers []string, token string, req *api.JoinRequest) (*api.JoinResponse, error) {
	t, err := security.ParseToken(token)
	if err != nil {
		return nil, err
	}
	addresses, err := addressesOf(servers)
	if err != nil {
		return nil, err
	}
	ch := newChannel(security.JoinTLS(t), addresses)
	defer ch.close()
	req.Token = t.String()
	retry := &retrier{channel: ch, log: zap.NewNop(), retryFor: DefaultRetryFor}
	join := apiconnect.NewJoinServiceClient(ch.http(), baseURL, connect.WithInterceptors(retry))
	resp, err := join.Join(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// baseURL stands for any master; the channel dials the addresses.
const baseURL = "https://" + security.MasterName

// addressesOf turns https://host:port (or host:port) into host:port.
func addressesOf(servers []string) ([]string, error) {
	var out []string
	for _, s := range servers {
		hostport := strings.TrimSpace(s)
		if strings.Contains(hostport, "://") {
			u, err := url.Parse(hostport)
			if err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
				return nil, fmt.Errorf("server %q is not of the form https://host:port", s)
			}
			hostport = u.Host
		}
		if _, port, err := net.SplitHostPort(hostport); err != nil || port == "" {
			return nil, fmt.Errorf("server %q is not of the form https://host:port", s)
		}
		out = append(out, hostport)
	}
	if len(out) == 0 {
		return nil, errors.New("no server given")
	}
	return out, nil
}

// userAgent sets the header of the same name.
type userAgent string

func (u userAgent) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		u.set(req.Header())
		return next(ctx, req)
	}
}

func (u userAgent) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		u.set(conn.RequestHeader())
		return conn
	}
}

func (u userAgent) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

func (u userAgent) set(h http.Header) {
	if u != "" {
		h.Set("User-Agent", string(u))
	}
}
