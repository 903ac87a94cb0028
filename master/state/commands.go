package state

import "time"

// Command is one entry of the log. Time and random ids are in it before it is
// logged: applying it gives the same state everywhere. The name is what the log calls it.
// Commands are passed by value. What one changed (*Site, *Node, *Token, *Job) is its
// result (and so are *Cluster, *Launch and *User), unless its comment names another; EndTasks alone answers item by item.
// The commands of package namespace are among them; ErrNotFound if there is no such cluster.
type Command interface{ CommandName() string }

// CreateSite makes the site and its first cluster. The second one is ErrExists.
type CreateSite struct {
	Site    Site    `json:"site"`
	Cluster Cluster `json:"cluster"`
}

// PutStore replaces the site's sealed object store settings.
type PutStore struct {
	SealedStore  []byte `json:"sealedStore"`
	SystemPrefix string `json:"systemPrefix"`
}

// RaiseSite makes a site use a later protocol: from then on commands of it may be logged. It is for who
// has seen that every master reads it. One that is not later changes nothing.
type RaiseSite struct {
	Protocol int `json:"protocol"`
}

// PutNode admits or updates a node that needs no token (a master).
type PutNode struct {
	Node Node `json:"node"`
}

// AdmitNode admits a node by a token: ErrToken if there is no such token, it has
// expired at Now or is used up. A node that was admitted before may be admitted
// again by the same role and cluster. Raises the group's target if it is full. By a token of a launch it is of the launch's group, whose target
// stays, and the launch is JOINED. By one for the pool it is free there, or where it was put since it was admitted first.
type AdmitNode struct {
	Token string    `json:"token"`
	Node  Node      `json:"node"`
	Now   time.Time `json:"now"`
}

// RemoveNode makes a node TERMINATED, and its launch TERMINATING. With Shrink its group's target is one less, if the node counted for it.
type RemoveNode struct {
	ID     string `json:"id"`
	Shrink bool   `json:"shrink,omitempty"`
}

// DrainNode has a worker drain, by a time that replaces the one it had; or, if By is zero, drain no more, nor leave. Bye is the process whose
// farewell asks for it, which changes nothing if somebody else has had it drain; "" = somebody else does, and whatever the node has said it
// drains for that from now on. ErrInvalid if it is a master, ErrTooLate if it was removed.
type DrainNode struct {
	ID  string    `json:"id"`
	By  time.Time `json:"by,omitzero"`
	Bye string    `json:"bye,omitempty"`
}

// CreateToken and RevokeToken change join tokens.
type CreateToken struct {
	Token Token `json:"token"`
}

type RevokeToken struct {
	ID string `json:"id"`
}

// SubmitJob makes a job PENDING and returns it (*Job). A known request id of the same
// user and cluster returns the job it made before (of the history: its Brief). ErrOutputReserved (an
// *OutputReservedError naming the job) if the output equals, contains or lies in
// the output of a job that has not ended. ErrTooLate if the cluster is ending.
type SubmitJob struct {
	Job Job `json:"job"`
}

// PlanJob makes a PENDING job RUNNING in MAPPING; without maps straight in REDUCING.
// ErrTooLate if it is planned already, Ending or has ended.
type PlanJob struct {
	Job        string    `json:"job"`
	PlanKey    string    `json:"planKey"`
	PlanDigest string    `json:"planDigest"`
	BytesTotal int64     `json:"bytesTotal"`
	Notes      []string  `json:"notes,omitempty"`
	Maps       int       `json:"maps"`
	Reduces    int       `json:"reduces"`
	At         time.Time `json:"at"`
}

// AddUploads records multipart uploads before anybody may use them: a completion
// that names another upload is refused. ErrTooLate if a job is Ending or has ended:
// nothing of the command is recorded then, and the uploads are the caller's to abort.
type AddUploads struct {
	Uploads []Upload `json:"uploads"`
}

// DropUploads forgets uploads that are gone from the store.
type DropUploads struct {
	Job string   `json:"job"`
	IDs []string `json:"ids"`
}

// EndTasks logs ended attempts, many to an entry. Its result is []EndTaskResult,
// one per item, in order.
type EndTasks struct {
	Items []EndTask `json:"items"`
}

// EndTask is one ended attempt: Win if it completed, else Ended. CountsAs is
// "failed" (counts against the task), "killed", "lost".
type EndTask struct {
	Job      string        `json:"job"`
	Task     TaskID        `json:"task"`
	Win      *Completion   `json:"win,omitempty"`
	Ended    *EndedAttempt `json:"ended,omitempty"`
	CountsAs string        `json:"countsAs,omitempty"`
	// Speculative: it was a second attempt beside a straggler.
	Speculative bool `json:"speculative,omitempty"`
}

// What an ended attempt counts as.
const (
	CountsFailed = "failed"
	CountsKilled = "killed"
	CountsLost   = "lost"
)

// EndTaskResult says what became of one EndTask.
type EndTaskResult struct {
	Accepted bool   // a Win that won; or an Ended that was recorded
	Reason   string // why not: one of the Refused constants
	// NotDeterministic: the map, run again, gave other bytes than those some
	// completed reduce had consumed. ReducesReset says that all reduces of the job
	// started over; if false the job must fail, and the win was not accepted.
	NotDeterministic bool
	ReducesReset     bool
}

