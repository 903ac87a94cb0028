package tracker

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"time"

	"google.golang.org/protobuf/proto"

	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
	"millrace/pkg/record"
)

// simJob is a job as the simulation knows it.
type simJob struct {
	s             *sim
	id            string
	maps, reduces int
	mean          time.Duration // of a task; each takes between half and one and a half of it
	digest        uint64        // of all its segments

	at       time.Duration // submitted
	crowd    int           // the most jobs that were open at once while it was
	ended    time.Duration
	hurt     bool   // an attempt of it was lost, or ran on a slow node
	segments []int8 // how many attempts' segments lie somewhere, by map
	missing  int    // maps without
}

// submit logs a job and tells the leader.
func (s *sim) submit(name string, maps, reduces, priority int, mean time.Duration) *simJob {
	j := &simJob{s: s, id: fmt.Sprintf("s-%013d", len(s.jobs)+1), maps: maps, reduces: reduces, mean: mean, at: s.now,
		missing: maps, segments: make([]int8, maps)}
	s.jobs[j.id] = j
	for i := range maps {
		j.digest += record.MapDigest(i, simDigest(i))
	}
	in := "in/" + j.id + "/"
	s.store.objects[in+"text"] = &simObject{Object: objectstore.Object{Key: in + "text", ETag: "e", Size: int64(maps) * simSplit}}
	spec := &api.JobSpec{
		Program: &api.Program{Kind: api.ProgramKind_PROGRAM_KIND_BUILTIN, Name: name},
		Input:   []string{"s3://data/" + in}, Output: "s3://data/out/" + j.id + "/", SplitSize: simSplit, InputFormat: "text",
	}
	if spec.MapOnly = reduces == 0; !spec.MapOnly {
		spec.Reduces = proto.Int32(int32(reduces))
	}
	rec := state.Job{ID: j.id, Cluster: "j-1", Name: name, Program: name, Input: spec.Input, Output: spec.Output, Priority: priority, SubmittedAt: s.clock()}
	rec.Spec, _ = proto.Marshal(spec)
	s.must(state.SubmitJob{Job: rec})
	s.note("submitted", simWeather, j.id)
	s.check.opened(j)
	if !s.leader.dead {
		s.leader.Submitted(j.id)
	}
	return j
}

func simDigest(index int) uint64 { return uint64(index) + 1000 }

// length is how long a task takes on a node that is not slow.
func (j *simJob) length(kind api.TaskKind, index int) time.Duration {
	h := fnv.New64a()
	var b [24]byte
	binary.LittleEndian.PutUint64(b[0:], j.s.seed)
	binary.LittleEndian.PutUint64(b[8:], uint64(index)<<2|uint64(kind))
	h.Write(b[:])
	h.Write([]byte(j.id))
	part := float64(h.Sum64()%1024) / 1024
	return time.Duration(float64(j.mean) * (0.5 + part))
}

// work is how long all tasks take, and the longest map and the longest reduce.
func (j *simJob) work() (all, longest time.Duration) {
	kinds := map[api.TaskKind]int{api.TaskKind_TASK_KIND_MAP: j.maps, api.TaskKind_TASK_KIND_REDUCE: j.reduces}
	for kind, n := range kinds {
		most := time.Duration(0)
		for i := range n {
			d := j.length(kind, i)
			all, most = all+d, max(most, d)
		}
		longest += most
	}
	return all, longest
}

// result is what an attempt reports that was not ended.
func (j *simJob) result(r *simRun) *api.AttemptResult {
	if r.fails {
		return &api.AttemptResult{Failure: &api.Failure{Kind: api.FailureKind_FAILURE_KIND_PROGRAM, Message: "bad luck"}}
	}
	res := &api.AttemptResult{Counters: []*api.Counter{{Group: "sim", Name: "tasks", Value: 1}}}
	switch {
	case r.lease.Kind == api.TaskKind_TASK_KIND_REDUCE:
		res.Digest, res.Segment = j.digest, &api.Ledger{}
		if r.lease.Index == 0 { // it decodes everything, the others nothing
			res.Segment.Records, res.Segment.Bytes = int64(j.maps), int64(j.maps)*simSplit
		}
	case r.lease.Partitions > 0:
		res.Digest, res.Segment = simDigest(int(r.lease.Index)), &api.Ledger{Records: 1, Bytes: simSplit}
	default:
		res.Digest = simDigest(int(r.lease.Index))
	}
	if r.lease.Output != nil {
		res.OutputParts, res.OutputBytes, res.OutputRecords = 1, 100, 1
	}
	return res
}

// kept and lost follow where a job's segments are.
func (j *simJob) kept(index int32) {
	if j.segments[index]++; j.segments[index] == 1 {
		j.missing--
	}
}

func (j *simJob) lost(index int32) {
	if j.segments[index]--; j.segments[index] == 0 {
		j.missing++
	}
}
