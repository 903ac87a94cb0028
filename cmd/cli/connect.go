package cli

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"
	"time"

	"millrace/cmd/cli/s3source"
	"millrace/cmd/cli/screen"
	"millrace/pkg/api"
	"millrace/pkg/api/apiconnect"
	"millrace/pkg/client"
	"millrace/pkg/objectstore"
)

const (
	// retryFor bounds how long a command waits for a leader, where masters are: several times what a new one usually takes.
	retryFor = 15 * time.Second
	// refusedFor does so while nothing listens where the masters should be: about as long as one takes to be started again.
	refusedFor = 3 * time.Second
)

// connection is the one way to the cluster that a command has.
type connection struct {
	*client.Client
	cluster string // name or id; "" = default
	context *client.Context
	home    string // where the context is kept
}

func (c *connection) api() apiconnect.MillraceServiceClient { return c.API() }
func (c *connection) close()                                { c.Client.Close() }

// untilBegun repeats what prints a stream, until something of it has come: what is printed is not to be printed twice.
func (c *connection) untilBegun(ctx context.Context, procedure string, try func() (begun bool, err error)) error {
	var last error
	err := c.Repeat(ctx, procedure, func() (begun bool, err error) {
		if begun, last = try(); begun {
			return true, nil
		}
		return false, last
	})
	if err == nil {
		err = last
	}
	return err
}

// loadContext is the context named by --context, or the current one; nil when
// there is none and none was asked for.
func (c *call) loadContext() (*client.Context, error) {
	name := c.String("context")
	home, err := c.home()
	if err != nil {
		if name != "" {
			return nil, err
		}
		return nil, nil // service managers set no HOME, and give the rest by flags
	}
	ctx, err := client.LoadContext(home, name)
	if errors.Is(err, client.ErrNoContext) {
		if name != "" {
			return nil, faultf(exitNotFound, "millrace context list", "there is no context %q%s", name, nearContext(home, name))
		}
		return nil, nil
	}
	return ctx, c.contextFault(home, err)
}

// connect finds the cluster: flags, environment, context. It sends nothing yet.
func (c *call) connect() (*connection, error) {
	if c.app.conn != nil {
		return c.app.conn, nil
	}
	conn, err := c.dial(retryFor)
	if err != nil {
		return nil, err
	}
	c.app.conn = conn
	return conn, nil
}

// dial makes a connection of its own, which tries for so long to find a master that answers; -1: once.
func (c *call) dial(retry time.Duration) (*connection, error) {
	ctx, err := c.loadContext()
	if err != nil {
		return nil, err
	}
	servers := c.servers()
	if ctx == nil {
		what := "no cluster is known here: there is no current context"
		if len(servers) > 0 {
			what = fmt.Sprintf("no credential for %s: there is no current context", strings.Join(servers, ", "))
		}
		return nil, faultf(exitUnreachable, "start a cluster with `millrace dev`, or choose a context: millrace context list", "%s", what)
	}
	if len(servers) == 0 {
		servers = ctx.Servers
	}
	if len(servers) == 0 {
		return nil, faultf(exitUnreachable, "name a master: --server https://HOST:PORT, or choose another context: millrace context list", "context %s names no master", ctx.Name)
	}
	cl, err := client.New(client.Config{Servers: servers, Credential: ctx.Credential(), UserAgent: "millrace/" + Version, RetryFor: retry, RefusedFor: refusedFor, Waiting: c.sayOnce("no master has answered as the leader for %v: waiting for one", client.WaitingAfter)})
	if err != nil {
		return nil, usagef("check --server and the context: millrace context show", "%s", err)
	}
	home, err := c.home()
	if err != nil {
		return nil, err
	}
	return &connection{Client: cl, cluster: c.clusterName(ctx), context: ctx, home: home}, nil
}

