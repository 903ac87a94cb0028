package state

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"millrace/hdfs/namespace"
)

const night = "j-NIGHT"

// nightCluster is one with a core group of a target, and a task group that scales within 0 to 9.
func nightCluster() Cluster {
	return Cluster{ID: night, Name: "night", CreatedAt: at(1), User: "ann", RequestID: "r-1", Groups: []Group{
		{ID: "ig-n-core", Role: RoleCore, Target: 2, Provider: "pool"}, {ID: "ig-n-task", Role: RoleTask, Scales: true, Target: 1, Max: 9},
	}}
}

func withNight(t *testing.T) *bench {
	b := newBench(t)
	b.do(CreateCluster{nightCluster()})
	return b
}

func (b *bench) cluster(ref string) *Cluster {
	b.Helper()
	c, ok := b.View().Cluster(ref)
	if !ok {
		b.Fatalf("no cluster %s", ref)
	}
	return c
}

// over ends a cluster that nothing is left of.
func (b *bench) over(id string, second int) {
	b.Helper()
	b.do(TerminateCluster{Cluster: id, ReasonCode: ReasonUserRequest})
	b.do(EndCluster{Cluster: id, State: ClusterTerminated, At: at(second)})
}

func clusterIDs(cs []*Cluster) string { return ids(cs, func(c *Cluster) string { return c.ID }) }

func TestCreateCluster(t *testing.T) {
	b := newBench(t)
	c := nightCluster()
	c.State, c.EventsSeen, c.EndedAt, c.ReasonCode = ClusterTerminated, 9, at(9), ReasonStepFailure // not the creator's to say
	c.Groups[0].Suspended, c.Groups[0].Failed = "why", 3
	c.Tags = []Tag{{"z", "1"}, {"a", "2"}, {"z", "3"}}
	c.Events = []Event{{At: at(1), Kind: "CLUSTER", Message: "made"}}
	made := b.do(CreateCluster{c}).(*Cluster)
	if made.Ending() || made.EventsSeen != 1 || !made.EndedAt.IsZero() || made.ReasonCode != "" || made.Groups[0] != nightCluster().Groups[0] {
		t.Errorf("%+v", made)
	}
	if got := fmt.Sprint(made.Tags); got != "[{a 2} {z 3}]" {
		t.Errorf("tags are in order of their keys, one of each: %s", got)
	}
	if got := clusterIDs(b.View().Clusters()); got != "j-CLUSTER j-NIGHT " {
		t.Error(got)
	}
}

func TestCreateClusterRefusals(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Cluster)
		want   error
	}{
		{"no id", func(c *Cluster) { c.ID = "" }, ErrInvalid},
		{"no name", func(c *Cluster) { c.Name = "" }, ErrInvalid},
		{"the id of another", func(c *Cluster) { c.ID = testCluster }, ErrExists},
		{"the name of another", func(c *Cluster) { c.Name = DefaultCluster }, ErrExists},
		{"the id of another as its name", func(c *Cluster) { c.Name = testCluster }, ErrExists},
		{"fewer than no jobs at once", func(c *Cluster) { c.StepConcurrency = -1 }, ErrInvalid},
		{"a group without an id", func(c *Cluster) { c.Groups[0].ID = "" }, ErrInvalid},
		{"a group of masters", func(c *Cluster) { c.Groups[0].Role = RoleMaster }, ErrInvalid},
		{"two groups of a role", func(c *Cluster) { c.Groups[0].Role = RoleTask }, ErrExists},
		{"two groups of an id", func(c *Cluster) { c.Groups[0].ID = c.Groups[1].ID }, ErrExists},
		{"fewer than no nodes", func(c *Cluster) { c.Groups[0].Target = -1 }, ErrInvalid},
		{"bounds the wrong way round", func(c *Cluster) { c.Groups[1].Min = 10 }, ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, odd := newBench(t), nightCluster()
			c.change(&odd)
			b.refuse(c.want, CreateCluster{odd})
		})
	}
	b := &bench{failer: t, Store: New()}
	b.refuse(ErrNotFound, CreateCluster{nightCluster()}) // there is no site
}

