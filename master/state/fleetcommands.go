package state

import "time"

// The commands by which clusters, their nodes and people come and go, and the site's settings change.

// CreateCluster makes a cluster. Its id and those of its groups come with it. ErrExists if one that has not ended has the name;
// a known request id returns the cluster that it made before.
type CreateCluster struct {
	Cluster Cluster `json:"cluster"`
}

// ResizeCluster changes groups of a cluster, by id: target, bounds and grace are taken from what is given here, and a group that was
// suspended is so no longer; the target of one that scales is put within its bounds. A group of a role that the cluster has none of is added. ErrTooLate if it is ending.
type ResizeCluster struct {
	Cluster string  `json:"cluster"`
	Groups  []Group `json:"groups"`
}

// SetTarget moves the target of a group that scales by itself, within its bounds; nothing changes if it does so no more, or
// if its target is no longer From: somebody resized it meanwhile.
type SetTarget struct {
	Cluster string `json:"cluster"`
	Group   string `json:"group"`
	From    int    `json:"from"`
	To      int    `json:"to"`
	Event   *Event `json:"event,omitempty"`
}

// SetCluster changes what is not about groups: the fields that are set. ErrTooLate if it is ending.
type SetCluster struct {
	Cluster              string   `json:"cluster"`
	TerminationProtected *bool    `json:"terminationProtected,omitempty"`
	StepConcurrency      *int     `json:"stepConcurrency,omitempty"`
	AutoTerminateMs      *int64   `json:"autoTerminateMs,omitempty"`
	TerminateAfterSteps  *bool    `json:"terminateAfterSteps,omitempty"`
	PutTags              []Tag    `json:"putTags,omitempty"`
	RemoveTags           []string `json:"removeTags,omitempty"`
	// Bootstrap, if there is any, takes the place of the cluster's actions, for nodes that come from then on. A node that has still to end the
	// former ones has failed; one that had none to run is done. No failure counts against a group any more.
	Bootstrap []BootstrapAction `json:"bootstrap,omitempty"`
	// Ready is set once: when the cluster could first run tasks.
	Ready time.Time `json:"ready,omitzero"`
}

// TerminateCluster makes a cluster TERMINATING: it takes no jobs and no nodes, and its tokens are worthless. ErrProtected if it is protected.
// Repeating it is no error, and changes nothing.
type TerminateCluster struct {
	Cluster    string `json:"cluster"`
	ReasonCode string `json:"reasonCode"`
	Reason     string `json:"reason,omitempty"`
}

// EndCluster makes a TERMINATING cluster TERMINATED and removes its files' names and its join tokens. Repeating it is no error. ErrNotReady while it has jobs that have not ended, nodes or
// launches. Of the clusters that have ended the newest 100 stay.
type EndCluster struct {
	Cluster string    `json:"cluster"`
	State   string    `json:"state"`
	At      time.Time `json:"at"`
}

// SuspendGroup stops a group's growing, with the reason, until it is resized. ErrTooLate if the cluster is ending.
type SuspendGroup struct {
	Cluster string `json:"cluster"`
	Group   string `json:"group"`
	Reason  string `json:"reason"`
}

// AddEvents adds to the events of a cluster; the newest 300 are kept.
type AddEvents struct {
	Cluster string  `json:"cluster"`
	Events  []Event `json:"events"`
}

// AssignNode gives a free node of the pool to a group, whose target stays. ErrTooLate if it is not free, was removed or drains, or the cluster is ending.
type AssignNode struct {
	ID      string `json:"id"`
	Cluster string `json:"cluster"`
	Group   string `json:"group"`
}

// LeaveNode has a worker drain by a time in order to be let go. Bye, ErrInvalid and ErrTooLate as with DrainNode. A later DrainNode with a zero
// time takes it back.
type LeaveNode struct {
	ID  string    `json:"id"`
	By  time.Time `json:"by"`
	Bye string    `json:"bye,omitempty"`
}

// ReleaseNode gives a node of the pool back to it: of no cluster, drained no more. ErrInvalid if it is not of the pool. Its group's target stays.
type ReleaseNode struct {
	ID string `json:"id"`
}

