// Package worker is one worker node: it joins a site, holds a session with the
// leader, runs the attempts it is given in its slots, keeps and serves their map
// output. It decides nothing about jobs: the leader does, and it obeys the highest
// term it has seen. What runs goes on when the session breaks.
package worker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"millrace/pkg/api"
	"millrace/pkg/client"
	"millrace/pkg/membership"
	"millrace/pkg/nodedir"
	"millrace/pkg/objectstore"
	"millrace/pkg/security"
	"millrace/worker/attempt"
	"millrace/worker/programs"
	"millrace/worker/shuffle"
)

const (
	fetchesAtOnce = 64 // shuffle requests open, over all reduces
	stopGrace     = time.Second
	stopPoll      = 10 * time.Millisecond
	renewEvery    = 12 * time.Hour
)

// Config sets up a Worker. Zero values mean defaults.
type Config struct {
	Dir          string   // the node's own; made if need be
	Join         []string // URLs of masters; needed at the first start only
	Token        string   // join token; needed at the first start only
	Listen       string   // host:port of the HTTPS port; default 127.0.0.1:0
	Advertise    string   // host, or host:port, that others use; default: what Listen has
	GossipListen string   // host:port; default: Listen's host, any port
	Slots        int      // attempts at once; default: one per CPU
	MemoryBytes  int64    // for all attempts; default: this machine's less a reserve
	Name         string   // for people; default: the host's
	Version      string
	Log          *zap.Logger
	Executable   string   // started for attempts; default: this process's own
	Arguments    []string // of Executable; default: attempt
}

// Worker is one node. Use New, then Run.
type Worker struct {
	cfg Config
	log *zap.Logger

	dir         *nodedir.Dir
	id          *identity
	incarnation string
	pid         int
	address     string // https://host:port
	term        atomic.Uint64
	termKept    atomic.Uint64 // on the disk

	idMu     sync.Mutex // guards id's fields that change: certificate, masters, peers
	client   atomic.Pointer[client.Client]
	dial     dialer
	clients  *nodeClients
	gossip   *membership.Membership
	server   *server
	site     *site
	logs     *attempt.Logs
	pool     *attempt.Pool
	programs *programs.Cache
	segments *shuffle.Store
	fetches  shuffle.Limit
	slots    *slots
	reduces  *reduces
	uploads  *uploads
	pushed   pushed
	health   *health

	openStore func(*api.ObjectStore) (objectstore.Store, error)
	room      func() (int64, error) // bytes that attempts may still write to the disk
	noRoom    time.Duration         // how long an attempt waits for some
	noCore    time.Duration         // how long a map's segment waits for a core node to take it

	tasks sync.WaitGroup // attempts and what cleans up after jobs
}

// New checks the configuration and starts nothing.
func New(c Config) (*Worker, error) {
	if c.Dir == "" {
		return nil, errors.New("worker: no directory given")
	}
	if c.Listen == "" {
		c.Listen = "127.0.0.1:0"
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return nil, fmt.Errorf("worker: listen address %q is not of the form host:port", c.Listen)
	}
	if c.GossipListen == "" {
		c.GossipListen = net.JoinHostPort(host, "0")
	}
	if _, _, err := net.SplitHostPort(c.GossipListen); err != nil {
		return nil, fmt.Errorf("worker: gossip address %q is not of the form host:port", c.GossipListen)
	}
	if c.Slots < 0 || c.MemoryBytes < 0 {
		return nil, fmt.Errorf("worker: %d slots, %d bytes of memory", c.Slots, c.MemoryBytes)
	}
	if c.Slots == 0 {
		c.Slots = runtime.NumCPU()
	}
	if c.MemoryBytes == 0 {
		if c.MemoryBytes, err = memoryForAttempts(); err != nil {
			return nil, fmt.Errorf("worker: memory size: %w", err)
		}
	}
	if c.Name == "" {
		if c.Name, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("worker: %w", err)
		}
	}
	if c.Executable == "" {
		if c.Executable, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("worker: %w", err)
		}
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	life := make([]byte, 8)
	if _, err := rand.Read(life); err != nil {
		return nil, fmt.Errorf("worker: %w", err)
	}
	return &Worker{cfg: c, log: c.Log, incarnation: hex.EncodeToString(life), pid: os.Getpid(), openStore: c.openStore,
		room: roomFor(c.Dir), noRoom: noRoom, noCore: noCore}, nil
}

// Run is the node's life, until ctx ends: then it leases no more, gives attempts a moment to
// end, kills the rest, and keeps its data: the next start on the same directory is the same node.
func (w *Worker) Run(ctx context.Context) (err error) {
	if w.dir, err = openDirectory(w.cfg.Dir, w.cfg.Version); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.dir.Close()) }()
	if err := w.readTerm(); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", w.cfg.Listen)
	if err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	defer listener.Close() // again, if the server has it: harmless
	if w.id, err = w.identify(ctx); err != nil {
		return err
	}
	w.log = w.log.With(zap.String("node", w.id.ID))
	if err := w.assemble(listener.Addr()); err != nil {
		return err
	}
	if err := w.pool.Open(ctx); err != nil {
		return errors.Join(err, w.pool.Close())
	}
	defer func() { err = errors.Join(err, w.pool.Close()) }()
	defer w.clients.close()
	defer func() { w.client.Load().Close() }()
	if err := w.gossip.Open(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.gossip.Close()) }()
	w.log.Info("worker serves", zap.String("address", w.address), zap.Int("slots", w.cfg.Slots), zap.Int64("memoryBytes", w.cfg.MemoryBytes))
	return w.live(ctx, listener)
}

