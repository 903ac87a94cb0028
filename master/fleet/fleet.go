// Package fleet makes true what the log says of clusters: how many nodes their groups have, where these come from, when a cluster ends. It
// runs on the leader alone. What is to be done next is planned by a pure function (Make) of the log and of what the leader knows; one loop
// logs the steps and begins the calls to providers, which run beside it. Nothing that matters is kept in memory: a new leader's fleet goes on
// from the log, and asks providers again with the same keys.
package fleet

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"millrace/master/leaving"
	"millrace/master/session"
	"millrace/master/state"
	"millrace/master/tracker"
	"millrace/pkg/api"
	"millrace/pkg/security"
)

const (
	lookEvery = time.Second
	listEvery = 15 * time.Second
	// A provider that starts nodes again where they were is to notice soon that one has died.
	reviveEvery   = time.Second
	callsAtOnce   = 8 // to one provider
	launchWithin  = 2 * time.Minute
	listWithin    = time.Minute
	refusalLasts  = 10 * time.Second
	arrivesWithin = 10 * time.Second
	roundsAtOnce  = 8 // plans made one after another before other things have their turn
	tokenLeftover = time.Minute
	// So long after its machine was ended a launch is looked for in its provider's lists: a call that was broken off may have started it later.
	ghostsWithin = 10 * time.Minute
)

// Sessions are the workers' open sessions.
type Sessions interface {
	Nodes() []session.Node
	Send(node string, m *api.MasterMessage) bool
}

// Jobs tells of the clusters' jobs, and hears what becomes of nodes and of them.
type Jobs interface {
	leaving.Jobs
	Load(cluster string, needed bool) tracker.Load
	NodeChanged(node string)
	ClusterChanged(cluster string)
}

// Blocks tells of the core nodes' blocks, and hears what becomes of nodes.
type Blocks interface {
	leaving.Blocks
	NodeChanged(node string)
}

// Config sets up a Fleet.
type Config struct {
	View func() *state.View
	// Apply logs a command and returns what it gave.
	Apply func(context.Context, state.Command) (any, error)
	// Known says whether all masters of the site know the commands of this package: until then nothing is done.
	Known    func() bool
	Sessions Sessions
	Jobs     Jobs
	Blocks   Blocks
	// Settled is closed when nodes have had the time to find this leader.
	Settled <-chan struct{}
	// Digest tells a cluster's bootstrap actions from all others, as the nodes are told it.
	Digest func(*state.Cluster) string

	Providers map[string]Provider // beside the pool, by name
	Default   string              // of groups that name none; "" = the pool
	Seal      security.SealKey
	Masters   func() []string                                   // https://host:port
	UserData  func(r Request, site *state.Site) (string, error) // nil: requests have none
	NewID     func(prefix string) (string, error)
	Rules     Rules // zero = DefaultRules
	Log       *zap.Logger
	Now       func() time.Time // nil = time.Now
}

// Fleet is one leader's, for one term.
type Fleet struct {
	cfg   Config
	log   *zap.Logger
	judge leaving.Judge
	kinds map[string]Kind

	poke    chan struct{} // capacity 1
	results chan func(ctx context.Context)
	calls   sync.WaitGroup
	alone   bool // nothing runs beside the loop: for simulations
	begun   time.Time

	// Owned by the loop.
	lost      map[string]time.Time
	progress  map[string]Progress
	underWay  map[string]int // calls, by provider
	listings  map[string]Listing
	listing   map[string]time.Time // by provider: when it is to be asked next; the zero time while it is being asked
	backoffs  map[string]Backoff
	refusals  map[string]Refusal
	scalers   map[string]*Scaler
	sampled   map[string]time.Time       // by cluster: when its scaling groups were looked at last
	troubles  map[string]string          // said last, by what they are of
	dropped   map[string]dropped         // launches whose machines were ended just now
	strangers map[string]map[string]bool // by provider: machines that it listed last and nobody asked for

	mu     sync.Mutex
	status map[string]Status
	heard  []heard
	leave  map[string]Farewell  // nodes that said they are to go for good
	lives  map[string]string    // by node: its process, as it called itself last
	placed map[string]time.Time // nodes that this leader gave a place, and when
	came   map[string]time.Time // nodes that have begun a session, and when last
}

