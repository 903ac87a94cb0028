package state

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func entryIDs(list []Entry) (out string) {
	for _, e := range list {
		out += e.Brief().ID + " "
	}
	return out
}

// complete takes a job with two maps and two reduces to its end.
func (b *bench) complete(id string) {
	b.Helper()
	b.committing(id)
	b.do(CompleteJob{Job: id, At: at(10), Parts: 2})
}

func TestAJobThatMovesLeavesItsStubAlone(t *testing.T) {
	b := newBench(t)
	b.do(SubmitJob{Job{ID: "s-A", Cluster: testCluster, Name: "daily", User: "alice", RequestID: "again", Output: "s3://out/a/", SubmittedAt: t0}})
	b.do(CancelJob{Job: "s-A"})
	b.do(EndJob{Job: "s-A", At: at(9)})
	b.complete("s-B")
	b.committing("s-C")
	before := b.View()

	if d := cmp.Diff([]string{"s-A", "s-B"}, b.do(RetireJobs{Page: "p", Jobs: []string{"s-A", "s-B", "s-C", "s-NONE"}})); d != "" {
		t.Errorf("moved: %s", d)
	}
	v := b.View()
	if got := jobIDs(v.Jobs("")); got != "s-C " {
		t.Errorf("in the state: %s", got)
	}
	if n := len(v.Tasks("s-B", Map)) + len(v.Tasks("s-B", Reduce)); n != 0 {
		t.Errorf("%d tasks of s-B are left", n)
	}
	if n := len(v.Tasks("s-C", Map)); n != 2 {
		t.Errorf("%d maps of s-C, which has not ended", n)
	}
	want := &PastJob{ID: "s-A", Cluster: testCluster, Name: "daily", User: "alice", RequestID: "again", State: JobCancelled, SubmittedAt: t0, EndedAt: at(9), Sequence: 2, Page: "p"}
	if got, _ := v.PastJob("s-A"); cmp.Diff(want, got) != "" {
		t.Error(cmp.Diff(want, got))
	}
	if got := jobIDs(before.Jobs("")); got != "s-C s-B s-A " {
		t.Errorf("a view from before has %s", got)
	}
	if !closed(before.Watch("s-B")) {
		t.Error("who watches a job does not hear that it moved")
	}
	if got := b.do(RetireJobs{Page: "other", Jobs: []string{"s-A"}}).([]string); len(got) != 0 {
		t.Errorf("a second time it moved %v", got)
	}
}

func TestAPastJobIsFoundLikeAnyOther(t *testing.T) {
	b := newBench(t)
	for _, id := range []string{"s-AA", "s-AB", "s-C"} {
		b.complete(id)
	}
	b.do(RetireJobs{Page: "p", Jobs: []string{"s-AA", "s-C"}})
	v := b.View()
	for ref, want := range map[string]string{
		"s-AA": "s-AA ", "name of s-AA": "s-AA ", "last": "s-C ", "s-C": "s-C ", "s-A": "s-AB s-AA ", "s-AB": "s-AB ",
	} {
		if got, err := v.FindJob(testCluster, ref); entryIDs(got) != want || err != nil {
			t.Errorf("%q: %s, %v", ref, entryIDs(got), err)
		}
	}
	for _, cluster := range []string{"", testCluster} {
		if got := entryIDs(v.List(cluster)); got != "s-C s-AB s-AA " {
			t.Errorf("cluster %q: %s", cluster, got)
		}
	}
	if got := v.List("j-OTHER"); len(got) != 0 {
		t.Errorf("another cluster has %s", entryIDs(got))
	}
}

func TestAPastJobHasItsIDAndItsRequest(t *testing.T) {
	b := newBench(t)
	job := Job{ID: "s-A", Cluster: testCluster, User: "alice", RequestID: "r", Output: "s3://out/a/"}
	b.do(SubmitJob{job})
	b.do(CancelJob{Job: "s-A"})
	b.do(EndJob{Job: "s-A", At: at(9)})
	b.do(RetireJobs{Page: "p", Jobs: []string{"s-A"}})

	again := job
	again.ID = "s-B"
	if got := b.do(SubmitJob{again}).(*Job); got.ID != "s-A" {
		t.Errorf("the same request made %s", got.ID)
	}
	other := job
	other.RequestID = ""
	b.refuse(ErrExists, SubmitJob{other})

	b.do(ForgetJobs{Jobs: []string{"s-A", "s-NONE"}})
	if got := b.do(SubmitJob{again}).(*Job); got.ID != "s-B" {
		t.Errorf("a request that is forgotten found %s", got.ID)
	}
	if got := b.do(ForgetJobs{Jobs: []string{"s-A"}}).([]string); len(got) != 0 {
		t.Errorf("a second time it forgot %v", got)
	}
}

func TestEndedJobsAreInTheOrderOfTheirEnds(t *testing.T) {
	b := newBench(t)
	for _, id := range []string{"s-A", "s-B", "s-C", "s-D"} {
		b.submit(id)
		b.do(CancelJob{Job: id})
	}
	for i, id := range []string{"s-C", "s-A", "s-D"} {
		b.do(EndJob{Job: id, At: at(i / 2)}) // the first two at once
	}
	if got := jobIDs(b.View().EndedJobs()); got != "s-A s-C s-D " {
		t.Error(got)
	}
}

func TestASnapshotHoldsThePast(t *testing.T) {
	b := newBench(t)
	b.complete("s-A")
	b.do(RetireJobs{Page: "p", Jobs: []string{"s-A"}})
	snapshot := snapshotOf(t, b.View())
	s := New()
	if err := s.Restore(bytes.NewReader(snapshot), readable); err != nil {
		t.Fatal(err)
	}
	want, _ := b.View().PastJob("s-A")
	if got, _ := s.View().PastJob("s-A"); cmp.Diff(want, got) != "" {
		t.Error(cmp.Diff(want, got))
	}
}

// TestThePastIsSmall: of ten thousand ended jobs all but the newest
// thousand in the history, a snapshot has a few hundred bytes each.
func TestThePastIsSmall(t *testing.T) {
	const jobs, kept, perStub = 10_000, 1_000, 350
	b := newBench(t)
	var moved []string
	for i := range jobs {
		id := fmt.Sprintf("s-%013d", i)
		b.complete(id)
		if i < jobs-kept {
			moved = append(moved, id)
		}
	}
	whole := len(snapshotOf(t, b.View()))
	for len(moved) > 0 {
		n := min(100, len(moved))
		b.do(RetireJobs{Page: "00000123456789abcdef0123456789abcdef", Jobs: moved[:n]})
		moved = moved[n:]
	}
	left := len(snapshotOf(t, b.View()))
	if most := whole*kept/jobs + (jobs-kept)*perStub; left > most {
		t.Errorf("the snapshot has %d bytes of %d, more than %d", left, whole, most)
	}
	t.Logf("%d bytes before, %d after", whole, left)
}