// sayOnce says something on standard error at the first call: not to programs, and not where a bar shows it by itself.
func (c *call) sayOnce(format string, args ...any) func() {
	var once sync.Once
	return func() {
		if !c.json && !screen.Drawn() {
			once.Do(func() { fmt.Fprintf(c.env.Stderr, format+"\n", args...) })
		}
	}
}

func (c *call) servers() []string {
	if s := c.StringSlice("server"); len(s) > 0 {
		return s
	}
	if s := c.env.Getenv("MILLRACE_SERVER"); s != "" {
		return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
	}
	return nil
}

func (c *call) clusterName(ctx *client.Context) string {
	if s := c.String("cluster"); s != "" {
		return s
	}
	if s := c.env.Getenv("MILLRACE_CLUSTER"); s != "" {
		return s
	}
	if ctx != nil {
		return ctx.Cluster
	}
	return ""
}

// storage decides which object store this command speaks to.
func (c *call) storage() (s3source.Source, error) {
	var ctx *client.Context
	var err error
	if c.app.conn != nil {
		ctx = c.app.conn.context
	} else if ctx, err = c.loadContext(); err != nil {
		return s3source.Source{}, err
	}
	s, err := s3source.Resolve(s3source.Flags{
		Endpoint: c.String("s3"), AccessKey: c.String("s3-access-key"), SecretKey: c.String("s3-secret-key"),
		SessionToken: c.String("s3-session-token"), Region: c.String("s3-region"), CAFile: c.String("s3-ca"),
	}, c.env.Getenv, c.env.Home, ctx)
	var mistake *s3source.Error
	if errors.As(err, &mistake) {
		return s, usagef(mistake.Next, "%s", mistake.Message)
	}
	return s, err
}

// openStore opens the object store, and says which it is unless it is the context's own.
func (c *call) openStore() (objectstore.Store, error) {
	s, err := c.storage()
	if err != nil {
		return nil, err
	}
	if s.Kind == s3source.None {
		return nil, usagef("name one: --s3 URL, AWS_ENDPOINT_URL, or a context (millrace dev makes one)", "no object store is known here")
	}
	c.sayStorage(s)
	return objectstore.NewS3(objectstore.Config{Endpoint: s.S3.Endpoint, Region: s.S3.Region, AccessKey: s.S3.AccessKey,
		SecretKey: s.S3.SecretKey, SessionToken: s.S3.SessionToken, CAPEM: s.S3.CABundle,
		Waiting: c.sayOnce("the object store at %s has not answered for %v: waiting for it", s.S3.Endpoint, objectstore.WaitingAfter)})
}

// sayStorage says which object store is used, when it is not what one would expect.
func (c *call) sayStorage(s s3source.Source) {
	if s.Kind != s3source.FromContext && !c.json {
		fmt.Fprintf(c.env.Stderr, "s3: %s (%s)\n", s.S3.Endpoint, s.Name)
	}
}

// jobStore is the object store that goes with a job: none (the site's) unless
// flags or the environment name another.
func (c *call) jobStore() (*api.ObjectStore, error) {
	s, err := c.storage()
	if err != nil {
		return nil, err
	}
	switch s.Kind {
	case s3source.FromFlags, s3source.FromEnvironment, s3source.FromProfile:
		own, err := c.loadContext()
		if err != nil {
			return nil, err
		}
		if own != nil && own.S3 != nil && own.S3.Endpoint == s.S3.Endpoint && own.S3.AccessKey == s.S3.AccessKey {
			return nil, nil
		}
		c.sayStorage(s)
		return apiStore(s.S3), nil
	}
	return nil, nil
}

func apiStore(s client.S3) *api.ObjectStore {
	return &api.ObjectStore{Endpoint: s.Endpoint, Region: s.Region, AccessKey: s.AccessKey, SecretKey: s.SecretKey, SessionToken: s.SessionToken, CaPem: s.CABundle}
}

// under joins a name to an s3:// URL.
func under(url, name string) string {
	return strings.TrimRight(url, "/") + "/" + path.Clean("/" + name)[1:]
}
