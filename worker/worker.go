// Package worker is one worker node: it joins a site, holds a session with the
// leader, runs the attempts it is given in its slots, keeps and serves their map
// output. It decides nothing about jobs: the leader does, and it obeys the highest
// term it has seen. What runs goes on when the session breaks.
//
// A node has a place: a role in a cluster, or none, in the site's pool. The leader may give it another one: then it ends its
// life there, deletes what it holds, and begins another life in the same process.
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
	"millrace/pkg/filesocket"
	"millrace/pkg/membership"
	"millrace/pkg/nodedir"
	"millrace/pkg/objectstore"
	"millrace/pkg/security"
	"millrace/worker/attempt"
	"millrace/worker/programs"
	"millrace/worker/shuffle"
)

const (
	fetchesAtOnce = 64          // shuffle requests open, over all reduces
	stopGrace     = time.Second // for attempts that have just ended to be reported, when the node stops
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
	DataDirs     []string // where a core node keeps blocks, one for each disk; default: blocks, in Dir
	BlockReserve int64    // bytes that blocks leave free on each disk; default: a twentieth of the smallest, at most 10 GiB
	Rack         string   // failure domain of a core node, for the placement of replicas
	Name         string   // for people; default: the host's
	Version      string
	Log          *zap.Logger
	Executable   string   // started for attempts; default: this process's own
	Arguments    []string // of Executable; default: attempt
	LogTail      LogTail  // the last of what Log was given, for the masters; nil: there is none
	TaskUser     string   // whom attempts run as; default: this process's own user; needs root
	LeaveOnTerm  bool     // the end of Run's context is to leave the site for good, drained
}

// clusterFiles is the block stores of the site's clusters, as this node reaches them; hdfs:/// is its own cluster's.
type clusterFiles interface {
	filesocket.Store
	AbortUpload(ctx context.Context, bucket, key, id string) error
}

// Worker is one node. Use New, then Run.
type Worker struct {
	cfg  Config
	log  *zap.Logger
	user *attempt.User // nil: attempts run as the worker's own

	dir         *nodedir.Dir
	id          *identity // its place changes between two lives only
	incarnation string    // of the process
	pid         int
	address     string // https://host:port
	term        atomic.Uint64
	termKept    atomic.Uint64 // on the disk
	heard       atomic.Int64  // of a leader, last; Unix ns
	leaving     atomic.Bool   // for good

	idMu    sync.Mutex // guards id's fields that change, and which server it is
	client  atomic.Pointer[client.Client]
	dial    dialer
	clients *client.Nodes
	gossip  *membership.Membership

	credential *security.Live // what id's files have, in use
	renewals   chan struct{}  // capacity 1: the certificate is to be renewed now
	peers      *peers

	// What follows belongs to the present life.
	lived    int // lives before it
	assign   func(place)
	server   *server
	own      *ownPort
	actions  *bootstraps
	site     *site
	logs     *attempt.Logs
	pool     *attempt.Pool
	programs *programs.Cache
	segments *shuffle.Store
	blocks   *blocks // nil on a task node
	fetches  shuffle.Limit
	slots    *slots
	reduces  *reduces
	uploads  *uploads
	pushed   pushed
	health   *health

	clusterFiles clusterFiles       // reaches the block stores of the site's clusters
	files        *filesocket.Server // serves them to attempts

	openStore func(*api.ObjectStore) (objectstore.Store, error)
	room      func() (int64, error) // bytes that attempts may still write to the disk
	noRoom    time.Duration         // how long an attempt waits for some
	noCore    time.Duration         // how long a map's segment waits for a core node to take it
	stopGrace time.Duration         // the constant

	leavePatience time.Duration

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
	user, err := attempt.LookupUser(c.TaskUser)
	if err != nil {
		return nil, fmt.Errorf("worker: %w", err)
	}
	life := make([]byte, 8)
	if _, err := rand.Read(life); err != nil {
		return nil, fmt.Errorf("worker: %w", err)
	}
	return &Worker{cfg: c, log: c.Log, user: user, renewals: make(chan struct{}, 1), incarnation: hex.EncodeToString(life), pid: os.Getpid(), openStore: c.openStore,
		room: roomFor(c.Dir), noRoom: noRoom, noCore: noCore, stopGrace: stopGrace, leavePatience: leavePatience}, nil
}

// Run is the node's work, until ctx ends: then it leases no more, gives attempts a moment to
// end, kills the rest, and keeps its data: the next start on the same directory is the same node. With LeaveOnTerm the end
// of ctx is only the beginning of a leave for good, after which nothing is kept.
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
	defer listener.Close()
	if w.id, err = w.identify(ctx); err != nil {
		return err
	}
	w.log = w.log.With(zap.String("node", w.id.ID))
	if err := w.meet(listener.Addr()); err != nil {
		return err
	}
	defer w.clients.Close()
	defer func() { w.client.Load().Close() }()
	if err := w.gossip.Open(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.gossip.Close()) }()
	w.log.Info("worker serves", zap.String("address", w.address), zap.Int("slots", w.cfg.Slots), zap.Int64("memoryBytes", w.cfg.MemoryBytes))

	term := ctx
	if w.cfg.LeaveOnTerm {
		ctx = context.WithoutCancel(ctx)
	}
	parts, ctx := errgroup.WithContext(ctx)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if w.cfg.LeaveOnTerm {
		parts.Go(func() error { w.leave(ctx, term, stop); return nil })
	}
	parts.Go(func() error { w.followMasters(ctx); return nil })
	parts.Go(func() error { w.keepCertificate(ctx); return nil })
	parts.Go(func() error { w.peers.run(ctx); return nil })
	parts.Go(func() error {
		defer stop()
		return w.lives(ctx, port{listener.(*net.TCPListener)})
	})
	if err := parts.Wait(); !w.leaving.Load() || !errors.Is(err, ErrRemoved) {
		return err
	}
	return w.left()
}

// meet makes what the node reaches the others by, and they it; it starts nothing.
func (w *Worker) meet(bound net.Addr) (err error) {
	if w.address, err = w.advertised(bound); err != nil {
		return err
	}
	masters := w.id.Masters
	for _, m := range w.cfg.Join {
		if !slices.Contains(masters, m) {
			masters = append(masters, m)
		}
	}
	if w.credential, err = security.NewLive(w.id.credential); err != nil {
		return fmt.Errorf("%s: %w", w.dir.Path("pki"), err)
	}
	if err := w.connect(masters, w.id.credential); err != nil {
		return err
	}
	w.peers = newPeers(func(ctx context.Context) (*api.MembersResponse, error) { return w.client.Load().Members(ctx) }, w.log)
	w.dial = func(ctx context.Context) (stream, error) { return w.client.Load().Session(ctx) }
	w.clients = client.NewNodes(w.credential)
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
