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
}

// OfNode converts a node.
func OfNode(n *api.Node) Node {
	return Node{
		ID: n.GetId(), Name: n.GetName(), Cluster: n.GetCluster(), Group: n.GetGroup(), Role: n.GetRole(), State: n.GetState(), Reason: n.GetReason(),
		Address: n.GetAddress(), Slots: n.GetSlots(), Running: n.GetRunning(), MemoryBytes: n.GetMemoryBytes(), DiskBytes: n.GetDiskBytes(),
		DiskFreeBytes: n.GetDiskFreeBytes(), Version: n.GetVersion(), PID: n.GetPid(), JoinedAt: At(n.GetJoinedAt()), LastSeenAt: At(n.GetLastSeenAt()), Leader: n.GetLeader(),
		Member: n.GetMember(),
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

// Group is one instance group.
type Group struct {
	ID      string `json:"id"`
	Role    string `json:"role"`
	Target  int64  `json:"target"`
	Running int64  `json:"running"`
}

// Slots counts slots.
type Slots struct {
	Total   int64 `json:"total"`
	Running int64 `json:"running"`
}

// Cluster is one cluster of the site.
type Cluster struct {
	ID          string   `json:"id"`
	Name        string   `json:"name"`
	State       string   `json:"state"`
	Problems    []string `json:"problems"`
	Masters     []Node   `json:"masters"`
	Groups      []Group  `json:"groups"`
	Slots       Slots    `json:"slots"`
	QueuedTasks int64    `json:"queuedTasks"`
	CreatedAt   Time     `json:"createdAt"`
}

// OfCluster converts a cluster.
func OfCluster(c *api.Cluster) Cluster {
	v := Cluster{ID: c.GetId(), Name: c.GetName(), State: c.GetState(), Problems: list(c.GetProblems()), Masters: Nodes(c.GetMasters()), Groups: []Group{},
		Slots: Slots{c.GetSlotsTotal(), c.GetSlotsRunning()}, QueuedTasks: c.GetQueuedTasks(), CreatedAt: At(c.GetCreatedAt())}
	for _, g := range c.GetGroups() {
		v.Groups = append(v.Groups, Group{g.GetId(), g.GetRole(), g.GetTarget(), g.GetRunning()})
	}
	return v
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

// Entry is a file, an object or a folder.
type Entry struct {
	Path       string `json:"path"`
	Size       int64  `json:"size"`
	ModifiedAt Time   `json:"modifiedAt"`
	Directory  bool   `json:"directory"`
	ETag       string `json:"etag,omitempty"`
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
