// Package view is what the command line prints as JSON: the documents that
// other programs parse, with their names fixed (docs). Every field is always
// there; a list is never null, a time that has not come is.
package view

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"millrace/pkg/api"
)

// Time prints as RFC 3339 in UTC with milliseconds, the zero time as null.
type Time struct{ time.Time }

// MarshalJSON implements json.Marshaler.
func (t Time) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	return []byte(t.UTC().Format(`"2006-01-02T15:04:05.000Z"`)), nil
}

// At converts a timestamp; nil is the zero time.
func At(t *timestamppb.Timestamp) Time {
	if t == nil || t.GetSeconds() == 0 && t.GetNanos() == 0 {
		return Time{}
	}
	return Time{t.AsTime()}
}

// Tasks counts a job's tasks of one kind.
type Tasks struct {
	Total     int64 `json:"total"`
	Pending   int64 `json:"pending"`
	Running   int64 `json:"running"`
	Completed int64 `json:"completed"`
}

// Attempts counts attempts that did not end well, and the speculative ones.
type Attempts struct {
	Failed      int64 `json:"failed"`
	Killed      int64 `json:"killed"`
	Lost        int64 `json:"lost"`
	Speculative int64 `json:"speculative"`
}

// Progress is in bytes of input.
type Progress struct {
	BytesDone      int64 `json:"bytesDone"`
	BytesTotal     int64 `json:"bytesTotal"`
	BytesPerSecond int64 `json:"bytesPerSecond"`
	EtaMs          int64 `json:"etaMs"`
}

// Failure names the cause of a failed job.
type Failure struct {
	Task       string `json:"task"`
	Attempt    string `json:"attempt"`
	Node       string `json:"node"`
	ExitCode   int32  `json:"exitCode"`
	Signal     string `json:"signal"`
	Input      string `json:"input"`
	Offset     int64  `json:"offset"`
	StderrTail string `json:"stderrTail"`
	Message    string `json:"message"`
}

// Job is a job.
type Job struct {
	ID             string                      `json:"id"`
	Cluster        string                      `json:"cluster"`
	Name           string                      `json:"name"`
	Program        string                      `json:"program"`
	State          string                      `json:"state"`
	Phase          string                      `json:"phase"`
	Reason         string                      `json:"reason"`
	User           string                      `json:"user"`
	Priority       int32                       `json:"priority"`
	Input          []string                    `json:"input"`
	Output         string                      `json:"output"`
	SubmittedAt    Time                        `json:"submittedAt"`
	StartedAt      Time                        `json:"startedAt"`
	PlannedAt      Time                        `json:"plannedAt"`
	MapsEndedAt    Time                        `json:"mapsEndedAt"`
	ReducesEndedAt Time                        `json:"reducesEndedAt"`
	EndedAt        Time                        `json:"endedAt"`
	CommitMs       int64                       `json:"commitMs"`
	Maps           Tasks                       `json:"maps"`
	Reduces        Tasks                       `json:"reduces"`
	Attempts       Attempts                    `json:"attempts"`
	Progress       Progress                    `json:"progress"`
	Failure        *Failure                    `json:"failure"`
	Counters       map[string]map[string]int64 `json:"counters"`
	OutputRecords  int64                       `json:"outputRecords"`
	OutputBytes    int64                       `json:"outputBytes"`
	Parts          int64                       `json:"parts"`
	StoreRetries   int64                       `json:"storeRetries"` // requests to the object store that were repeated
	StoreTrouble   string                      `json:"storeTrouble"` // what the last one was repeated for
	Notes          []string                    `json:"notes"`
	Plan           *Plan                       `json:"plan,omitempty"` // of a dry run alone
}