// FindNode records where a node that is Unsure says it is: if that cluster is not ending and has a group of the role, the node is of
// that from now on, drained no more; else it stays where it was put. Of a node that is not Unsure nothing changes.
type FindNode struct {
	ID      string `json:"id"`
	Cluster string `json:"cluster,omitempty"`
	Role    string `json:"role"`
}

// NoteBootstrap records the end of a node's bootstrap actions, for the cluster that it is of: ErrTooLate if it is of another by now. Failure
// makes the node good for nothing: it counts no more for its group, which counts it as Failed. What was recorded first stays.
type NoteBootstrap struct {
	ID      string `json:"id"`
	Cluster string `json:"cluster"`
	State   string `json:"state"`
	Failure string `json:"failure,omitempty"`
}

// PutLaunch makes a launch, REQUESTED, with its token in the same entry; or says how far one is. Its state goes forward only, whatever is said
// late: AdmitNode alone makes it JOINED, one whose node was not removed is not TERMINATING (ErrTooLate), and what it is for does not change. ErrNotFound if it was dropped, ErrTooLate if it
// is new and its cluster is ending. DropLaunch forgets one, with its token; of the nodes that were launched and removed, the newest 1000 stay.
type PutLaunch struct {
	Launch Launch `json:"launch"`
	Create *Token `json:"create,omitempty"`
}

type DropLaunch struct {
	ID string `json:"id"`
}

// CreateUser makes a person known: ErrExists if one of that name is. PutLoginCode gives a new code to one. RemoveUser forgets one.
type CreateUser struct {
	User User `json:"user"`
}

type PutLoginCode struct {
	Name      string    `json:"name"`
	CodeID    string    `json:"codeId"`
	CodeHash  []byte    `json:"codeHash"`
	ExpiresAt time.Time `json:"expiresAt"`
}

type RemoveUser struct {
	Name string `json:"name"`
}

// LoginUser uses up a login code, whose secret is the caller's to compare. Its result is the *User; ErrToken if there is no such code, or it has expired at Now.
type LoginUser struct {
	CodeID string    `json:"codeId"`
	Now    time.Time `json:"now"`
}

// SetSite changes what holds for the whole site: the fields that are set.
type SetSite struct {
	NoExec *bool `json:"noExec,omitempty"`
}

// PutCA replaces all that the site holds of its CA, while its phase is From: ErrTooLate if it is not.
type PutCA struct {
	From          string    `json:"from"`
	Phase         string    `json:"phase"`
	Since         time.Time `json:"since"`
	CAPEM         string    `json:"caPem"`
	SealedCAKey   []byte    `json:"sealedCaKey"`
	NextCAPEM     string    `json:"nextCaPem,omitempty"`
	SealedNextKey []byte    `json:"sealedNextKey,omitempty"`
}

func (CreateCluster) CommandName() string    { return "CreateCluster" }
func (ResizeCluster) CommandName() string    { return "ResizeCluster" }
func (SetTarget) CommandName() string        { return "SetTarget" }
func (SetCluster) CommandName() string       { return "SetCluster" }
func (TerminateCluster) CommandName() string { return "TerminateCluster" }
func (EndCluster) CommandName() string       { return "EndCluster" }
func (SuspendGroup) CommandName() string     { return "SuspendGroup" }
func (AddEvents) CommandName() string        { return "AddEvents" }
func (AssignNode) CommandName() string       { return "AssignNode" }
func (LeaveNode) CommandName() string        { return "LeaveNode" }
func (ReleaseNode) CommandName() string      { return "ReleaseNode" }
func (FindNode) CommandName() string         { return "FindNode" }
func (NoteBootstrap) CommandName() string    { return "NoteBootstrap" }
func (PutLaunch) CommandName() string        { return "PutLaunch" }
func (DropLaunch) CommandName() string       { return "DropLaunch" }
func (CreateUser) CommandName() string       { return "CreateUser" }
func (PutLoginCode) CommandName() string     { return "PutLoginCode" }
func (RemoveUser) CommandName() string       { return "RemoveUser" }
func (LoginUser) CommandName() string        { return "LoginUser" }
func (SetSite) CommandName() string          { return "SetSite" }
func (PutCA) CommandName() string            { return "PutCA" }
