// Package master is one master node: it opens its parts in order (directory, log,
// server, gossip), runs the leader's parts while it leads, and closes all in reverse.
// It owns the wiring and the node's own files; what is decided is decided in its sub-packages.
package master

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"millrace/master/fleet"
	"millrace/master/fsm"
	"millrace/master/history"
	"millrace/master/server"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/audit"
	"millrace/pkg/client"
	"millrace/pkg/connlimit"
	"millrace/pkg/membership"
	"millrace/pkg/objectstore"
	"millrace/pkg/protocol"
	"millrace/pkg/security"
	"millrace/pkg/shortage"
)

// DefaultSystemPrefix is where a site keeps its own objects.
const DefaultSystemPrefix = "s3://millrace-system/"

// Config sets up a Master. Addresses are host:port; port 0 takes any free one.
type Config struct {
	Dir          string // the node's own; made if it is not there
	Listen       string // HTTPS: everything but Raft and gossip
	Advertise    string // host or host:port that others reach Listen by; default: Listen's
	RaftListen   string // default: Listen's host, any port
	GossipListen string // default: Listen's host, any port; UDP and TCP

	// Store is the site's object store: needed at the first start; later it
	// replaces the one in the log, nil keeps that.
	Store        *api.ObjectStore
	SystemPrefix string // s3://bucket/prefix/; default DefaultSystemPrefix at the first start, later what it was

	// Join and Token make this master a further one of a site that is there; at its first start only.
	Join  []string // https://host:port of masters
	Token string

	KeepJobs    int           // ended jobs that stay in the state; 0: history.DefaultKeep
	KeepHistory time.Duration // how long the others are kept; 0: history.DefaultRetention; less: for good

	Name    string // for people, taken up at the first start; default: the host's name
	Version string
	Log     *zap.Logger
	LogTail server.LogTail // the last of what Log was given, for people; nil: there is none

	// OpenStore opens object stores; nil = S3. For tests.
	OpenStore func(*api.ObjectStore) (objectstore.Store, error)

	TrashAge time.Duration // how long what was removed from a block store stays in its trash; 0 = files.DefaultTrashAge

	Providers       map[string]fleet.Provider // of nodes, beside the pool of those that have joined for no cluster; by name
	DefaultProvider string                    // of groups that name none; "" = the pool

	// For tests: what fails, which binary this is, how others are called, and how long the log grows; zero = what it is.
	faults        faults
	binary        protocol.Speaker
	dial          dialer // nil = net.Dialer's; tests cut masters off from each other
	snapshotBytes int64  // 0 = the constant of that name
}

// Master is one master node.
type Master struct {
	cfg Config
	log *zap.Logger

	dir        *directory
	id         *identity
	credential *security.Live
	nodes      atomic.Pointer[client.Nodes] // by which the leader reaches blocks
	store      *state.Store
	stores     *stores
	retries    *objectstore.Budget // of all of this master's requests to object stores
	raft       *raftNode
	entries    *fsm.Log
	server     *server.Server
	http       *http.Server
	gossip     *membership.Membership
	address    string      // https://host:port, as others know it
	peers      peers       // as they are on the disk; the announcer's
	begun      bool        // begunFile is there; the announcer's
	changes    sync.Mutex  // of the set of masters: one at a time
	renewing   sync.Mutex  // of this master's certificate
	storeSaid  atomic.Bool // what this start was told of the store is in the log, or is no news
	heard      sync.Map    // what other masters announced last to this leader, by node id: server.Heard

	ready     chan struct{}
	readyOnce sync.Once
	failed    chan error // capacity 1: what ended the leadership loop
	cancel    context.CancelFunc
	wait      sync.WaitGroup         // the HTTP server
	leading   sync.WaitGroup         // the leadership loop and what it starts
	leads     atomic.Pointer[leader] // what hears of the log; nil: this master does not lead
	closeOnce sync.Once
	closeErr  error
	opened    bool
	closers   []func() error // in the order they were opened
}

// New checks the configuration and starts nothing.
func New(c Config) (*Master, error) {
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	retries := objectstore.NewBudget(retriesPerSecond)
	if c.binary == (protocol.Speaker{}) {
		c.binary = protocol.Own("millrace-master/" + c.Version)
	}
	if c.OpenStore == nil {
		c.OpenStore = opener(retries)
	}
	if c.dial == nil {
		c.dial = new(net.Dialer).DialContext
	}
	return &Master{cfg: c, retries: retries, log: c.Log, ready: make(chan struct{}), failed: make(chan error, 1)}, nil
}