// OfJob converts a job.
func OfJob(j *api.Job) Job {
	v := Job{
		ID: j.GetId(), Cluster: j.GetCluster(), Name: j.GetName(), Program: j.GetProgram(), State: j.GetState(), Phase: j.GetPhase(),
		Reason: j.GetReason(), User: j.GetUser(), Priority: j.GetPriority(), Input: list(j.GetInput()), Output: j.GetOutput(),
		SubmittedAt: At(j.GetSubmittedAt()), StartedAt: At(j.GetStartedAt()), PlannedAt: At(j.GetPlannedAt()),
		MapsEndedAt: At(j.GetMapsEndedAt()), ReducesEndedAt: At(j.GetReducesEndedAt()), EndedAt: At(j.GetEndedAt()),
		CommitMs: j.GetCommitMs(), Maps: tasks(j.GetMaps()), Reduces: tasks(j.GetReduces()),
		Attempts:      Attempts{j.GetAttemptsFailed(), j.GetAttemptsKilled(), j.GetAttemptsLost(), j.GetAttemptsSpeculative()},
		Progress:      Progress{j.GetBytesDone(), j.GetBytesTotal(), j.GetBytesPerSecond(), j.GetEtaMs()},
		Counters:      Counters(j.GetCounters()),
		Notes:         append([]string{}, j.GetNotes()...),
		OutputRecords: j.GetOutputRecords(), OutputBytes: j.GetOutputBytes(), Parts: j.GetParts(),
		StoreRetries: j.GetStoreRetries(), StoreTrouble: j.GetStoreTrouble(),
	}
	if !v.StartedAt.IsZero() {
		FillCounters(v.Counters)
	}
	v.Failure = OfFailure(j.GetFailure())
	v.Plan = ofPlan(j.GetPlan())
	return v
}

// OfFailure converts a failure; nil is nil.
func OfFailure(f *api.JobFailure) *Failure {
	if f == nil {
		return nil
	}
	return &Failure{f.GetTask(), f.GetAttempt(), f.GetNode(), f.GetExitCode(), f.GetSignal(), f.GetInput(), f.GetOffset(), f.GetStderrTail(), f.GetMessage()}
}

// engineCounters are those of the group millrace that every job has.
var engineCounters = [...]string{
	"mapInputRecords", "mapInputBytes", "mapOutputRecords", "mapOutputBytes", "combineInputRecords", "combineOutputRecords",
	"segmentRecords", "segmentBytes", "fetchedRecords", "spilledRecords", "reduceInputGroups", "reduceInputRecords",
	"reduceOutputRecords", "outputBytes", "slotMs", "cpuMs", "storeRetries",
}

// FillCounters adds, as 0, the engine's counters that nothing has counted: who
// reads them need not know which of them a map-only job has.
func FillCounters(counters map[string]map[string]int64) {
	engine := counters["millrace"]
	if engine == nil {
		engine = map[string]int64{}
		counters["millrace"] = engine
	}
	for _, name := range engineCounters {
		if _, ok := engine[name]; !ok {
			engine[name] = 0
		}
	}
}

// Counters groups counters; never nil.
func Counters(counters []*api.Counter) map[string]map[string]int64 {
	out := map[string]map[string]int64{}
	for _, c := range counters {
		if out[c.GetGroup()] == nil {
			out[c.GetGroup()] = map[string]int64{}
		}
		out[c.GetGroup()][c.GetName()] += c.GetValue()
	}
	return out
}

// Task is one task of a job with its attempts.
type Task struct {
	ID       string    `json:"id"`
	Kind     string    `json:"kind"`
	Index    int32     `json:"index"`
	State    string    `json:"state"`
	Input    string    `json:"input"`
	Offset   int64     `json:"offset"`
	Length   int64     `json:"length"`
	Attempts []Attempt `json:"attempts"`
}

// Attempt is one try at a task.
type Attempt struct {
	ID        string `json:"id"`
	State     string `json:"state"`
	Node      string `json:"node"`
	StartedAt Time   `json:"startedAt"`
	EndedAt   Time   `json:"endedAt"`
	Cause     string `json:"cause"`
	BytesDone int64  `json:"bytesDone"`
	ExitCode  int32  `json:"exitCode"`
	Signal    string `json:"signal"`
}

// OfTask converts a task.
func OfTask(t *api.Task) Task {
	v := Task{ID: t.GetId(), Kind: t.GetKind(), Index: t.GetIndex(), State: t.GetState(), Input: t.GetInput(), Offset: t.GetOffset(), Length: t.GetLength(), Attempts: []Attempt{}}
	for _, a := range t.GetAttempts() {
		v.Attempts = append(v.Attempts, Attempt{a.GetId(), a.GetState(), a.GetNode(), At(a.GetStartedAt()), At(a.GetEndedAt()), a.GetCause(), a.GetBytesDone(), a.GetExitCode(), a.GetSignal()})
	}
	return v
}