// assemble makes the node's parts; it starts nothing.
func (w *Worker) assemble(bound net.Addr) (err error) {
	if w.address, err = w.advertised(bound); err != nil {
		return err
	}
	masters := w.id.Masters
	for _, m := range w.cfg.Join {
		if !slices.Contains(masters, m) {
			masters = append(masters, m)
		}
	}
	if err := w.connect(masters, w.id.credential); err != nil {
		return err
	}
	w.dial = func(ctx context.Context) (stream, error) { return w.client.Load().Session(ctx) }
	w.clients = newNodeClients(w.id.credential)
	w.site = &site{open: w.openStore}
	w.logs = attempt.NewLogs(w.dir.Path("logs"), 0)
	w.uploads = newUploads(w.dir.Path("logs"), w.logs, w.site, w.log)
	if err := w.uploads.find(); err != nil {
		return fmt.Errorf("logs: %w", err)
	}
	w.programs = programs.New(w.dir.Path("programs"))
	if err := w.programs.Open(); err != nil {
		return err
	}
	w.segments = shuffle.NewStore(w.dir.Path("segments"))
	if err := w.segments.Open(); err != nil {
		return err
	}
	w.health = newHealth(w)
	w.fetches = shuffle.NewLimit(fetchesAtOnce)
	w.reduces = newReduces()
	w.slots = newSlots(w.cfg.Slots, w.begin)
	w.pool, err = attempt.New(attempt.Config{Dir: w.dir.Path("attempts"), Executable: w.cfg.Executable, Args: w.cfg.Arguments, Logs: w.logs, Log: w.log})
	if err != nil {
		return err
	}
	w.server, err = newServer(w.id.credential, w.id.Site, shuffle.NewServer(w.segments, w.log), w.logs, w.log)
	if err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(strings.TrimPrefix(w.address, "https://"))
	if err != nil {
		return err
	}
	w.gossip, err = membership.New(membership.Config{ID: w.id.ID, Role: "worker", Address: w.address, Listen: w.cfg.GossipListen,
		Advertise: host, Key: w.id.gossipKey, Peers: w.id.GossipPeers, Log: w.log})
	return err
}

// connect makes the client for the masters. Sessions that are open stay so.
func (w *Worker) connect(masters []string, c security.Credential) error {
	cl, err := client.New(client.Config{Servers: masters, Credential: c, Log: w.log, UserAgent: "millrace-worker/" + w.cfg.Version})
	if err != nil {
		return err
	}
	if old := w.client.Swap(cl); old != nil {
		return old.Close()
	}
	return nil
}

// live runs everything until ctx ends or a part of it cannot go on.
func (w *Worker) live(ctx context.Context, listener net.Listener) error {
	parts, ctx := errgroup.WithContext(ctx)
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	inSession, endSession := context.WithCancel(context.WithoutCancel(ctx))
	parts.Go(func() error { return w.server.serve(serving, listener) })
	sessionsOver := make(chan struct{})
	parts.Go(func() error {
		defer close(sessionsOver)
		w.sessions(inSession)
		return nil
	})
	parts.Go(func() error { w.uploads.run(inSession); return nil })
	parts.Go(func() error { w.followMasters(ctx); return nil })
	parts.Go(func() error { w.keepCertificate(ctx); return nil })
	parts.Go(func() error { return w.health.watch(ctx) })
	parts.Go(func() error {
		<-ctx.Done()
		w.log.Info("worker stops")
		w.slots.stop()
		w.settle(stopGrace)
		endSession() // first: the leader can hand the rest out again at once
		w.slots.killAll(errStopping)
		<-sessionsOver // which start tasks
		w.tasks.Wait()
		stopServing()
		return nil
	})
	defer stopServing()
	defer endSession()
	return parts.Wait()
}

// errStopping is the cause of kills at the node's end; nobody waits for their reports.
var errStopping = errors.New("the worker stops")

// settle waits until nothing runs and everything is reported, at most for the grace.
func (w *Worker) settle(grace time.Duration) {
	for late := time.Now().Add(grace); !w.slots.settled() && time.Now().Before(late); {
		time.Sleep(stopPoll)
	}
}

// keepTerm writes down the highest term seen.
func (w *Worker) keepTerm() error {
	term := w.term.Load()
	if term == w.termKept.Load() {
		return nil
	}
	if err := w.dir.Write([]byte(strconv.FormatUint(term, 10)), "term"); err != nil {
		return err
	}
	w.termKept.Store(term)
	return nil
}

func (w *Worker) readTerm() error {
	data, err := w.dir.Read("term")
	if err != nil || data == nil {
		return err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return fmt.Errorf("read %s: %w", w.dir.Path("term"), err)
	}
	w.term.Store(n)
	w.termKept.Store(n)
	return nil
}