func TestARequestMakesOneCluster(t *testing.T) {
	b := withNight(t)
	again := nightCluster()
	again.ID, again.Name = "j-OTHER", "other"
	if c := b.do(CreateCluster{again}).(*Cluster); c.ID != night {
		t.Errorf("the request made %s", c.ID)
	}
	b.over(night, 9)
	if c := b.do(CreateCluster{again}).(*Cluster); c.ID != night || !c.Ended() {
		t.Errorf("once it has ended the request made %+v", c)
	}
	if c, ok := b.View().ClusterOfRequest("ann", "r-1"); !ok || c.ID != night {
		t.Error("the request's cluster is not found")
	}
	again.User = "bob"
	if c := b.do(CreateCluster{again}).(*Cluster); c.ID != "j-OTHER" {
		t.Errorf("another user's request made %s", c.ID)
	}
}

// A name is free again when its cluster has ended, and stands for the one that has not.
func TestANameIsOneLiveClusters(t *testing.T) {
	b := withNight(t)
	named := func(id string, second int) Cluster { return Cluster{ID: id, Name: "night", CreatedAt: at(second)} }
	b.do(TerminateCluster{Cluster: night, ReasonCode: ReasonUserRequest})
	b.refuse(ErrExists, CreateCluster{named("j-2", 2)}) // its files are still there
	b.do(EndCluster{Cluster: night, State: ClusterTerminated, At: at(2)})
	b.do(CreateCluster{named("j-2", 3)})
	if c := b.cluster("night"); c.ID != "j-2" {
		t.Errorf("the name stands for %s", c.ID)
	}
	b.over("j-2", 4)
	b.do(CreateCluster{named("a-3", 5)})
	b.over("a-3", 6)
	if c := b.cluster("night"); c.ID != "a-3" {
		t.Errorf("when all have ended the name stands for %s, not for the newest", c.ID)
	}
	if got := clusterIDs(b.View().LiveClusters()); got != testCluster+" " {
		t.Error(got)
	}
	if c := b.cluster(night); !c.Ended() {
		t.Errorf("%+v", c)
	}
}

func TestResizeCluster(t *testing.T) {
	b := withNight(t)
	b.do(SuspendGroup{Cluster: night, Group: "ig-n-core", Reason: "half of it failed"})
	c := b.do(ResizeCluster{night, []Group{{ID: "ig-n-core", Target: 5, GraceMs: 7, Provider: "command", Role: RoleTask}, {ID: "ig-n-task", Target: 3}}}).(*Cluster)
	if c.Groups[0] != (Group{ID: "ig-n-core", Role: RoleCore, Target: 5, GraceMs: 7, Provider: "pool"}) {
		t.Errorf("target and grace change, and it is suspended no more: %+v", c.Groups[0])
	}
	if c.Groups[1] != (Group{ID: "ig-n-task", Role: RoleTask, Target: 3}) {
		t.Errorf("it scales by itself no more: %+v", c.Groups[1])
	}
	for target, want := range map[int]int{0: 2, 3: 3, 9: 4} {
		c := b.do(ResizeCluster{night, []Group{{ID: "ig-n-task", Target: target, Scales: true, Min: 2, Max: 4}}}).(*Cluster)
		if got := c.Groups[1].Target; got != want {
			t.Errorf("a target of %d within 2 to 4 is %d", target, got)
		}
	}
	b.refuse(ErrInvalid, ResizeCluster{night, []Group{{ID: "ig-n-core", Target: -1}}})
	b.refuse(ErrExists, ResizeCluster{night, []Group{{ID: "ig-core", Role: RoleCore, Target: 1}}}) // another cluster's
	b.refuse(ErrInvalid, ResizeCluster{night, []Group{{ID: "ig-core", Target: 1}}})
	b.refuse(ErrNotFound, ResizeCluster{Cluster: "j-NONE"})

	b.do(CreateCluster{Cluster{ID: "j-BARE", Name: "bare"}})
	c = b.do(ResizeCluster{"j-BARE", []Group{{ID: "ig-b", Role: RoleTask, Target: 2, Provider: "process"}}}).(*Cluster)
	if len(c.Groups) != 1 || c.Groups[0] != (Group{ID: "ig-b", Role: RoleTask, Target: 2, Provider: "process"}) {
		t.Errorf("%+v", c.Groups)
	}
}

