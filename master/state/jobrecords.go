package state

import "time"

// Ledger is record.Ledger as logged.
type Ledger struct {
	Records  int64  `json:"records,omitempty"`
	Bytes    int64  `json:"bytes,omitempty"`
	Checksum uint64 `json:"checksum,omitempty"`
}

// Add returns the sum of l and o; the checksum wraps around.
func (l Ledger) Add(o Ledger) Ledger {
	return Ledger{l.Records + o.Records, l.Bytes + o.Bytes, l.Checksum + o.Checksum}
}

// Sub takes o out of l again.
func (l Ledger) Sub(o Ledger) Ledger {
	return Ledger{l.Records - o.Records, l.Bytes - o.Bytes, l.Checksum - o.Checksum}
}

// Counter is one named count. The group "millrace" is the engine's own.
type Counter struct {
	Group string `json:"g"`
	Name  string `json:"n"`
	Value int64  `json:"v"`
}

// Failure names the cause of a failed attempt or job.
type Failure struct {
	Task       string `json:"task,omitempty"`
	Attempt    string `json:"attempt,omitempty"`
	Node       string `json:"node,omitempty"`
	Message    string `json:"message,omitempty"`
	ExitCode   int    `json:"exitCode,omitempty"`
	Signal     string `json:"signal,omitempty"`
	Input      string `json:"input,omitempty"`
	Offset     int64  `json:"offset,omitempty"`
	StderrTail string `json:"stderrTail,omitempty"`
}

// Job is one map-reduce run.
type Job struct {
	ID          string    `json:"id"`
	Cluster     string    `json:"cluster"`
	Name        string    `json:"name"`
	Program     string    `json:"program"` // for people
	User        string    `json:"user"`
	RequestID   string    `json:"requestId,omitempty"`
	Spec        []byte    `json:"spec"`                  // api.JobSpec with defaults filled in, proto-encoded, credentials removed
	SealedStore []byte    `json:"sealedStore,omitempty"` // the job's own object store, if it has one
	Input       []string  `json:"input"`
	Output      string    `json:"output"` // s3://bucket/prefix/ with the slash: reserved site-wide until the job ends
	Overwrite   bool      `json:"overwrite,omitempty"`
	Priority    int       `json:"priority,omitempty"`
	SubmittedAt time.Time `json:"submittedAt"`
	Sequence    uint64    `json:"sequence"` // log index of the submit: the order of submission

	State  string `json:"state"`
	Phase  string `json:"phase"`
	Reason string `json:"reason,omitempty"`
	// Ending is JobFailed or JobCancelled while the job is being cleaned up: it
	// takes that state when nothing of it is left.
	Ending  string   `json:"ending,omitempty"`
	Failure *Failure `json:"failure,omitempty"`

	PlannedAt      time.Time `json:"plannedAt,omitzero"`
	MapsEndedAt    time.Time `json:"mapsEndedAt,omitzero"`
	ReducesEndedAt time.Time `json:"reducesEndedAt,omitzero"`
	CommitAt       time.Time `json:"commitAt,omitzero"` // when it became COMMITTING
	EndedAt        time.Time `json:"endedAt,omitzero"`

	PlanKey    string `json:"planKey,omitempty"` // under the system prefix, without it
	PlanDigest string `json:"planDigest,omitempty"`
	BytesTotal int64  `json:"bytesTotal,omitempty"`
	// Notes are what people should know of what it reads and how it went, a sentence each.
	Notes   []string `json:"notes,omitempty"`
	Maps    int      `json:"maps"`
	Reduces int      `json:"reduces"` // 0 = map-only

	MapsDone    int   `json:"mapsDone"`
	ReducesDone int   `json:"reducesDone"`
	BytesDone   int64 `json:"bytesDone,omitempty"` // of completed maps' splits

	// ReduceRound starts at 0; 1 after all reduces had to start over because a
	// map, run again, gave other bytes. A second time fails the job.
	ReduceRound int `json:"reduceRound,omitempty"`

	Failed      int `json:"failed,omitempty"` // attempts, over all tasks
	Killed      int `json:"killed,omitempty"`
	Lost        int `json:"lost,omitempty"`
	Speculative int `json:"speculative,omitempty"`

	MapLedger Ledger `json:"mapLedger"` // sum over maps that are done, or were before their segment was lost
	Fetched   Ledger `json:"fetched"`   // sum over completed reduces
	MapDigest uint64 `json:"mapDigest"` // sum modulo 2^64 of Completion.SetTerm over the same maps as MapLedger

	Counters      []Counter `json:"counters,omitempty"` // set when the job ends, over committed attempts
	OutputRecords int64     `json:"outputRecords,omitempty"`
	OutputBytes   int64     `json:"outputBytes,omitempty"`
	Parts         int       `json:"parts,omitempty"`
	CommitMs      int64     `json:"commitMs,omitempty"`
	StoreTrouble  string    `json:"storeTrouble,omitempty"` // what a request was last repeated for; set when the job ends
}

