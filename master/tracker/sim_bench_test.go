package tracker

import (
	"fmt"
	"testing"
	"time"

	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/record"
)

// BenchmarkRound: a busy site, of which many tasks are done. An operation is one task that ends and the next one that
// starts in its place, with all that the nodes, the log's state and the heartbeats do meanwhile; ns/assignment is what
// the leader's loop alone takes of it, ns/round a round of that loop. None of them may follow the finished tasks.
func BenchmarkRound(b *testing.B) {
	for _, nodes := range []int{100, 1000, 10_000} {
		for _, done := range []int{0, 100_000, 1_000_000} {
			b.Run(fmt.Sprintf("nodes=%d/finished=%d", nodes, done), func(b *testing.B) {
				const further = 200_000
				s := newSim(1)
				site(s, nodes)
				j := s.submit("bench", done+2*simSlots*nodes+further, 1, 0, 20*time.Second)
				s.run(func() bool { return s.check.leases > 0 })
				s.depose()
				s.finish(j, done)
				s.lead()
				s.run(func() bool { return s.check.starts > 2*simSlots*nodes }) // past the first wave
				starts, rounds, busy := s.check.starts, s.rounds, s.busy
				for b.Loop() {
					next := s.check.starts + 1
					s.run(func() bool { return s.check.starts >= next || s.check.open == 0 })
				}
				starts, rounds, busy = s.check.starts-starts, s.rounds-rounds, s.busy-busy
				if s.check.open == 0 || len(s.check.broken) > 0 {
					b.Fatalf("the job has ended after %d tasks, or went wrong: %v", starts, s.check.broken)
				}
				b.ReportMetric(float64(busy)/float64(starts), "ns/assignment")
				b.ReportMetric(float64(busy)/float64(rounds), "ns/round")
			})
		}
	}
}

// finish logs the first maps of a job as done, with their segments spread over the nodes.
func (s *sim) finish(j *simJob, maps int) {
	for from := 0; from < maps; from += maxEnds {
		var c state.EndTasks
		for i := from; i < min(from+maxEnds, maps); i++ {
			n := s.nodes[i%len(s.nodes)]
			c.Items = append(c.Items, state.EndTask{Job: j.id, Task: state.TaskID{Kind: state.Map, Index: i}, Win: &state.Completion{
				Attempt: fmt.Sprintf("%s-m-%05d-1-%d", j.id, i, i), Node: n.id, SegmentNode: n.id, Digest: simDigest(i), SetTerm: record.MapDigest(i, simDigest(i)),
				Ledger: state.Ledger{Records: 1, Bytes: simSplit}, InputBytes: simSplit, StartedAt: simStart, EndedAt: s.clock(),
			}})
			n.held = append(n.held, &api.HeldSegment{Job: j.id, Map: int32(i), Attempt: c.Items[len(c.Items)-1].Win.Attempt})
			j.kept(int32(i))
		}
		s.must(c)
	}
}