func TestSetTarget(t *testing.T) {
	event := &Event{At: at(2), Kind: "SCALING", Message: "tasks wait"}
	for _, c := range []struct {
		name   string
		cmd    SetTarget
		want   int
		events uint64
	}{
		{"up", SetTarget{night, "ig-n-task", 1, 4, event}, 4, 1},
		{"without an event", SetTarget{night, "ig-n-task", 1, 4, nil}, 4, 0},
		{"down", SetTarget{night, "ig-n-task", 1, 0, event}, 0, 1},
		{"beyond its bounds", SetTarget{night, "ig-n-task", 1, 99, event}, 9, 1},
		{"below its bounds", SetTarget{night, "ig-n-task", 1, -5, event}, 0, 1},
		{"overtaken by a resize", SetTarget{night, "ig-n-task", 2, 4, event}, 1, 0},
		{"to what it is", SetTarget{night, "ig-n-task", 1, 1, event}, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := withNight(t)
			if got := b.do(c.cmd).(*Cluster); got.Groups[1].Target != c.want || got.EventsSeen != c.events {
				t.Errorf("target %d, %d events", got.Groups[1].Target, got.EventsSeen)
			}
		})
	}
	b := withNight(t)
	if c := b.do(SetTarget{night, "ig-n-core", 2, 4, event}).(*Cluster); c.Groups[0].Target != 2 {
		t.Errorf("a group that does not scale by itself: target %d", c.Groups[0].Target)
	}
	b.refuse(ErrNotFound, SetTarget{night, "ig-core", 1, 2, nil})
}

func TestSetCluster(t *testing.T) {
	b := withNight(t)
	b.do(SetCluster{Cluster: night, TerminationProtected: new(true), StepConcurrency: new(2), AutoTerminateMs: new(int64(5)), TerminateAfterSteps: new(true), PutTags: []Tag{{"b", "1"}, {"a", "2"}}})
	c := b.do(SetCluster{Cluster: night, StepConcurrency: new(0), PutTags: []Tag{{"b", "3"}, {"c", "4"}}, RemoveTags: []string{"a", "none"}, Ready: at(5)}).(*Cluster)
	if !c.TerminationProtected || c.StepConcurrency != 0 || c.AutoTerminateMs != 5 || !c.TerminateAfterSteps || fmt.Sprint(c.Tags) != "[{b 3} {c 4}]" {
		t.Errorf("%+v", c)
	}
	if c := b.do(SetCluster{Cluster: night, Ready: at(9)}).(*Cluster); !c.ReadyAt.Equal(at(5)) {
		t.Errorf("it could run tasks since %v", c.ReadyAt)
	}
	b.refuse(ErrInvalid, SetCluster{Cluster: night, StepConcurrency: new(-1)})
	b.refuse(ErrInvalid, SetCluster{Cluster: night, AutoTerminateMs: new(int64(-1))})
}

// Other bootstrap actions are for nodes to come: those that had none to run, or have run theirs, stay as they are; one that has not ended its own has
// failed, and counts against nothing.
func TestSetClusterReplacesBootstrapActions(t *testing.T) {
	b := withNight(t)
	join := func(id string) {
		b.do(PutNode{Node{ID: id, Role: RoleCore, Cluster: night, Group: "ig-n-core"}})
	}
	join("i-before")
	b.do(SetCluster{Cluster: night, Bootstrap: []BootstrapAction{{Name: "first.sh"}}})
	for _, id := range []string{"i-done", "i-failed", "i-runs"} {
		join(id)
	}
	b.do(NoteBootstrap{"i-done", night, BootstrapDone, ""})
	b.do(NoteBootstrap{"i-failed", night, BootstrapFailed, "exit code 1"})
	b.do(SuspendGroup{night, "ig-n-core", "why"})
	b.do(SetCluster{Cluster: night, StepConcurrency: new(1)})
	if c := b.cluster(night); c.Groups[0].Suspended == "" || c.Bootstrap[0].Name != "first.sh" {
		t.Errorf("what is not named stays: %+v", c)
	}
	c := b.do(SetCluster{Cluster: night, Bootstrap: []BootstrapAction{{Name: "second.sh"}}}).(*Cluster)
	if c.Bootstrap[0].Name != "second.sh" || c.Groups[0].Suspended != "" || c.Groups[0].Failed != 0 {
		t.Errorf("%+v", c)
	}
	join("i-after")
	for id, want := range map[string]string{
		"i-before": "DONE ", "i-done": "DONE ", "i-failed": "FAILED exit code 1", "i-runs": "FAILED " + bootstrapReplaced, "i-after": " ",
	} {
		if n, _ := b.View().Node(id); n.Bootstrap+" "+n.Failure != want {
			t.Errorf("%s: %s %s; want %s", id, n.Bootstrap, n.Failure, want)
		}
	}
}