// Node is one node of the site.
type Node struct {
	ID            string `json:"id"`
	Name          string `json:"name"`
	Cluster       string `json:"cluster"`
	Group         string `json:"group"`
	Role          string `json:"role"`
	State         string `json:"state"`
	Reason        string `json:"reason"`
	Address       string `json:"address"`
	Slots         int64  `json:"slots"`
	Running       int64  `json:"running"`
	MemoryBytes   int64  `json:"memoryBytes"`
	DiskBytes     int64  `json:"diskBytes"`
	DiskFreeBytes int64  `json:"diskFreeBytes"`
	Version       string `json:"version"`
	PID           int64  `json:"pid"`
	JoinedAt      Time   `json:"joinedAt"`
	LastSeenAt    Time   `json:"lastSeenAt"`
	Leader        bool   `json:"leader"`
	Member        string `json:"member,omitempty"` // of a master: VOTER, LEARNER, NONE
	Protocol      int32  `json:"protocol"`         // that it speaks; 0: it was not heard of yet
	Provider      string `json:"provider"`         // that launched it; "" = it joined by itself
	Pooled        bool   `json:"pooled"`           // it is of the site's pool
	Bootstrap     string `json:"bootstrap"`        // of a cluster with bootstrap actions: WAITING, RUNNING, DONE, FAILED
	Disks         []Disk `json:"disks,omitempty"`  // of a core node that is up: where its blocks are
}

// Disk is one on which a core node keeps blocks.
type Disk struct {
	Dir           string `json:"dir"`
	CapacityBytes int64  `json:"capacityBytes"`
	FreeBytes     int64  `json:"freeBytes"` // for blocks: the reserve is taken off
	ReserveBytes  int64  `json:"reserveBytes"`
	Failed        bool   `json:"failed"`
	Reason        string `json:"reason"` // why it takes no blocks
}

func ofDisks(disks []*api.NodeDisk) (out []Disk) {
	for _, d := range disks {
		out = append(out, Disk{
			Dir: d.GetDir(), CapacityBytes: d.GetCapacityBytes(), FreeBytes: d.GetFreeBytes(), ReserveBytes: d.GetReserveBytes(), Failed: d.GetFailed(), Reason: d.GetReason(),
		})
	}
	return out
}

// OfNode converts a node.
func OfNode(n *api.Node) Node {
	return Node{
		ID: n.GetId(), Name: n.GetName(), Cluster: n.GetCluster(), Group: n.GetGroup(), Role: n.GetRole(), State: n.GetState(), Reason: n.GetReason(),
		Address: n.GetAddress(), Slots: n.GetSlots(), Running: n.GetRunning(), MemoryBytes: n.GetMemoryBytes(), DiskBytes: n.GetDiskBytes(),
		DiskFreeBytes: n.GetDiskFreeBytes(), Version: n.GetVersion(), PID: n.GetPid(), JoinedAt: At(n.GetJoinedAt()), LastSeenAt: At(n.GetLastSeenAt()), Leader: n.GetLeader(),
		Member: n.GetMember(), Protocol: n.GetProtocol(), Provider: n.GetProvider(), Pooled: n.GetPooled(), Bootstrap: n.GetBootstrap(), Disks: ofDisks(n.GetDisks()),
	}
}

// Nodes converts nodes; never nil.
func Nodes(nodes []*api.Node) []Node {
	out := make([]Node, 0, len(nodes))
	for _, n := range nodes {
		out = append(out, OfNode(n))
	}
	return out
}

// Token is a join token. Token is empty but in the answer to create.
type Token struct {
	ID        string `json:"id"`
	Token     string `json:"token,omitempty"`
	Role      string `json:"role"`
	Cluster   string `json:"cluster"`
	ExpiresAt Time   `json:"expiresAt"`
	UsesLeft  int32  `json:"usesLeft"` // -1 = without limit
}

