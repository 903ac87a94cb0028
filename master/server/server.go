// Package server is what a master says to the outside: the handlers of its services, who may
// call them, how a follower forwards to the leader, and what errors become. It decides
// nothing about jobs: it checks a request, puts a command into the log or asks the leader's parts, and answers.
package server

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"millrace/master/session"
	"millrace/master/state"
	"millrace/master/tracker"
	"millrace/pkg/api"
	"millrace/pkg/api/apiconnect"
	"millrace/pkg/objectstore"
	"millrace/pkg/protocol"
	"millrace/pkg/security"
)

// ErrNotLeader says that this master cannot carry out a command, as it leads no longer or has
// no majority. A Log's errors wrap it: callers repeat.
var ErrNotLeader = errors.New("this master is not the leader")

// ErrUnsettled says why the set of masters cannot be changed so, or is not yet.
var ErrUnsettled = errors.New("the set of masters")

// ErrUpgrading says that something cannot be done before all masters are of this version.
var ErrUpgrading = errors.New("the masters are being upgraded")

// Admin is the user who sees the site's secrets.
const Admin = "admin"

// maxMessage bounds what a caller may send in one message: job specs and pieces of files.
const maxMessage = 4 << 20

// Log puts a command into the replicated log and waits until it is applied.
type Log interface {
	Apply(ctx context.Context, c state.Command) (any, error)
}

// Sessions are the workers' open sessions.
type Sessions interface {
	Serve(ctx context.Context, nodeID string, s session.Stream) error
	Nodes() []session.Node
	LastSeen(node string) time.Time
	Probe(ctx context.Context, node string, p *api.StoreProbe) (reason string, err error)
}

// Tracker takes jobs through their phases; *tracker.Tracker is one.
type Tracker interface {
	Submitted(job string)
	Cancelled(job string)
	Live(job string) (tracker.Live, bool)
	Lives(jobs []string) map[string]tracker.Live
	Changed(job string) <-chan struct{}
	Queued(cluster string) int
	// StoreAway says whether jobs of a cluster wait for a store that does not answer.
	StoreAway(cluster string) tracker.Away
	RunningOn(node string) int
	Reason(node string) string
	// NodeChanged has it take up what the log says of a node by now.
	NodeChanged(node string)
	// ClusterChanged has it take up what the log says of a cluster by now.
	ClusterChanged(cluster string)
	Drained(node string) tracker.Drain
}

// Leader is what a master has while it leads. Done is closed when it does so no longer.
type Leader struct {
	Term     uint64
	Sessions Sessions
	Tracker  Tracker
	Files    Files
	Fleet    Fleet
	// Verify asks whether this master still leads: reads are linearizable by it.
	Verify func(ctx context.Context) error
	Done   <-chan struct{}
	// Settled is closed when nodes have had the time to find this leader; nil: they had it.
	Settled <-chan struct{}
}

// Stores opens object stores.
type Stores interface {
	Open(s *api.ObjectStore) (objectstore.Store, error)
	// WithFiles is a store that has the block stores of the site's clusters, too; hdfs:/// is that of the one with this id.
	WithFiles(s objectstore.Store, cluster string) objectstore.Store
}

// Cluster is what a master knows of the other masters; the leader changes their set.
type Cluster interface {
	// Leader is the leader's API address, https://host:port; "" while there is none.
	Leader() string
	// Alive says whether a master is believed to be up.
	Alive(nodeID string) bool
	// GossipPeers are addresses for a new node to find others by: of masters of the set that are up.
	GossipPeers() []string
	// Member is VOTER, LEARNER or NONE.
	Member(nodeID string) string
	// LastHeard is what a master said of itself last to this one, or what this one has to say of itself; zero if it has not.
	LastHeard(nodeID string) Heard
	// Voters are the ids of the masters that vote, as this one knows it.
	Voters() []string
	// Announced brings the set up to date about a master that is alive, and says whether nothing is left to do.
	Announced(ctx context.Context, nodeID string, a *api.AnnounceRequest) (settled bool, err error)
	// Admit lets a master into the set that was taken out of it: once it announces itself.
	Admit(ctx context.Context, nodeID string) error
	// Expel takes a master out of the set, and out of the site for good if it is lost. The leader itself gives up its
	// leadership first: ErrNotLeader.
	Expel(ctx context.Context, nodeID string) error
}