// New checks the configuration and starts nothing.
func New(c Config) (*Fleet, error) {
	if c.View == nil || c.Apply == nil || c.Sessions == nil || c.Jobs == nil || c.Blocks == nil || c.NewID == nil || c.Masters == nil {
		return nil, errors.New("fleet: View, Apply, Sessions, Jobs, Blocks, NewID and Masters are needed")
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rules == (Rules{}) {
		c.Rules = DefaultRules()
	}
	if c.Default == "" {
		c.Default = PoolProvider
	}
	if c.Known == nil {
		c.Known = func() bool { return true }
	}
	if c.Digest == nil {
		c.Digest = func(*state.Cluster) string { return "" }
	}
	f := &Fleet{
		cfg: c, log: c.Log.Named("fleet"), kinds: map[string]Kind{PoolProvider: {Pool: true}},
		judge: leaving.Judge{View: c.View, Sessions: c.Sessions, Jobs: c.Jobs, Blocks: c.Blocks},
		begun: c.Now(), poke: make(chan struct{}, 1), results: make(chan func(context.Context), 64),
		lost: map[string]time.Time{}, progress: map[string]Progress{}, underWay: map[string]int{}, listings: map[string]Listing{}, listing: map[string]time.Time{},
		backoffs: map[string]Backoff{}, refusals: map[string]Refusal{}, scalers: map[string]*Scaler{}, sampled: map[string]time.Time{}, troubles: map[string]string{}, dropped: map[string]dropped{}, strangers: map[string]map[string]bool{},
		status: map[string]Status{}, leave: map[string]Farewell{}, lives: map[string]string{}, placed: map[string]time.Time{}, came: map[string]time.Time{},
	}
	for name, p := range c.Providers {
		r, revives := p.(Reviver)
		f.kinds[name] = Kind{Revives: revives && r.Revives()}
		f.listing[name] = time.Unix(0, 0)
	}
	return f, nil
}

// Providers are the names of what nodes can be had from, the usual one first.
func (f *Fleet) Providers() []string {
	names := slices.Sorted(maps.Keys(f.kinds))
	i := slices.Index(names, f.cfg.Default)
	if i < 0 {
		return names
	}
	return slices.Insert(slices.Delete(names, i, i+1), 0, f.cfg.Default)
}

// Poke has the fleet look at once at what there is by now.
func (f *Fleet) Poke() {
	select {
	case f.poke <- struct{}{}:
	default:
	}
}

// Status says how the fleet gets on with a group.
func (f *Fleet) Status(group string) Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status[group]
}

// Run does what is to be done until ctx ends. What goes wrong is tried again, and logged when it changes.
func (f *Fleet) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer f.calls.Wait()
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	settled := f.cfg.Settled
	for ctx.Err() == nil {
		f.Round(ctx)
		select {
		case <-f.poke:
		case <-tick.C:
		case <-settled:
			settled = nil
		case done := <-f.results:
			done(ctx)
			f.takeResults(ctx)
		case <-ctx.Done():
		}
	}
}

func (f *Fleet) takeResults(ctx context.Context) {
	for range cap(f.results) {
		select {
		case done := <-f.results:
			done(ctx)
		default:
			return
		}
	}
}

// Round plans and does what is due now. Run does it again and again.
func (f *Fleet) Round(ctx context.Context) {
	if !f.cfg.Known() {
		return
	}
	f.takeHeard(ctx)
	f.list(ctx)
	for range roundsAtOnce {
		p := Make(f.look())
		f.keep(p)
		f.begin(ctx, p.Calls)
		if len(p.Steps) == 0 {
			return
		}
		if !f.do(ctx, p.Steps) || ctx.Err() != nil {
			return // somebody was faster, or this master leads no longer: what is to be done now is looked at anew
		}
	}
	f.Poke()
}

func (f *Fleet) keep(p Plan) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status = p.Groups
}

// trouble logs what goes wrong, once.
func (f *Fleet) trouble(what string, err error) {
	if f.troubles[what] != err.Error() {
		f.troubles[what] = err.Error()
		f.log.Warn(what, zap.Error(err))
	}
}

func (f *Fleet) well(what string) { delete(f.troubles, what) }
