package fleet

import (
	"time"

	"millrace/master/state"
)

// World is all that a plan follows from: what the log says, and what the leader knows of nodes, jobs and providers now. Planning
// changes nothing of it.
type World struct {
	Now      time.Time
	Begun    time.Time        // since when this leader looks after the fleet
	Settled  bool             // nodes have had the time to find this leader: one that is not up is lost
	Clusters []*state.Cluster // that have not ended, the oldest first
	Nodes    []*state.Node    // all workers, those that were removed too
	Launches []*state.Launch
	Tokens   []*state.Token    // the site's join tokens
	Jobs     map[string]JobsOf // by cluster

	Up        map[string]bool      // nodes with a session, as what the log says they are
	Lost      map[string]time.Time // since when the others have had none, as far as this leader knows
	Processes map[string]string    // of nodes with a session
	Burdens   map[string]Burden    // by node: what losing it would cost
	Drained   map[string]bool      // nodes that leave and are up: nothing is needed of them any more
	Spare     map[string]bool      // nodes that leave and are lost: no block would be missed

	Providers map[string]Kind    // by name
	Default   string             // provider of groups that name none
	Listings  map[string]Listing // by provider
	Calls     map[string]Progress
	Backoffs  map[string]Backoff  // by group: of its launches
	Refusals  map[string]Refusal  // by group: why a core node of it may not leave
	Decisions map[string]Decision // by group that scales by itself
	Farewells map[string]Farewell // nodes that said they are to go for good
	Back      map[string]bool     // nodes that drain for that, and were started again instead
	Rules     Rules
}

// Farewell is a node's word that it is to go for good.
type Farewell struct {
	Grace   time.Duration // that it asks for; 0 = the usual
	Process string        // of the node, that says so
}

// Kind is how a provider gives nodes.
type Kind struct {
	Pool    bool // nodes that have joined the site and are free; else it is asked
	Revives bool // asked again with the same key it starts a node again that has died
}

// JobsOf is what of a cluster's jobs decides about its end.
type JobsOf struct {
	Open    []*state.Job // that have not ended
	Any     bool         // it has had one
	LastEnd time.Time    // of those that have ended
}

// Burden is what losing a node costs.
type Burden struct {
	Attempts   int   // in its slots
	Needed     int   // open jobs that are still to read map output that lies there
	BlockBytes int64 // of a core node
}

// Listing is what a provider said last about its machines.
type Listing struct {
	At       time.Time // when it was asked; zero: it never answered
	Machines map[string]string
}

// Progress is how far the calls to a provider are for one launch.
type Progress struct {
	Running bool
	After   time.Time // when the next one may begin
	Done    time.Time // when the last one ended
}

// Backoff keeps a group from being given launches that fail one after another.
type Backoff struct {
	Failures int
	At       time.Time // of the last one
	Until    time.Time
	Problem  string
}

// Refusal says why a group's nodes may not leave, and how long that is believed.
type Refusal struct {
	Until  time.Time
	Reason string
}

// Rules are the times that plans go by.
type Rules struct {
	JoinWithin    time.Duration // of a launch
	Grace         time.Duration // of attempts on nodes that leave, if the group says nothing
	ReplaceAfter  time.Duration // how long a launched or a pool's node may be lost before another takes its place
	LostPatience  time.Duration // how long a node that leaves may be lost before it is taken out
	ListedWithin  time.Duration // so long after its launch a machine may be missing in its provider's list
	TokensKept    time.Duration // so long after its end a join token is known: whoever uses it is told that it has expired
	StepsPause    time.Duration // after the last job of a cluster that ends with its jobs
	LaunchesAtOne int           // launches of one group under way
}

// DefaultRules are those of a site.
func DefaultRules() Rules {
	return Rules{JoinWithin: 10 * time.Minute, Grace: 5 * time.Minute, ReplaceAfter: 10 * time.Minute, LostPatience: 30 * time.Second,
		ListedWithin: 2 * time.Minute, TokensKept: 24 * time.Hour, StepsPause: 10 * time.Second, LaunchesAtOne: 50}
}

// Plan is what is to be done next.
type Plan struct {
	Steps  []Step
	Calls  []Call
	Groups map[string]Status
}

// Step is one entry of the log with the event that tells of it; either may be missing. Or it is a launch, which needs
// an id and a token before it can be logged.
type Step struct {
	Command state.Command
	Launch  *state.Launch // without id, token and state
	Cluster string        // of the event
	Event   *state.Event
	Failed  string // group one of whose launches failed thereby
}

// Call is something to ask a provider for.
type Call struct {
	Launch    *state.Launch
	Terminate bool // else: launch
}

// Status is what a group still waits for.
type Status struct {
	Launching     int // asked for, not joined yet
	Bootstrapping int
	Draining      int
	Missing       int    // that the provider cannot give now
	Reason        string // why it is not at its target; "" = it is, or is about to be
}