// Heard is what a master said of itself when it announced itself.
type Heard struct {
	At        time.Time
	PID       int64
	Protocol  int    // that it speaks; 0: not known
	Problem   string // what is wrong with it; "" = nothing
	CannotLog bool   // the problem is its log's disk: it has no part in anything until that is mended
	Trust     string // what it uses of the site's CA: security.Credential.InUse
}

// Config sets up a Server.
type Config struct {
	NodeID     string
	Version    string
	View       func() *state.View
	Log        Log
	Stores     Stores
	Cluster    Cluster
	Seal       security.SealKey
	Credential *security.Live // of this master
	Audit      Auditor        // nil: nothing is kept of who did what
	TempDir    string         // for files on their way to the store
	LogTail    LogTail        // the last of this process's log; nil: there is none
	Logger     *zap.Logger
	Now        func() time.Time // nil = time.Now

	Binaries   string // folder with programs for machines of other kinds; there may be none
	Executable string // the program that is handed out; "" = this process's own
}

// Server answers everything on a master's HTTPS port.
type Server struct {
	cfg      Config
	log      *zap.Logger
	lead     atomic.Pointer[Leader]
	mux      *http.ServeMux
	forward  *forwarder
	workers  workerLogs
	plans    *planCache
	reach    reach
	binaries *binaries
	reaching chan struct{}    // a value for each call of Reach under way
	binary   protocol.Speaker // this one
	skewed   skewed
	members  memberIDs
	moves    sync.Mutex // held while it is decided whether a node may leave, and logged
	closed   chan struct{}
	once     func()

	watchEvery time.Duration
}

// New checks the configuration; the server answers once Handler is served.
func New(c Config) (*Server, error) {
	if c.View == nil || c.Log == nil || c.Stores == nil || c.Cluster == nil || c.Credential == nil {
		return nil, errors.New("server: View, Log, Stores, Cluster and Credential are needed")
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	if c.Audit == nil {
		c.Audit = unheard{}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	s := &Server{cfg: c, log: c.Logger.Named("server"), mux: http.NewServeMux(), plans: newPlanCache(), reach: reach{now: c.Now},
		binaries: newBinaries(c.Executable, c.Binaries, c.Version), reaching: make(chan struct{}, reachAtOnce),
		binary: protocol.Own("millrace-master/" + c.Version), closed: make(chan struct{}), watchEvery: watchEvery}
	s.forward, s.workers = newForwarder(c.Credential), workerLogs{c.Credential}
	closing := new(atomic.Bool)
	s.once = func() {
		if closing.CompareAndSwap(false, true) {
			close(s.closed)
		}
	}
	options := connect.WithOptions(
		connect.WithInterceptors(&auditInterceptor{s}, &errorInterceptor{log: s.log, deposed: s.deposed}),
		connect.WithReadMaxBytes(maxMessage),
		connect.WithCompressMinBytes(1024),
	)
	s.mux.Handle(apiconnect.NewMillraceServiceHandler(&millraceService{Server: s}, options))
	s.mux.Handle(apiconnect.NewJoinServiceHandler(&joinService{Server: s}, options))
	s.mux.Handle(apiconnect.NewWorkerServiceHandler(&workerService{Server: s}, options))
	s.mux.Handle(apiconnect.NewFilesServiceHandler(&filesService{Server: s}, options))
	s.mux.Handle(apiconnect.NewMasterServiceHandler(&masterService{Server: s}, options))
	return s, nil
}

// Lead makes this master answer as the leader; nil ends that.
func (s *Server) Lead(l *Leader) { s.lead.Store(l) }

// Leads says whether this master answers as the leader.
func (s *Server) Leads() bool { return s.lead.Load() != nil }

// Close ends streams that wait for something, so that the HTTP server can shut down, and drops idle connections.
func (s *Server) Close() error {
	s.once()
	s.forward.close()
	return nil
}

// millraceService is the handler of api.MillraceService; its methods are in a file per noun.
type millraceService struct {
	*Server
}