func (c *Config) check() error {
	if c.Dir == "" {
		return errors.New("master: no directory given")
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("master: listen address %q is not of the form host:port", c.Listen)
	}
	for _, a := range []*string{&c.RaftListen, &c.GossipListen} {
		if *a == "" {
			*a = net.JoinHostPort(host, "0")
		}
		if _, _, err := net.SplitHostPort(*a); err != nil {
			return fmt.Errorf("master: address %q is not of the form host:port", *a)
		}
	}
	if c.SystemPrefix != "" {
		u, err := objectstore.ParseS3(c.SystemPrefix)
		if err != nil {
			return fmt.Errorf("master: system prefix: %w", err)
		}
		c.SystemPrefix = slashed(u).String()
	}
	if c.KeepJobs < 0 {
		return fmt.Errorf("master: %d ended jobs cannot be kept", c.KeepJobs)
	}
	if c.KeepJobs == 0 {
		c.KeepJobs = history.DefaultKeep
	}
	if c.KeepHistory == 0 {
		c.KeepHistory = history.DefaultRetention
	}
	if c.Store != nil && c.Store.Endpoint == "" {
		return errors.New("master: the object store has no endpoint")
	}
	return nil
}

// ID is the node's id, once it is open.
func (m *Master) ID() string { return m.id.ID }

// Address is the API's address as others know it, once it is open: https://host:port.
func (m *Master) Address() string { return m.address }

// GossipAddress is host:port for other nodes to find the site by, once it is open.
func (m *Master) GossipAddress() string { return m.gossip.Addr() }

// Ready is closed when this master has led the site for the first time and the system bucket is there: workers can
// join, jobs can be submitted, and the admin's context is written.
func (m *Master) Ready() <-chan struct{} { return m.ready }

// Run opens the master, serves until ctx ends or the master can go on no longer, and closes it.
func (m *Master) Run(ctx context.Context) error {
	if err := m.Open(ctx); err != nil {
		return errors.Join(err, m.Close())
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-m.failed:
	}
	return errors.Join(err, m.Close())
}

// Open starts everything and returns when the ports are served; who leads is found
// out afterwards (Ready). ctx bounds the start only.
func (m *Master) Open(ctx context.Context) (err error) {
	if m.opened {
		return errors.New("master: opened twice")
	}
	m.opened = true
	if m.dir, err = openDirectory(m.cfg.Dir, m.cfg.Version); err != nil {
		return err
	}
	m.onClose(m.dir.Close)
	listener, err := listen(ctx, "API", m.cfg.Listen)
	if err != nil {
		return err
	}
	m.onClose(func() error { return ignoreClosed(listener.Close()) })
	if m.address, err = advertised(m.cfg.Advertise, listener.Addr()); err != nil {
		return err
	}
	if m.id, err = m.dir.identity(ctx, m.cfg); err != nil {
		return err
	}
	if m.credential, err = security.NewLive(m.id.credential); err != nil {
		return fmt.Errorf("%s: %w", m.dir.Path("pki"), err)
	}
	m.log = m.log.With(zap.String("node", m.id.ID))
	m.store = state.New()
	m.stores = &stores{open: m.cfg.OpenStore, view: m.store.View, seal: m.id.seal, cached: map[string]objectstore.Store{}}
	if err := m.openRaft(ctx); err != nil {
		return err
	}
	if err := m.openGossip(ctx); err != nil {
		return err
	}
	if err := m.openServer(listener); err != nil {
		return err
	}
	loop, cancel := context.WithCancel(context.WithoutCancel(ctx))
	m.cancel = cancel
	m.leading.Go(func() { m.lead(loop) })
	m.leading.Go(func() { m.announce(loop) })
	m.leading.Go(func() { m.keepCredential(loop) })
	m.leading.Go(func() { m.raft.keepShort(loop, m.log) })
	m.log.Info("master started", zap.String("address", m.address), zap.String("raft", string(m.raft.address)),
		zap.String("gossip", m.gossip.Addr()), zap.String("dir", m.cfg.Dir))
	return nil
}

func (m *Master) onClose(f func() error) { m.closers = append(m.closers, f) }

