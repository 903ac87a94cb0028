package state

import (
	"errors"
	"testing"
)

func TestFindJob(t *testing.T) {
	b := newBench(t)
	for _, j := range []Job{
		{ID: "s-AAB", Name: "daily"}, {ID: "s-AAC", Name: "daily"}, {ID: "s-AA", Name: "once"}, {ID: "s-B", Name: "s-A"}, {ID: "s-LAST"},
	} {
		j.Cluster, j.Output = testCluster, "s3://out/"+j.ID+"/"
		b.do(SubmitJob{j})
	}
	for _, c := range []struct{ cluster, ref, want string }{
		{"", "s-AA", "s-AA "}, // an id, though others begin with it
		{"", "s-AAB", "s-AAB "},
		{"", "s-L", "s-LAST "},                     // the beginning of one id
		{"", "s-A", "s-B "},                        // a name before the beginning of an id
		{"", "s-AA?", ""},                          // nothing
		{"", "daily", "s-AAC "},                    // the newest of the name
		{"", "once", "s-AA "},                      //
		{"", "dail", ""},                           // names are not shortened
		{"", "last", "s-LAST "},                    //
		{"", "s-", "s-AA s-AAB s-AAC s-B s-LAST "}, // ambiguous
		{"", "", ""},
		{testCluster, "last", "s-LAST "},
		{testCluster, "s-AAB", "s-AAB "},
		{"j-OTHER", "s-AAB", ""},
		{"j-OTHER", "last", ""},
		{"j-OTHER", "s-", ""},
	} {
		got, err := b.View().FindJob(c.cluster, c.ref)
		if entryIDs(got) != c.want || errors.Is(err, ErrNotFound) != (c.want == "") {
			t.Errorf("%q in %q: %s, %v; not %s", c.ref, c.cluster, entryIDs(got), err, c.want)
		}
	}
}

func TestFindCluster(t *testing.T) {
	b := newBench(t)
	for _, ref := range []string{"", "default", testCluster} {
		if c, ok := b.View().Cluster(ref); !ok || c.ID != testCluster {
			t.Errorf("%q: %v", ref, c)
		}
	}
	if _, ok := b.View().Cluster("j-CLUST"); ok {
		t.Error("a cluster is found by the beginning of its id")
	}
	if len(b.View().Clusters()) != 1 {
		t.Error("not one cluster")
	}
}

func TestJobOrder(t *testing.T) {
	b := newBench(t)
	for _, id := range []string{"s-C", "s-A", "s-D", "s-B"} {
		b.submit(id)
	}
	b.do(CancelJob{Job: "s-A"})
	b.do(EndJob{Job: "s-A", At: at(1)})
	b.do(CancelJob{Job: "s-D"}) // still open
	for _, cluster := range []string{"", testCluster} {
		if got := jobIDs(b.View().Jobs(cluster)); got != "s-B s-D s-A s-C " {
			t.Errorf("jobs, newest first: %s", got)
		}
	}
	if got := jobIDs(b.View().OpenJobs()); got != "s-C s-D s-B " {
		t.Errorf("open jobs, oldest first: %s", got)
	}
	if got := jobIDs(b.View().Jobs("j-OTHER")); got != "" {
		t.Errorf("another cluster's jobs: %s", got)
	}
}

func TestTasksAreInOrderOfIndex(t *testing.T) {
	b := newBench(t)
	b.plan("s-A", 300, 1)
	b.plan("s-AB", 300, 1)
	for _, i := range []int{256, 2, 10, 299, 0} {
		b.win(mapWin("s-A", i, "a", 1))
	}
	b.win(mapWin("s-AB", 1, "a", 1))
	last := -1
	all := b.View().Tasks("s-A", Map)
	for _, k := range all {
		if k.ID.Index <= last || k.Job != "s-A" {
			t.Errorf("task %v after %d", k, last)
		}
		last = k.ID.Index
	}
	if len(all) != 5 || len(b.View().Tasks("s-A", Reduce)) != 0 {
		t.Errorf("%d tasks", len(all))
	}
}

func TestAViewDoesNotChange(t *testing.T) {
	b := newBench(t)
	b.reducing("s-A")
	view := b.View()
	before, index := records(b, view), view.Index()
	b.winReduces("s-A")
	b.do(CancelJob{Job: "s-A"})
	b.do(EndJob{Job: "s-A", At: at(9)})
	b.submit("s-B")
	if err := b.Restore(newSnapshot(t), readable); err != nil {
		t.Fatal(err)
	}
	if records(b, view) != before || view.Index() != index {
		t.Error("it did")
	}
}

func TestWatch(t *testing.T) {
	for _, c := range []struct {
		name string
		cmd  func(b *bench) Command
		want bool
	}{
		{"the job itself", func(*bench) Command { return CancelJob{Job: "s-A"} }, true},
		{"an upload", func(*bench) Command {
			return AddUploads{Uploads: []Upload{{Job: "s-A", Task: TaskID{Reduce, 0}, ID: "u", Key: "k"}}}
		}, true},
		{"a failed attempt", func(*bench) Command {
			return EndTasks{Items: []EndTask{ended("s-A", TaskID{Reduce, 0}, "a", CountsFailed)}}
		}, true},
		{"a lost map", func(*bench) Command { return LoseMaps{Job: "s-A", Maps: []LostMap{{0, "m0"}}} }, true},
		{"another job", func(*bench) Command { return CancelJob{Job: "s-AB"} }, false},
		{"a new job", func(*bench) Command { return SubmitJob{Job{ID: "s-ABC", Cluster: testCluster}} }, false},
		{"a refused command", func(*bench) Command { return BeginCommit{Job: "s-A"} }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.reducing("s-A")
			b.submit("s-AB")
			view := b.View()
			watch := view.Watch("s-A")
			if closed(watch) {
				t.Fatal("closed before anything changed")
			}
			b.apply(c.cmd(b))
			if closed(watch) != c.want {
				t.Errorf("closed: %v", !c.want)
			}
			if closed(view.Watch("s-A")) != c.want {
				t.Error("a watch taken from the old view does not know of the change")
			}
			if closed(b.View().Watch("s-A")) {
				t.Error("a watch of the new view is closed")
			}
		})
	}
}

func TestWatchOfAJobToCome(t *testing.T) {
	b := newBench(t)
	watch, all := b.View().Watch("s-A"), b.View().WatchJobs()
	b.submit("s-A")
	if !closed(watch) || !closed(all) {
		t.Error("the submit was not seen")
	}
	all = b.View().WatchJobs()
	b.do(CancelJob{Job: "s-A"})
	if !closed(all) {
		t.Error("the cancel was not seen")
	}
}
