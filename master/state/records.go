package state

import "time"

// Roles of instance groups, nodes and join tokens.
const (
	RoleMaster = "MASTER"
	RoleCore   = "CORE"
	RoleTask   = "TASK"
	RolePool   = "POOL" // of a free node of the site's pool, and of the tokens for it
)

// Roles of users: each may do what the next one may.
const (
	UserAdmin  = "admin"
	UserSubmit = "submit" // jobs and files
	UserRead   = "read"
)

// States of a cluster as logged. What lies between (STARTING, BOOTSTRAPPING, RUNNING, WAITING) follows from its nodes and jobs.
const (
	ClusterLive                 = "" // it takes jobs and nodes
	ClusterTerminating          = "TERMINATING"
	ClusterTerminated           = "TERMINATED"
	ClusterTerminatedWithErrors = "TERMINATED_WITH_ERRORS"
)

// Why a cluster ends, as EMR has it.
const (
	ReasonUserRequest       = "USER_REQUEST"
	ReasonAllStepsCompleted = "ALL_STEPS_COMPLETED"
	ReasonAutoTerminate     = "AUTO_TERMINATE"
	ReasonBootstrapFailure  = "BOOTSTRAP_FAILURE"
	ReasonStepFailure       = "STEP_FAILURE"
)

// How far a node's bootstrap actions are. "" = the cluster has none, or they have not begun.
const (
	BootstrapDone   = "DONE"
	BootstrapFailed = "FAILED"
)

// States of a launch.
const (
	LaunchRequested   = "REQUESTED"   // the provider is to be asked, or is being asked
	LaunchGiven       = "GIVEN"       // the provider has answered: the node is to join
	LaunchJoined      = "JOINED"      // a node has
	LaunchTerminating = "TERMINATING" // the provider is to be told that it is wanted no more
)

// Phases of a change of the site's CA.
const (
	CASteady    = ""
	CASpreading = "SPREADING" // CAPEM has both, the old one issues
	CAIssuing   = "ISSUING"   // the new one issues
)

// States of a job, as EMR has them.
const (
	JobPending       = "PENDING"
	JobRunning       = "RUNNING"
	JobCompleted     = "COMPLETED"
	JobFailed        = "FAILED"
	JobCancelPending = "CANCEL_PENDING"
	JobCancelled     = "CANCELLED"
)

// Phases of a RUNNING job. PhasePlanning is never logged: it is what a PENDING
// job is shown as while the leader plans it.
const (
	PhasePlanning   = "PLANNING"
	PhaseMapping    = "MAPPING"
	PhaseReducing   = "REDUCING"
	PhaseCommitting = "COMMITTING"
)

// Kinds of a task.
const (
	Map    = "m"
	Reduce = "r"
)

// States of an attempt that has ended without winning.
const (
	AttemptFailed = "FAILED"
	AttemptKilled = "KILLED"
	AttemptLost   = "LOST"
)

// States of a node as logged. Whether it is RUNNING or LOST now is the leader's
// to know, from sessions.
const (
	NodeAdmitted   = "ADMITTED"
	NodeTerminated = "TERMINATED"
)

// Site is the one record of the site as a whole.
type Site struct {
	ID           string    `json:"id"`
	CreatedAt    time.Time `json:"createdAt"`
	CAPEM        string    `json:"caPem"`
	SealedCAKey  []byte    `json:"sealedCaKey"`  // under the masters' seal key, which is not in the log
	SealedStore  []byte    `json:"sealedStore"`  // api.ObjectStore, proto-encoded, sealed
	SealedGossip []byte    `json:"sealedGossip"` // memberlist key, sealed
	SystemPrefix string    `json:"systemPrefix"` // s3://bucket/prefix/

	// Protocol is the latest that entries of the log may be of: every master reads it. 0 is 1.
	Protocol int `json:"protocol,omitempty"`

	NoExec bool `json:"noExec,omitempty"` // node exec is switched off

	// While the CA changes: CAPEM is what is trusted, the issuing certificate first; SealedNextKey and NextCAPEM are
	// those of the new one until it issues.
	CAPhase       string    `json:"caPhase,omitempty"`
	CASince       time.Time `json:"caSince,omitzero"`
	NextCAPEM     string    `json:"nextCaPem,omitempty"`
	SealedNextKey []byte    `json:"sealedNextKey,omitempty"`
}