// Why an EndTask was refused.
const (
	RefusedNoJob            = "no such job"
	RefusedNotPlanned       = "job is not planned"
	RefusedNoTask           = "no such task"
	RefusedJobEnded         = "job has ended"
	RefusedOtherWon         = "another attempt had won"
	RefusedHadWon           = "the attempt had won"
	RefusedOtherInput       = "consumed other map outputs"
	RefusedNoUpload         = "its upload is not known"
	RefusedNotDeterministic = "program is not deterministic"
	RefusedMalformed        = "malformed"
)

// LoseMaps makes completed maps pending again, as their segments are gone. Ignored
// for maps whose winner is another attempt by now, and when nothing needs segments
// any more (the job is map-only, all its reduces are done, it is ending). Its
// result is the indexes ([]int) of the maps that are pending now because of it.
type LoseMaps struct {
	Job  string    `json:"job"`
	Maps []LostMap `json:"maps"`
}

type LostMap struct {
	Index   int    `json:"index"`
	Attempt string `json:"attempt"`
}

// BeginCommit makes a job COMMITTING; for one that is already, it checks again. ErrNotReady if tasks are missing, ErrLedger (a
// *LedgerError with both sides) if what the maps wrote is not what the reduces read.
type BeginCommit struct {
	Job string    `json:"job"`
	At  time.Time `json:"at"`
}

// RedoParts makes completed output tasks of a COMMITTING job pending again, as
// the store has lost their uploads. Its result is the indexes ([]int) of the tasks
// that are pending now because of it.
type RedoParts struct {
	Job   string `json:"job"`
	Tasks []int  `json:"tasks"`
}

// CompleteJob ends a COMMITTING job whose _SUCCESS is written. ErrNotReady if parts
// are to be made again; repeating it is no error.
type CompleteJob struct {
	Job           string    `json:"job"`
	At            time.Time `json:"at"`
	OutputRecords int64     `json:"outputRecords"`
	OutputBytes   int64     `json:"outputBytes"`
	Parts         int       `json:"parts"`
	CommitMs      int64     `json:"commitMs"`
	// Notes join those of the job: what people should know of how it went, a sentence each.
	Notes []string `json:"notes,omitempty"`

	Retries StoreRetries `json:"retries,omitzero"`
}

// StoreRetries is how many requests of a job the leader had to repeat, and what the last
// one was repeated for.
type StoreRetries struct {
	Requests int64  `json:"requests"`
	Last     string `json:"last"`
}

// FailJob and CancelJob set what the job will end as; it then must be cleaned up.
// ErrTooLate once it is COMMITTING or has ended. FailJob may also end a COMMITTING job
// with Force (a commit that can never succeed). CancelJob makes the state
// CANCEL_PENDING. Repeating either is no error; one after the other is ErrTooLate.
type FailJob struct {
	Job     string   `json:"job"`
	Reason  string   `json:"reason"`
	Failure *Failure `json:"failure,omitempty"`
	Force   bool     `json:"force,omitempty"`
}

type CancelJob struct {
	Job    string `json:"job"`
	Reason string `json:"reason"`
}

// EndJob gives a job that is Ending its final state, after the clean-up. ErrNotReady
// if it is not Ending; repeating it is no error.
type EndJob struct {
	Job string    `json:"job"`
	At  time.Time `json:"at"`
	// Left says what of the job stays in the store, and why; "" = nothing. It joins the reason.
	Left string `json:"left,omitempty"`

	Retries StoreRetries `json:"retries,omitzero"`
}

// RetireJobs moves ended jobs to the history, once their records and the page that lists
// them are there: of each a PastJob stays. A job that is not there any more, or has not ended,
// is passed over. Its result is the ids ([]string) of those that moved.
type RetireJobs struct {
	Page string   `json:"page"`
	Jobs []string `json:"jobs"`
}

// ForgetJobs forgets jobs of the history, once their records are deleted; one that is not
// there is passed over. Its result is the ids ([]string) of those that were.
type ForgetJobs struct {
	Jobs []string `json:"jobs"`
}

func (CreateSite) CommandName() string  { return "CreateSite" }
func (PutStore) CommandName() string    { return "PutStore" }
func (RaiseSite) CommandName() string   { return "RaiseSite" }
func (PutNode) CommandName() string     { return "PutNode" }
func (AdmitNode) CommandName() string   { return "AdmitNode" }
func (RemoveNode) CommandName() string  { return "RemoveNode" }
func (DrainNode) CommandName() string   { return "DrainNode" }
func (CreateToken) CommandName() string { return "CreateToken" }
func (RevokeToken) CommandName() string { return "RevokeToken" }
func (SubmitJob) CommandName() string   { return "SubmitJob" }
func (PlanJob) CommandName() string     { return "PlanJob" }
func (AddUploads) CommandName() string  { return "AddUploads" }
func (DropUploads) CommandName() string { return "DropUploads" }
func (EndTasks) CommandName() string    { return "EndTasks" }
func (LoseMaps) CommandName() string    { return "LoseMaps" }
func (BeginCommit) CommandName() string { return "BeginCommit" }
func (RedoParts) CommandName() string   { return "RedoParts" }
func (CompleteJob) CommandName() string { return "CompleteJob" }
func (FailJob) CommandName() string     { return "FailJob" }
func (CancelJob) CommandName() string   { return "CancelJob" }
func (EndJob) CommandName() string      { return "EndJob" }
func (RetireJobs) CommandName() string  { return "RetireJobs" }
func (ForgetJobs) CommandName() string  { return "ForgetJobs" }
