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

// TrustHeader is in each answer to somebody with a certificate of the site: security.TrustID of what the site trusts.
const TrustHeader = "Millrace-Trust"

// NotDoneHeader is in the refusal of a call that was not even begun, as there is no leader: it may be repeated, whatever it is.
const NotDoneHeader = "Millrace-Not-Done"

// RemovedHeader is in the refusal of a call by a node that was removed from the site.
const RemovedHeader = "Millrace-Removed"

// Removed says whether a call was refused because the node that makes it was removed from the site: none will be taken again.
func Removed(err error) bool {
	var refused *connect.Error
	return errors.As(err, &refused) && refused.Meta().Get(RemovedHeader) != ""
}

// ErrClosed says that the client was closed.
var ErrClosed = errors.New("client is closed")

// ErrSilent is the cause with which a caller ends the context of a session that nothing is heard of any more, though its connection
// still seems to stand: the next one goes to another master.
var ErrSilent = errors.New("the master is silent")

// Config sets up a Client.
type Config struct {
	Servers    []string // https://host:port of one or more masters
	Credential security.Credential
	Log        *zap.Logger // nil: nothing is logged
	UserAgent  string      // who calls, and of which version, for people and in refusals: millrace-worker/v1.2.3
	// RetryFor bounds how long a call is repeated while masters are unavailable:
	// 0 means DefaultRetryFor, negative means never.
	RetryFor time.Duration
	// RefusedFor bounds it, if shorter, while every server refuses the connection and none has been reached yet: then nothing runs
	// there, which people want to hear soon. 0 means RetryFor.
	RefusedFor time.Duration
	// Waiting, if given, is called by a call that has been repeated for WaitingAfter, once.
	Waiting func()
}

// WaitingAfter is after which time Config.Waiting is told.
const WaitingAfter = 4 * time.Second

// Client speaks to the masters of one site. It may be used by many goroutines.
type Client struct {
	api      *channel
	session  *channel
	log      *zap.Logger
	retry    *retrier // of calls over api
	millrace apiconnect.MillraceServiceClient
	worker   apiconnect.WorkerServiceClient // sessions
	members  apiconnect.WorkerServiceClient // the rest of it
	join     apiconnect.JoinServiceClient
	masters  apiconnect.MasterServiceClient
	files    apiconnect.FilesServiceClient
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
	if c.RefusedFor == 0 {
		c.RefusedFor = c.RetryFor
	}
	cl := &Client{
		api:      newChannel(config, addresses),
		session:  newChannel(config, addresses),
		log:      c.Log,
		identity: identity,
	}
	options := func(i connect.Interceptor) connect.ClientOption {
		return connect.WithClientOptions(connect.WithInterceptors(userAgent(c.UserAgent), i, introduce(c.UserAgent)))
	}
	retry := &retrier{channel: cl.api, log: c.Log, retryFor: c.RetryFor, refusedFor: min(c.RefusedFor, c.RetryFor), waiting: c.Waiting}
	cl.retry = retry
	cl.millrace = apiconnect.NewMillraceServiceClient(cl.api.http(), baseURL, options(retry))
	cl.join = apiconnect.NewJoinServiceClient(cl.api.http(), baseURL, options(retry))
	cl.masters = apiconnect.NewMasterServiceClient(cl.api.http(), baseURL, options(retry))
	cl.files = apiconnect.NewFilesServiceClient(cl.api.http(), baseURL, options(retry))
	cl.members = apiconnect.NewWorkerServiceClient(cl.api.http(), baseURL, options(retry))
	cl.worker = apiconnect.NewWorkerServiceClient(cl.session.http(), baseURL, options(&leaderFollower{channel: cl.session}))
	return cl, nil
}

// API is the service for people's tools, over one pooled HTTP/2 connection.
// Unary calls that may be repeated are, while no master or no leader is available;
// SubmitJob gets a request id if it has none (in the caller's message), so that it may, too.
func (c *Client) API() apiconnect.MillraceServiceClient { return c.millrace }

// Files is the service for the name spaces of block stores; calls that may be repeated are, as those of API.
func (c *Client) Files() apiconnect.FilesServiceClient { return c.files }

// Identity is whom the client's credential names.
func (c *Client) Identity() security.Identity { return c.identity }

// Trusts is security.TrustID of what the site trusts, as a master said last; "" if none has.
func (c *Client) Trusts() string {
	if trusts := c.api.trusts.Load(); trusts != nil {
		return *trusts
	}
	return ""
}

// Session opens a worker's session with the leader, as far as it is known. A follower refuses
// at the first Receive with FailedPrecondition and names the leader: the next
// Session goes there. So callers open another session whenever one ends, with ErrSilent if they end it for that.
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

// Members asks who may speak to the port of the node that the client's credential is of.
func (c *Client) Members(ctx context.Context) (*api.MembersResponse, error) {
	resp, err := c.members.Members(ctx, connect.NewRequest(&api.MembersRequest{}))
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

// Renew shows another certificate of the same identity from now on, and trusts what comes with it; calls and sessions under
// way go on as they are.
func (c *Client) Renew(credential security.Credential) error {
	config, err := credential.ClientTLS(security.MasterName)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	c.api.show(config)
	c.session.show(config)
	return nil
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
// token's site: its CA's hash is in the token. The request's version is that of the node.
func Join(ctx context.Context, servers []string, token string, req *api.JoinRequest) (*api.JoinResponse, error) {
	t, err := security.ParseToken(token)
	if err != nil {
		return nil, err
	}
	join, done, err := joiner(servers, t, nodeAgent(req), DefaultRetryFor)
	if err != nil {
		return nil, err
	}
	defer done()
	req.Token = t.String()
	resp, err := join.Join(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// Login trades a person's login code for a certificate, as Join does a token for a node's.
func Login(ctx context.Context, servers []string, code string, csr []byte, userAgent string) (*api.LoginResponse, error) {
	t, err := security.ParseCode(code)
	if err != nil {
		return nil, err
	}
	join, done, err := joiner(servers, t, userAgent, loginRefusedFor)
	if err != nil {
		return nil, err
	}
	defer done()
	resp, err := join.Login(ctx, connect.NewRequest(&api.LoginRequest{Code: t.String(), CsrDer: csr}))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// loginRefusedFor is how long a login is repeated while nothing listens at the address: a person waits for it, and has mostly mistyped it.
const loginRefusedFor = 3 * time.Second

// joiner is the service for who has no certificate yet, at the servers of a token's site. refusedFor is as in Config.
func joiner(servers []string, t security.Token, userAgent string, refusedFor time.Duration) (join apiconnect.JoinServiceClient, done func(), err error) {
	addresses, err := addressesOf(servers)
	if err != nil {
		return nil, nil, err
	}
	ch := newChannel(security.JoinTLS(t), addresses)
	retry := &retrier{channel: ch, log: zap.NewNop(), retryFor: DefaultRetryFor, refusedFor: refusedFor}
	return apiconnect.NewJoinServiceClient(ch.http(), baseURL, connect.WithInterceptors(retry, introduce(userAgent))), ch.close, nil
}

func nodeAgent(req *api.JoinRequest) string {
	if req.GetAsMaster() {
		return "millrace-master/" + req.GetVersion()
	}
	return "millrace-worker/" + req.GetVersion()
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