func TestEventsAreBounded(t *testing.T) {
	b := withNight(t)
	for i := range maxEvents {
		b.do(AddEvents{night, []Event{{At: at(i), Message: fmt.Sprint(i)}, {Message: strings.Repeat("long ", 1000)}}})
	}
	c := b.cluster(night)
	if len(c.Events) != maxEvents || c.EventsSeen != 2*maxEvents || c.Events[maxEvents-2].Message != fmt.Sprint(maxEvents-1) || len(c.Events[1].Message) > maxMessage {
		t.Errorf("%d events of %d, the newest %+v", len(c.Events), c.EventsSeen, c.Events[maxEvents-2])
	}
	c = b.do(AddEvents{night, slices.Repeat([]Event{{Message: "x"}}, 2*maxEvents)}).(*Cluster)
	if len(c.Events) != maxEvents || c.EventsSeen != 4*maxEvents {
		t.Errorf("%d events of %d", len(c.Events), c.EventsSeen)
	}
}

func TestTerminateCluster(t *testing.T) {
	b := withNight(t)
	b.do(CreateToken{Token{ID: "late", Role: RoleCore, Cluster: night, ExpiresAt: at(60), UsesLeft: -1}})
	b.do(SetCluster{Cluster: night, TerminationProtected: new(true)})
	b.refuse(ErrProtected, TerminateCluster{Cluster: night, ReasonCode: ReasonUserRequest})
	b.do(SetCluster{Cluster: night, TerminationProtected: new(false)})
	b.refuse(ErrInvalid, TerminateCluster{Cluster: night})
	b.do(TerminateCluster{night, ReasonUserRequest, "enough"})
	c := b.do(TerminateCluster{night, ReasonAutoTerminate, "idle"}).(*Cluster)
	if c.State != ClusterTerminating || c.ReasonCode != ReasonUserRequest || c.Reason != "enough" {
		t.Errorf("the first reason stays: %+v", c)
	}
	for _, late := range []Command{
		SubmitJob{Job{ID: "s-A", Cluster: night}}, ResizeCluster{Cluster: night}, SetTarget{Cluster: night, Group: "ig-n-task"}, SetCluster{Cluster: night},
		SuspendGroup{night, "ig-n-task", "why"}, CreateToken{Token{ID: "x", Role: RoleCore, Cluster: night}}, PutNode{Node{ID: "i-1", Role: RoleCore, Cluster: night}},
	} {
		if err := b.refuse(ErrTooLate, late); !strings.Contains(err.Error(), "cluster night (j-NIGHT) is being terminated") {
			t.Errorf("%s: %v", late.CommandName(), err)
		}
	}
	b.refuse(ErrToken, AdmitNode{Token: "late", Node: Node{ID: "i-1", Role: RoleCore, Cluster: night}, Now: t0})
	b.do(AddEvents{night, []Event{{Message: "a node has left"}}})
	b.do(namespace.Mkdir{Cluster: night, Path: "/still", At: t0}) // jobs are being cleaned up
	b.refuse(ErrNotFound, TerminateCluster{Cluster: "j-NONE", ReasonCode: ReasonUserRequest})
}