// Cluster is a set of nodes, files and jobs that belong together.
type Cluster struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"createdAt"`
	Groups    []Group   `json:"groups"`

	State      string    `json:"state,omitempty"` // Cluster… constants
	ReasonCode string    `json:"reasonCode,omitempty"`
	Reason     string    `json:"reason,omitempty"`
	ReadyAt    time.Time `json:"readyAt,omitzero"` // when a node of it could first run tasks
	EndedAt    time.Time `json:"endedAt,omitzero"`
	RequestID  string    `json:"requestId,omitempty"`
	User       string    `json:"user,omitempty"` // that created it

	Bootstrap            []BootstrapAction `json:"bootstrap,omitempty"`
	StepConcurrency      int               `json:"stepConcurrency,omitempty"` // jobs at once; 0 = without limit
	Tags                 []Tag             `json:"tags,omitempty"`            // by key
	TerminationProtected bool              `json:"terminationProtected,omitempty"`
	AutoTerminateMs      int64             `json:"autoTerminateMs,omitempty"` // after so long without a job; 0 = never
	TerminateAfterSteps  bool              `json:"terminateAfterSteps,omitempty"`

	// Events are the last of what happened to it, the oldest first; EventsSeen is the number of the last one.
	Events     []Event `json:"events,omitempty"`
	EventsSeen uint64  `json:"eventsSeen,omitempty"`
}

// Ending says whether the cluster takes nothing any more.
func (c *Cluster) Ending() bool { return c.State != ClusterLive }

// Ended says whether the cluster is over.
func (c *Cluster) Ended() bool {
	return c.State == ClusterTerminated || c.State == ClusterTerminatedWithErrors
}

// BootstrapAction is a script that every node of a cluster runs before its first task.
type BootstrapAction struct {
	Name      string   `json:"name"`
	URL       string   `json:"url"` // s3://bucket/key
	Args      []string `json:"args,omitempty"`
	SHA256    string   `json:"sha256"` // of the script, hex
	TimeoutMs int64    `json:"timeoutMs,omitempty"`
}

// Tag is a word of the users' own on a cluster.
type Tag struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Event is something that happened to a cluster.
type Event struct {
	At      time.Time `json:"at"`
	Kind    string    `json:"kind"` // CLUSTER, GROUP, NODE, SCALING, BOOTSTRAP, DISK
	Subject string    `json:"subject,omitempty"`
	Message string    `json:"message"`
}

// Group is an instance group of a cluster.
type Group struct {
	ID     string `json:"id"`
	Role   string `json:"role"`
	Target int    `json:"target"`

	Provider string `json:"provider,omitempty"` // "" = the site's usual one
	Scales   bool   `json:"scales,omitempty"`   // its target follows its load, within Min and Max
	Min      int    `json:"min,omitempty"`
	Max      int    `json:"max,omitempty"`
	// Suspended says why the group grows no more until somebody resizes it; "" = it does.
	Suspended string `json:"suspended,omitempty"`
	// Failed is how many of its nodes have failed since it was resized last.
	Failed  int   `json:"failed,omitempty"`
	GraceMs int64 `json:"graceMs,omitempty"` // of attempts on nodes that leave, as it was asked for last; 0 = the usual
}

// Node is a node as admitted to the site.
type Node struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Cluster  string    `json:"cluster"` // "" for masters
	Group    string    `json:"group"`
	Role     string    `json:"role"`
	State    string    `json:"state"`
	Version  string    `json:"version"`
	Address  string    `json:"address"` // https://host:port of masters; a worker's comes with its session
	Serial   string    `json:"serial"`  // of its certificate
	JoinedAt time.Time `json:"joinedAt"`

	Raft  string `json:"raft,omitempty"`  // of masters: host:port of the log's traffic
	Spare bool   `json:"spare,omitempty"` // of masters: it was taken out of the set and is to stay out

	Protocol int `json:"protocol,omitempty"` // of masters: that it speaks; 0: not known yet

	// DrainBy is set while the node drains: attempts that still run there then are killed. By the masters' clocks.
	DrainBy time.Time `json:"drainBy,omitzero"`

	Provider  string `json:"provider,omitempty"`  // that launched it
	Launch    string `json:"launch,omitempty"`    // id of its launch
	Pooled    bool   `json:"pooled,omitempty"`    // it is of the site's pool: Cluster is "" and Role POOL while it is free
	Bootstrap string `json:"bootstrap,omitempty"` // Bootstrap… constants, for the cluster that it is of
	Failure   string `json:"failure,omitempty"`   // why it is good for nothing: it counts no more for its group

	// Leaving: it drains to be let go: back to the pool, to its provider, or for good.
	Leaving bool `json:"leaving,omitempty"`

	// Bye is the node's process that said it was about to end for good, if the node drains for that: another one of it has said no such thing.
	Bye string `json:"bye,omitempty"`

	// Unsure: where it is may have changed after the end of this log, which goes on from a backup. What it says itself is taken, once.
	Unsure bool `json:"unsure,omitempty"`
}

// InSet says whether a node is a master that is in the set, or about to be.
func (n *Node) InSet() bool { return n.Role == RoleMaster && n.State == NodeAdmitted && !n.Spare }

// Draining says whether the node is to leave: it gets nothing new.
func (n *Node) Draining() bool { return !n.DrainBy.IsZero() }

// Token is a join token; only the hash of its secret is kept.
type Token struct {
	ID         string    `json:"id"`
	SecretHash []byte    `json:"secretHash"` // SHA-256
	Role       string    `json:"role"`
	Cluster    string    `json:"cluster"`
	ExpiresAt  time.Time `json:"expiresAt"`
	UsesLeft   int       `json:"usesLeft"` // -1 = without limit

	Launch string `json:"launch,omitempty"` // that it is for: the node that joins with it is that one's
}

// Launch is a node that a provider was asked for. It is there until the provider has been told that it is wanted no more.
type Launch struct {
	ID          string    `json:"id"` // l-…: the key by which a provider does nothing twice
	Cluster     string    `json:"cluster"`
	Group       string    `json:"group"`
	Provider    string    `json:"provider"`
	State       string    `json:"state"`
	RequestedAt time.Time `json:"requestedAt"`
	Token       string    `json:"token"`             // id of its join token
	SealedToken []byte    `json:"sealedToken"`       // the whole, for whoever has to ask again
	Machine     string    `json:"machine,omitempty"` // as the provider calls it
	Node        string    `json:"node,omitempty"`    // that has joined
	Tries       int       `json:"tries,omitempty"`   // of the present state, that failed
	Problem     string    `json:"problem,omitempty"` // why the last one did
}

// User is a person, by name. The certificates of one who was removed, or was made before CreatedAt, are worthless.
type User struct {
	Name        string    `json:"name"`
	Role        string    `json:"role"`
	CreatedAt   time.Time `json:"createdAt"`
	LastLoginAt time.Time `json:"lastLoginAt,omitzero"`
	// The code that the next login takes, once.
	CodeID        string    `json:"codeId,omitempty"`
	CodeHash      []byte    `json:"codeHash,omitempty"` // SHA-256 of its secret
	CodeExpiresAt time.Time `json:"codeExpiresAt,omitzero"`
}