// Ended says whether the job has its final state.
func (j *Job) Ended() bool {
	return j.State == JobCompleted || j.State == JobFailed || j.State == JobCancelled
}

// MapOnly says whether maps write the output. It means nothing before the job is planned.
func (j *Job) MapOnly() bool { return j.Reduces == 0 }

// Planned says whether the job, not ended, has its tasks.
func (j *Job) Planned() bool { return j.Phase != "" }

// OutputKind is the kind of the tasks that write the output.
func (j *Job) OutputKind() string {
	if j.MapOnly() {
		return Map
	}
	return Reduce
}

// TaskID names a task within its job.
type TaskID struct {
	Kind  string `json:"kind"`
	Index int    `json:"index"`
}

// Task is what is logged of a task: nothing until its first attempt has ended.
type Task struct {
	Job      string         `json:"job"`
	ID       TaskID         `json:"id"`
	Done     bool           `json:"done"`
	Ended    []EndedAttempt `json:"ended,omitempty"`    // failed, killed and lost attempts, the newest 8
	Failures int            `json:"failures,omitempty"` // that count against MaxAttempts
	Win      *Completion    `json:"win,omitempty"`      // if Done
	// Prior is the completion of a map whose segment was lost. Its ledger and digest
	// stay in the job's sums until another completion takes its place, because reduces
	// may have consumed it: a new one of another digest makes those start over.
	Prior *Completion `json:"prior,omitempty"`
}

// EndedAttempt is an attempt that did not win.
type EndedAttempt struct {
	Attempt   string    `json:"attempt"`
	Node      string    `json:"node"`
	State     string    `json:"state"` // FAILED KILLED LOST
	StartedAt time.Time `json:"startedAt"`
	EndedAt   time.Time `json:"endedAt"`
	Failure   Failure   `json:"failure"`
}

// Completion is the attempt that won a task.
type Completion struct {
	Attempt     string    `json:"attempt"`
	Node        string    `json:"node"`                  // that ran it
	SegmentNode string    `json:"segmentNode,omitempty"` // core node that holds the segment
	Digest      uint64    `json:"digest,omitempty"`      // of the segment (map), of the consumed set (reduce)
	SetTerm     uint64    `json:"setTerm,omitempty"`     // a map's record.MapDigest: its term in Job.MapDigest
	Ledger      Ledger    `json:"ledger"`
	Counters    []Counter `json:"counters,omitempty"`
	UploadID    string    `json:"uploadId,omitempty"`
	Records     int64     `json:"records,omitempty"` // of output
	Bytes       int64     `json:"bytes,omitempty"`
	Parts       int       `json:"parts,omitempty"` // of the multipart upload
	InputBytes  int64     `json:"inputBytes,omitempty"`
	StartedAt   time.Time `json:"startedAt"`
	EndedAt     time.Time `json:"endedAt"`
}

// Upload is a multipart upload the leader has made for one attempt of a task.
type Upload struct {
	Job     string `json:"job"`
	Task    TaskID `json:"task"`
	ID      string `json:"id"` // the store's upload id
	Key     string `json:"key"`
	Attempt string `json:"attempt,omitempty"` // that it was made for: no other may use it
}