// A cluster ends when nothing is left of it, and takes its files and tokens along.
func TestEndCluster(t *testing.T) {
	b := withFleet(t)
	end := EndCluster{night, ClusterTerminatedWithErrors, at(9)}
	b.do(namespace.Mkdir{Cluster: night, Path: "/gone", At: t0})
	b.do(SubmitJob{Job{ID: "s-N", Cluster: night}})
	b.refuse(ErrNotReady, end) // nobody has asked for it
	b.do(TerminateCluster{Cluster: night, ReasonCode: ReasonUserRequest})
	b.refuse(ErrInvalid, EndCluster{night, "GONE", at(9)})
	for _, step := range []struct {
		says string
		then Command
	}{
		{"has job s-N", CancelJob{Job: "s-N"}},
		{"has job s-N", EndJob{Job: "s-N"}},
		{"has node i-l", RemoveNode{ID: "i-l"}},
		{"has node i-p1", ReleaseNode{"i-p1"}},
		{"has launch l-1", DropLaunch{"l-1"}},
		{"has launch l-2", PutLaunch{Launch: Launch{ID: "l-2", Provider: "command", State: LaunchTerminating}}},
		{"has launch l-2", DropLaunch{"l-2"}},
	} {
		if err := b.refuse(ErrNotReady, end); !strings.Contains(err.Error(), step.says) {
			t.Errorf("%v; it should be: %s", err, step.says)
		}
		b.do(step.then)
	}
	c := b.do(end).(*Cluster)
	if !c.Ended() || c.State != ClusterTerminatedWithErrors || !c.EndedAt.Equal(at(9)) {
		t.Errorf("%+v", c)
	}
	if c := b.do(EndCluster{night, ClusterTerminated, at(10)}).(*Cluster); !c.EndedAt.Equal(at(9)) {
		t.Errorf("it ended again: %+v", c)
	}
	if _, err := b.View().Files(night).Stat("/gone"); err == nil {
		t.Error("its files are still there")
	}
	b.refuse(ErrNotFound, namespace.Mkdir{Cluster: night, Path: "/late", At: t0})
	if got := ids(b.View().Tokens(), func(t *Token) string { return t.ID }); strings.Contains(got, "night") || !strings.Contains(got, "pool") {
		t.Errorf("tokens: %s", got)
	}
	if c := b.do(TerminateCluster{Cluster: night, ReasonCode: ReasonUserRequest}).(*Cluster); !c.Ended() {
		t.Errorf("terminated once more it is %s", c.State)
	}
}

func TestTheLastClustersThatEndedStay(t *testing.T) {
	b := newBench(t)
	for i := range maxEndedClusters + 2 {
		id := fmt.Sprintf("j-%03d", i)
		b.do(CreateCluster{Cluster{ID: id, Name: "again", CreatedAt: at(i)}})
		b.over(id, i)
	}
	if got := b.View().Clusters(); len(got) != maxEndedClusters+1 || got[0].ID != "j-002" {
		t.Errorf("%d clusters, the first is %s", len(got), got[0].ID)
	}
	if _, ok := b.View().Cluster("j-001"); ok {
		t.Error("the oldest are still there")
	}
}

// A record is never changed, but replaced: who has an older view sees what was.
func TestAnOlderViewOfAClusterStaysAsItWas(t *testing.T) {
	b := withNight(t)
	b.do(SetCluster{Cluster: night, PutTags: []Tag{{"a", "1"}, {"b", "2"}}})
	b.do(AddEvents{night, []Event{{Message: "first"}}})
	before, was := b.cluster(night), records(b, b.View())
	view := b.View()
	b.do(SetCluster{Cluster: night, PutTags: []Tag{{"a", "3"}}, RemoveTags: []string{"b"}})
	b.do(AddEvents{night, []Event{{Message: "second"}}})
	b.do(ResizeCluster{night, []Group{{ID: "ig-n-core", Target: 9}}})
	b.do(SetTarget{night, "ig-n-task", 1, 2, nil})
	b.do(SuspendGroup{night, "ig-n-task", "why"})
	if got := records(b, view); got != was {
		t.Errorf("it was\n%s\nand is\n%s", was, got)
	}
	if now := b.cluster(night); now == before || now.Tags[0].Value != "3" || len(now.Tags) != 1 {
		t.Errorf("%+v", now)
	}
}