func (m *Master) openRaft(ctx context.Context) (err error) {
	begun, err := m.dir.Read("raft", begunFile)
	if err != nil {
		return err
	}
	states := fsm.New(m.store, m.log, m.fail)
	states.Observe(m.applied)
	if m.raft, err = openRaft(ctx, raftConfig{
		id: raft.ServerID(m.id.ID), dir: m.dir.Path("raft"), listen: m.cfg.RaftListen, advertise: m.cfg.Advertise, dial: m.cfg.dial,
		credential: m.credential, first: m.id.genesis != nil, joining: m.id.Joined && begun == nil, fsm: states, binary: m.cfg.binary, log: m.log, faults: m.cfg.faults,
		snapshotBytes: m.cfg.snapshotBytes,
	}); err != nil {
		return err
	}
	m.begun = begun != nil
	m.onClose(m.raft.close)
	m.entries = fsm.NewLog(m.raft, fsm.LogConfig{Uses: func() int { return m.store.View().Protocol() }, Stalled: m.raft.disk.stalled})
	return nil
}

// begunFile says that this node's log has begun: should it be missing later, it was lost.
const begunFile = "begun"

func (m *Master) openGossip(ctx context.Context) (err error) {
	host := ""
	if m.cfg.Advertise != "" {
		host = hostOf(m.cfg.Advertise)
	}
	if _, err := m.dir.ReadJSON(&m.peers, peersFile); err != nil {
		return err
	}
	known := append(slices.Clone(m.peers.Gossip), m.id.GossipPeers...)
	if m.gossip, err = membership.New(membership.Config{
		ID: m.id.ID, Role: membership.RoleMaster, Address: m.address, Listen: m.cfg.GossipListen, Advertise: host,
		Key: m.id.gossipKey, Peers: known, Log: m.cfg.Log,
	}); err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	if err := m.gossip.Open(ctx); err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	m.onClose(m.gossip.Close)
	return nil
}

func (m *Master) openServer(listener net.Listener) (err error) {
	trail, err := audit.Open(audit.Config{Dir: m.dir.Path("audit"), Failed: func(err error) {
		m.log.Error("the audit log cannot be written: calls are made without a line in it", zap.Error(shortage.Explained(err)))
	}})
	if err != nil {
		return err
	}
	m.onClose(trail.Close)
	if m.server, err = server.New(server.Config{
		NodeID: m.id.ID, Version: m.cfg.Version, View: m.store.View, Log: logged{m.entries}, Stores: m.stores,
		Cluster: &masters{m}, Seal: m.id.seal, Credential: m.credential, Audit: trail, TempDir: m.dir.Path("tmp"), LogTail: m.cfg.LogTail, Logger: m.cfg.Log,
		Binaries: m.dir.Path("binaries"),
	}); err != nil {
		return err
	}
	config, err := m.credential.ServerTLS(false, nil)
	if err != nil {
		return fmt.Errorf("API: %w", err)
	}
	m.http = &http.Server{
		Handler:           m.server,
		TLSConfig:         config,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          zap.NewStdLog(m.cfg.Log.Named("http").WithOptions(zap.IncreaseLevel(zap.WarnLevel))),
		// A peer that died without a word is noticed, though its connection stays open.
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 1000, SendPingTimeout: 5 * time.Second, PingTimeout: 5 * time.Second},
	}
	m.wait.Go(func() {
		if err := m.http.Serve(tls.NewListener(connlimit.New(listener, connlimit.Total, connlimit.PerHost), config)); !errors.Is(err, http.ErrServerClosed) {
			m.fail(fmt.Errorf("serve API: %w", err))
		}
	})
	m.onClose(m.closeServer)
	return nil
}

// closeServer lets calls under way end, for a while.
func (m *Master) closeServer() error {
	err := m.server.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if shutdownErr := m.http.Shutdown(ctx); shutdownErr != nil {
		err = errors.Join(err, m.http.Close())
	}
	return err
}

// fail ends Run with the first cause.
func (m *Master) fail(err error) {
	select {
	case m.failed <- err:
	default:
	}
}

// Close stops leading, then everything else, in reverse order. It may be called more than once.
func (m *Master) Close() error {
	m.closeOnce.Do(func() {
		if m.cancel != nil {
			m.cancel()
		}
		if m.server != nil { // calls that wait for something would hold the server open
			m.server.Close()
		}
		m.leading.Wait()
		var errs []error
		for i := len(m.closers) - 1; i >= 0; i-- {
			errs = append(errs, m.closers[i]())
		}
		m.wait.Wait()
		m.closeErr = errors.Join(errs...)
	})
	return m.closeErr
}