// OfToken converts a join token.
func OfToken(t *api.JoinToken) Token {
	return Token{t.GetId(), t.GetToken(), t.GetRole(), t.GetCluster(), At(t.GetExpiresAt()), t.GetUsesLeft()}
}

// User is a person. Code and Login are empty but in the answer that made the code.
type User struct {
	Name          string `json:"name"`
	Role          string `json:"role"`
	CreatedAt     Time   `json:"createdAt"`
	LastLoginAt   Time   `json:"lastLoginAt"`
	CodeExpiresAt Time   `json:"codeExpiresAt"` // of a code that was not used yet
	Code          string `json:"code,omitempty"`
	Login         string `json:"login,omitempty"` // what the person types
}

// OfUser converts a person.
func OfUser(u *api.User) User {
	return User{Name: u.GetName(), Role: u.GetRole(), CreatedAt: At(u.GetCreatedAt()), LastLoginAt: At(u.GetLastLoginAt()), CodeExpiresAt: At(u.GetCodeExpiresAt()), Code: u.GetCode()}
}

// CA is the site's CA, and how far a change of it has come.
type CA struct {
	Phase       string   `json:"phase"`
	Fingerprint string   `json:"fingerprint"` // SHA-256 of the certificate that issues, hex
	Since       Time     `json:"since"`
	Waiting     []string `json:"waiting"` // ids of nodes
}

// OfCA converts the state of a CA.
func OfCA(c *api.CAState) CA {
	return CA{c.GetPhase(), c.GetFingerprint(), At(c.GetSince()), append([]string{}, c.GetWaiting()...)}
}

// Site is the site as a whole.
type Site struct {
	ID           string `json:"id"`
	Version      string `json:"version"`
	SystemPrefix string `json:"systemPrefix"`
	S3Endpoint   string `json:"s3Endpoint"`
	Leader       string `json:"leader"`
	Exec         bool   `json:"exec"` // node exec is allowed
	CA           CA     `json:"ca"`
}

// OfSite converts the site.
func OfSite(s *api.Site) Site {
	return Site{s.GetId(), s.GetVersion(), s.GetSystemPrefix(), s.GetStore().GetEndpoint(), s.GetLeader(), !s.GetNoExec(), OfCA(s.GetCa())}
}

// Entry is a file, an object or a folder.
type Entry struct {
	Path       string `json:"path"`
	Size       int64  `json:"size"`
	ModifiedAt Time   `json:"modifiedAt"`
	Directory  bool   `json:"directory"`
	ETag       string `json:"etag,omitempty"`
	// Of files in a block store, in the answer of stat.
	Replication int      `json:"replication,omitempty"`
	BlockSize   int64    `json:"blockSize,omitempty"`
	Blocks      *[]Block `json:"blocks,omitempty"`
}

// Block is one block of a file.
type Block struct {
	ID       string   `json:"id"`
	Size     int64    `json:"size"`
	Replicas []string `json:"replicas"` // nodes
}

// Check is what fsck finds.
type Check struct {
	Files           int64          `json:"files"`
	Blocks          int64          `json:"blocks"`
	Bytes           int64          `json:"bytes"`
	Nodes           int64          `json:"nodes"` // core nodes that are up
	Missing         []BlockTrouble `json:"missing"`
	Corrupt         []BlockTrouble `json:"corrupt"`
	UnderReplicated []BlockTrouble `json:"underReplicated"`
	More            int64          `json:"more,omitempty"`     // in trouble, and not listed: there are very many
	FewNodes        int64          `json:"fewNodes,omitempty"` // blocks that shall lie on more nodes than there are
	Learning        bool           `json:"learning"`           // not all nodes have told yet what they have
	Healthy         bool           `json:"healthy"`
}

// BlockTrouble is a block that has fewer whole replicas than it should.
type BlockTrouble struct {
	Path     string `json:"path"`
	Block    string `json:"block"`
	Size     int64  `json:"size"`
	Replicas int    `json:"replicas"`
	Wanted   int    `json:"wanted"`
	Why      string `json:"why,omitempty"` // it is not whole yet; "": a copy is being made, or is the next
}

func tasks(t *api.TaskCounts) Tasks {
	return Tasks{t.GetTotal(), t.GetPending(), t.GetRunning(), t.GetCompleted()}
}

func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
