package state

import (
	"fmt"
	"strings"
	"testing"
)

// withFleet has cluster night with a core node i-p1 of the pool, and a task node i-l of launch l-1; l-2 is asked for, and i-p2 is free.
func withFleet(t *testing.T) *bench {
	b := withNight(t)
	b.do(CreateToken{Token{ID: "pool", Role: RolePool, ExpiresAt: at(60), UsesLeft: -1}})
	for _, id := range []string{"i-p1", "i-p2"} {
		b.do(AdmitNode{Token: "pool", Node: poolNode(id), Now: t0})
	}
	b.do(AssignNode{"i-p1", night, "ig-n-core"})
	b.do(launch("l-1"))
	b.do(launch("l-2"))
	b.do(AdmitNode{Token: "night-l-1", Node: Node{ID: "i-l", Role: RoleTask, Cluster: night}, Now: t0})
	return b
}

func poolNode(id string) Node { return Node{ID: id, Role: RolePool, JoinedAt: t0} }

// launch asks for a task node of cluster night.
func launch(id string) PutLaunch {
	return PutLaunch{
		Launch: Launch{ID: id, Cluster: night, Group: "ig-n-task", Provider: "command", State: LaunchRequested, RequestedAt: t0, Token: "night-" + id, SealedToken: []byte{1}},
		Create: &Token{ID: "night-" + id, Role: RoleTask, Cluster: night, ExpiresAt: at(60), UsesLeft: 1, Launch: id},
	}
}

func (b *bench) node(id string) *Node {
	b.Helper()
	n, ok := b.View().Node(id)
	if !ok {
		b.Fatalf("no node %s", id)
	}
	return n
}

func (b *bench) launch(id string) *Launch {
	b.Helper()
	l, ok := b.View().Launch(id)
	if !ok {
		b.Fatalf("no launch %s", id)
	}
	return l
}

func nodeIDs(ns []*Node) string { return ids(ns, func(n *Node) string { return n.ID }) }

// A site that goes on from a backup does not know where nodes were put after it: they are taken at their word, once, while what they say is there.
func TestANodeIsFoundWhereItIs(t *testing.T) {
	for name, c := range map[string]struct {
		says FindNode
		want string
	}{
		"in the pool, as it was":               {FindNode{"i-p", "", RolePool}, "POOL  "},
		"core of a cluster":                    {FindNode{"i-p", testCluster, RoleCore}, "CORE j-CLUSTER ig-core"},
		"in a cluster that is not known":       {FindNode{"i-p", "j-NONE", RoleCore}, "POOL  "},
		"in a group that the cluster has none": {FindNode{"i-p", testCluster, RoleMaster}, "POOL  "},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.do(PutNode{Node{ID: "i-p", Role: RolePool, Pooled: true}})
			b.do(PutNode{Node{ID: "i-own", Role: RoleCore, Cluster: testCluster, Group: "ig-core"}})
			if err := b.DoubtPlaces(); err != nil {
				t.Fatal(err)
			}
			if n, _ := b.View().Node("i-own"); n.Unsure {
				t.Error("a node that is not of the pool has one place for ever")
			}
			for _, says := range []FindNode{c.says, {"i-p", testCluster, RoleTask}} { // the second comes late
				n := b.do(says).(*Node)
				if got := n.Role + " " + n.Cluster + " " + n.Group; got != c.want || n.Unsure {
					t.Errorf("it is %q, unsure: %t; want %q", got, n.Unsure, c.want)
				}
			}
		})
	}
}

func TestThePool(t *testing.T) {
	b := withFleet(t)
	if n := b.node("i-p2"); !n.Pooled || !n.Free() || n.Role != RolePool || n.Cluster != "" {
		t.Errorf("%+v", n)
	}
	if n := b.node("i-p1"); !n.Pooled || n.Free() || n.Role != RoleCore || n.Cluster != night || n.Group != "ig-n-core" {
		t.Errorf("%+v", n)
	}
	v := b.View()
	if got := nodeIDs(v.PoolNodes()) + "| " + nodeIDs(v.NodesOf(night, "ig-n-core")) + "| " + nodeIDs(v.NodesOf(night, "ig-n-task")) + "| " + nodeIDs(v.Nodes(night)); got != "i-p2 | i-p1 | i-l | i-l i-p1 " {
		t.Error(got)
	}
	b.refuse(ErrNotFound, CreateToken{Token{ID: "x", Role: RolePool, Cluster: night}}) // the pool is no cluster's
	b.refuse(ErrToken, AdmitNode{Token: "pool", Node: Node{ID: "i-9", Role: RoleCore, Cluster: night}, Now: t0})
}

// A machine of the pool that starts again, or runs its user data again, is where it was put.
func TestANodeOfThePoolThatAsksAgainStays(t *testing.T) {
	b := withFleet(t)
	b.do(NoteBootstrap{ID: "i-p1", Cluster: night, State: BootstrapDone})
	b.do(LeaveNode{ID: "i-p1", By: at(9)})
	again := poolNode("i-p1")
	again.Serial, again.JoinedAt = "2", at(5)
	n := b.do(AdmitNode{Token: "pool", Node: again, Now: at(5)}).(*Node)
	if *n != (Node{ID: "i-p1", Role: RoleCore, Cluster: night, Group: "ig-n-core", State: NodeAdmitted, Serial: "2", JoinedAt: t0,
		Pooled: true, Bootstrap: BootstrapDone, Leaving: true, DrainBy: at(9)}) {
		t.Errorf("%+v", n)
	}
	b.do(TerminateCluster{Cluster: night, ReasonCode: ReasonUserRequest})
	b.do(AdmitNode{Token: "pool", Node: again, Now: at(5)}) // the pool does not end
	renewed := *b.node("i-p1")
	renewed.Serial = "3"
	if n := b.do(PutNode{renewed}).(*Node); *n != renewed {
		t.Errorf("a node of a cluster that is ending cannot renew its certificate: %+v", n)
	}
	b.do(RemoveNode{ID: "i-p1"})
	b.refuse(ErrToken, AdmitNode{Token: "pool", Node: again, Now: at(5)})
}

func TestAssignNode(t *testing.T) {
	for _, c := range []struct {
		name   string
		before []Command
		cmd    AssignNode
		want   error
	}{
		{"a free node", nil, AssignNode{"i-p2", night, "ig-n-task"}, nil},
		{"a node that is of a cluster", nil, AssignNode{"i-p1", night, "ig-n-task"}, ErrTooLate},
		{"a node that is not of the pool", nil, AssignNode{"i-l", night, "ig-n-task"}, ErrTooLate},
		{"a master", []Command{PutNode{Node{ID: "i-m", Role: RoleMaster}}}, AssignNode{"i-m", night, "ig-n-task"}, ErrTooLate},
		{"a node that drains", []Command{DrainNode{ID: "i-p2", By: at(9)}}, AssignNode{"i-p2", night, "ig-n-task"}, ErrTooLate},
		{"a node that drains no more", []Command{LeaveNode{ID: "i-p2", By: at(9)}, DrainNode{ID: "i-p2"}}, AssignNode{"i-p2", night, "ig-n-task"}, nil},
		{"a removed node", []Command{RemoveNode{ID: "i-p2"}}, AssignNode{"i-p2", night, "ig-n-task"}, ErrTooLate},
		{"no node", nil, AssignNode{"i-none", night, "ig-n-task"}, ErrNotFound},
		{"no cluster", nil, AssignNode{"i-p2", "j-NONE", "ig-n-task"}, ErrNotFound},
		{"a cluster's name", nil, AssignNode{"i-p2", "night", "ig-n-task"}, ErrNotFound},
		{"no group", nil, AssignNode{"i-p2", night, "ig-core"}, ErrNotFound},
		{"a cluster that is ending", []Command{TerminateCluster{Cluster: night, ReasonCode: ReasonUserRequest}}, AssignNode{"i-p2", night, "ig-n-task"}, ErrTooLate},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := withFleet(t)
			for _, cmd := range c.before {
				b.do(cmd)
			}
			if c.want != nil {
				b.refuse(c.want, c.cmd)
				return
			}
			n := b.do(c.cmd).(*Node)
			if n.Cluster != night || n.Group != "ig-n-task" || n.Role != RoleTask {
				t.Errorf("%+v", n)
			}
			if got := b.cluster(night).Groups[1].Target; got != 1 {
				t.Errorf("two nodes, and a target of %d: it is who assigns that knows it", got)
			}
		})
	}
}

func TestANodeIsReleasedToThePoolAsItCame(t *testing.T) {
	b := withFleet(t)
	b.do(NoteBootstrap{"i-p1", night, BootstrapFailed, "exit code 1"})
	b.do(LeaveNode{ID: "i-p1", By: at(9)})
	n := b.do(ReleaseNode{"i-p1"}).(*Node)
	if *n != (Node{ID: "i-p1", Role: RolePool, State: NodeAdmitted, JoinedAt: t0, Pooled: true}) || !n.Free() {
		t.Errorf("%+v", n)
	}
	b.do(ReleaseNode{"i-p1"})
	b.do(AssignNode{"i-p1", night, "ig-n-task"})
	b.refuse(ErrInvalid, ReleaseNode{"i-l"})
	b.refuse(ErrNotFound, ReleaseNode{"i-none"})
	b.do(RemoveNode{ID: "i-p1"})
	b.refuse(ErrTooLate, ReleaseNode{"i-p1"})
}

func TestNodesLeave(t *testing.T) {
	b := withFleet(t)
	if n := b.do(LeaveNode{ID: "i-l", By: at(9)}).(*Node); !n.Leaving || !n.Draining() || n.Counts() {
		t.Errorf("%+v", n)
	}
	if n := b.do(DrainNode{ID: "i-l", By: at(5)}).(*Node); !n.Leaving || !n.DrainBy.Equal(at(5)) {
		t.Errorf("another time: %+v", n)
	}
	if n := b.do(DrainNode{ID: "i-l"}).(*Node); n.Leaving || n.Draining() || !n.Counts() {
		t.Errorf("it stays after all: %+v", n)
	}
	b.refuse(ErrInvalid, LeaveNode{ID: "i-l"})
	b.refuse(ErrNotFound, LeaveNode{ID: "i-none", By: at(9)})
	b.do(PutNode{Node{ID: "i-m", Role: RoleMaster}})
	b.refuse(ErrInvalid, LeaveNode{ID: "i-m", By: at(9)})
	b.do(RemoveNode{ID: "i-l"})
	b.refuse(ErrTooLate, LeaveNode{ID: "i-l", By: at(9)})
}

// What a node drains for is its farewell only as long as nobody else has it drain.
func TestTheLogKnowsWhoseADrainIs(t *testing.T) {
	const id = "i-p1"
	drains := DrainNode{ID: id, By: at(9)}
	for _, c := range []struct {
		name string
		then []Command
		bye  string
	}{
		{"a farewell", []Command{DrainNode{ID: id, By: at(9), Bye: "1"}}, "1"},
		{"a farewell for which it is let go", []Command{LeaveNode{ID: id, By: at(9), Bye: "1"}}, "1"},
		{"the farewell of its next process", []Command{DrainNode{ID: id, By: at(9), Bye: "1"}, LeaveNode{ID: id, By: at(9), Bye: "2"}}, "2"},
		{"somebody else", []Command{drains}, ""},
		{"somebody else, before a farewell that did not know of it", []Command{drains, DrainNode{ID: id, By: at(9), Bye: "1"}}, ""},
		{"a resize, before a farewell that did not know of it", []Command{LeaveNode{ID: id, By: at(9)}, LeaveNode{ID: id, By: at(9), Bye: "1"}}, ""},
		{"somebody else, after a farewell", []Command{DrainNode{ID: id, By: at(9), Bye: "1"}, drains}, ""},
		{"a resize after a farewell", []Command{DrainNode{ID: id, By: at(9), Bye: "1"}, LeaveNode{ID: id, By: at(9)}}, ""},
		{"none any more", []Command{LeaveNode{ID: id, By: at(9), Bye: "1"}, DrainNode{ID: id, Bye: "1"}}, ""},
		{"of a node that asks again to join", []Command{DrainNode{ID: id, By: at(9), Bye: "1"}, AdmitNode{Token: "pool", Node: poolNode(id), Now: t0}}, "1"},
		{"of a node that is back in the pool", []Command{LeaveNode{ID: id, By: at(9), Bye: "1"}, ReleaseNode{id}}, ""},
		{"of a node that was removed", []Command{LeaveNode{ID: id, By: at(9), Bye: "1"}, RemoveNode{ID: id}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := withFleet(t)
			for _, cmd := range c.then {
				b.do(cmd)
			}
			n, _ := b.View().Node(id)
			if n.Bye != c.bye || n.Bye != "" && !n.Draining() {
				t.Errorf("%+v", n)
			}
		})
	}
}

func TestNoteBootstrap(t *testing.T) {
	b := withFleet(t)
	if n := b.do(NoteBootstrap{"i-p1", night, BootstrapDone, ""}).(*Node); n.Bootstrap != BootstrapDone || !n.Counts() {
		t.Errorf("%+v", n)
	}
	for range 2 { // it is said again
		if n := b.do(NoteBootstrap{"i-l", night, BootstrapFailed, ""}).(*Node); n.Bootstrap != BootstrapFailed || n.Failure == "" || n.Counts() {
			t.Errorf("%+v", n)
		}
	}
	if n := b.do(NoteBootstrap{"i-l", night, BootstrapDone, ""}).(*Node); n.Bootstrap != BootstrapFailed {
		t.Errorf("what was said first stays: %+v", n)
	}
	if g := b.cluster(night).Groups[1]; g.Failed != 1 {
		t.Errorf("%d have failed", g.Failed)
	}
	b.do(ResizeCluster{night, []Group{{ID: "ig-n-task", Target: 2}}})
	if g := b.cluster(night).Groups[1]; g.Failed != 0 {
		t.Errorf("%d have failed since it was resized", g.Failed)
	}
	b.refuse(ErrTooLate, NoteBootstrap{"i-p2", night, BootstrapDone, ""}) // it is of none by now
	b.refuse(ErrInvalid, NoteBootstrap{"i-p2", "", BootstrapDone, ""})
	b.refuse(ErrInvalid, NoteBootstrap{"i-p1", night, "HALF", ""})
	b.refuse(ErrNotFound, NoteBootstrap{"i-none", night, BootstrapDone, ""})
	b.do(RemoveNode{ID: "i-p1"})
	b.refuse(ErrTooLate, NoteBootstrap{"i-p1", night, BootstrapDone, ""})
}

func TestSuspendGroup(t *testing.T) {
	b := withFleet(t)
	c := b.do(SuspendGroup{night, "ig-n-task", strings.Repeat("why ", 1000)}).(*Cluster)
	if s := c.Groups[1].Suspended; len(s) == 0 || len(s) > maxMessage {
		t.Errorf("%d bytes of reason", len(s))
	}
	b.refuse(ErrInvalid, SuspendGroup{night, "ig-n-task", ""})
	b.refuse(ErrNotFound, SuspendGroup{night, "ig-core", "why"})
}

// A node that leaves or has failed has its place taken by the next one: that raises no target.
func TestWhoCountsForAGroup(t *testing.T) {
	b := withTokens(t)
	target := func() int { return b.cluster("").Groups[0].Target }
	b.do(AdmitNode{Token: "core", Node: coreNode("i-1"), Now: t0})
	b.do(LeaveNode{ID: "i-1", By: at(9)})
	b.do(AdmitNode{Token: "core", Node: coreNode("i-2"), Now: t0})
	b.do(NoteBootstrap{"i-2", testCluster, BootstrapFailed, "exit code 1"})
	b.do(AdmitNode{Token: "core", Node: coreNode("i-3"), Now: t0})
	if got := target(); got != 1 {
		t.Errorf("target %d", got)
	}
	b.do(RemoveNode{ID: "i-1", Shrink: true})
	b.do(RemoveNode{ID: "i-2", Shrink: true})
	if got := target(); got != 1 {
		t.Errorf("without those that did not count: target %d", got)
	}
	b.do(RemoveNode{ID: "i-3", Shrink: true})
	if got := target(); got != 0 {
		t.Errorf("target %d", got)
	}
}

func TestALaunchedNodeJoins(t *testing.T) {
	b := withFleet(t)
	if n := b.node("i-l"); n.Launch != "l-1" || n.Provider != "command" || n.Group != "ig-n-task" || n.Pooled {
		t.Errorf("%+v", n)
	}
	if l := b.launch("l-1"); l.State != LaunchJoined || l.Node != "i-l" {
		t.Errorf("%+v", l)
	}
	b.do(ResizeCluster{night, []Group{{ID: "ig-n-task"}}}) // to none, while l-2 is under way
	b.do(AdmitNode{Token: "night-l-2", Node: Node{ID: "i-l2", Role: RoleTask, Cluster: night}, Now: t0})
	if got := b.cluster(night).Groups[1].Target; got != 0 {
		t.Errorf("a launch that was overtaken by a resize has the target be %d", got)
	}
	if n := b.do(AdmitNode{Token: "night-l-2", Node: Node{ID: "i-l2", Role: RoleTask, Cluster: night, Serial: "2"}, Now: at(5)}).(*Node); n.Launch != "l-2" || n.Group != "ig-n-task" {
		t.Errorf("it asks again, for want of an answer: %+v", n)
	}
	b.refuse(ErrToken, AdmitNode{Token: "night-l-2", Node: Node{ID: "i-l3", Role: RoleTask, Cluster: night}, Now: t0})
	b.do(launch("l-3"))
	b.refuse(ErrToken, AdmitNode{Token: "night-l-3", Node: Node{ID: "i-l2", Role: RoleTask, Cluster: night}, Now: t0}) // which was launched before
	given := launch("l-3").Launch
	given.State = LaunchTerminating
	b.do(PutLaunch{Launch: given})
	b.refuse(ErrToken, AdmitNode{Token: "night-l-3", Node: Node{ID: "i-l3", Role: RoleTask, Cluster: night}, Now: t0}) // it was given up
}

func TestALaunchGoesForwardOnly(t *testing.T) {
	say := func(state, machine, problem string, tries int) PutLaunch {
		l := launch("l-2").Launch
		l.State, l.Machine, l.Problem, l.Tries = state, machine, problem, tries
		l.Cluster, l.Group, l.Node, l.Token, l.SealedToken = "j-OTHER", "ig-other", "i-other", "other", nil // what it is for does not change
		return PutLaunch{Launch: l}
	}
	for _, c := range []struct {
		name string
		cmds []Command
		want Launch // of what may differ
		err  error
	}{
		{"a try fails", []Command{say(LaunchRequested, "", "no room", 1)}, Launch{State: LaunchRequested, Problem: "no room", Tries: 1}, nil},
		{"it is given", []Command{say(LaunchGiven, "vm", "", 0)}, Launch{State: LaunchGiven, Machine: "vm"}, nil},
		{"its machine is not forgotten", []Command{say(LaunchGiven, "vm", "", 0), say(LaunchTerminating, "", "", 0)}, Launch{State: LaunchTerminating, Machine: "vm"}, nil},
		{"it is given after its node has joined", []Command{joins("l-2"), say(LaunchGiven, "vm", "late", 3)}, Launch{State: LaunchJoined, Machine: "vm", Node: "i-of-l-2"}, nil},
		{"it is given after it was given up", []Command{say(LaunchTerminating, "", "", 0), say(LaunchGiven, "vm", "", 0)}, Launch{State: LaunchTerminating, Machine: "vm"}, nil},
		{"its node is removed", []Command{say(LaunchGiven, "vm", "slow", 2), joins("l-2"), RemoveNode{ID: "i-of-l-2"}}, Launch{State: LaunchTerminating, Machine: "vm", Node: "i-of-l-2"}, nil},
		{"it is given up after its node has joined", []Command{joins("l-2"), say(LaunchTerminating, "", "", 0)}, Launch{}, ErrTooLate},
		{"nobody has joined", []Command{say(LaunchJoined, "", "", 0)}, Launch{}, ErrInvalid},
		{"it is there already", []Command{launch("l-2")}, Launch{}, ErrExists},
		{"it was dropped", []Command{DropLaunch{"l-2"}, say(LaunchGiven, "vm", "", 0)}, Launch{}, ErrNotFound},
		{"it has no state", []Command{say("", "", "", 0)}, Launch{}, ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := withFleet(t)
			last := len(c.cmds) - 1
			for _, cmd := range c.cmds[:last] {
				b.do(cmd)
			}
			if c.err != nil {
				b.refuse(c.err, c.cmds[last])
				return
			}
			b.do(c.cmds[last])
			l := *b.launch("l-2")
			if l.Cluster != night || l.Group != "ig-n-task" || l.Token != "night-l-2" || len(l.SealedToken) == 0 {
				t.Errorf("%+v", l)
			}
			if l.State != c.want.State || l.Machine != c.want.Machine || l.Node != c.want.Node || l.Problem != c.want.Problem || l.Tries != c.want.Tries {
				t.Errorf("%+v, not %+v", l, c.want)
			}
		})
	}
}

// joins admits the node of a launch.
func joins(id string) AdmitNode {
	return AdmitNode{Token: "night-" + id, Node: Node{ID: "i-of-" + id, Role: RoleTask, Cluster: night}, Now: t0}
}

func TestNewLaunches(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*PutLaunch)
		want   error
	}{
		{"no id", func(p *PutLaunch) { p.Launch.ID = "" }, ErrInvalid},
		{"no provider", func(p *PutLaunch) { p.Launch.Provider = "" }, ErrInvalid},
		{"no token", func(p *PutLaunch) { p.Create = nil }, ErrInvalid},
		{"another's token", func(p *PutLaunch) { p.Create.Launch = "l-1" }, ErrInvalid},
		{"a token for another role", func(p *PutLaunch) { p.Create.Role = RoleCore }, ErrInvalid},
		{"a token that is there", func(p *PutLaunch) { p.Launch.Token, p.Create.ID = "pool", "pool" }, ErrExists},
		{"no cluster", func(p *PutLaunch) { p.Launch.Cluster = "j-NONE" }, ErrNotFound},
		{"no group", func(p *PutLaunch) { p.Launch.Group = "ig-none" }, ErrNotFound},
		{"not asked for yet", func(p *PutLaunch) { p.Launch.State = LaunchGiven }, ErrNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, p := withFleet(t), launch("l-9")
			c.change(&p)
			b.refuse(c.want, p)
		})
	}
	b := withFleet(t)
	b.refuse(ErrInvalid, CreateToken{Token{ID: "x", Role: RoleTask, Cluster: night, Launch: "l-1"}})
	if got := ids(b.View().Launches(night), func(l *Launch) string { return l.ID }); got != "l-1 l-2 " {
		t.Error(got)
	}
	if got := len(b.View().Launches("")) - len(b.View().Launches(testCluster)); got != 2 {
		t.Errorf("%d launches", got)
	}
	b.do(DropLaunch{"l-2"})
	if _, ok := b.View().Token("night-l-2"); ok {
		t.Error("the token of a launch that was dropped is still good")
	}
	b.refuse(ErrNotFound, DropLaunch{"l-2"})
	b.do(TerminateCluster{Cluster: night, ReasonCode: ReasonUserRequest})
	b.refuse(ErrTooLate, launch("l-9"))
}

// Machines come and go for years: what is known of them has an end.
func TestTheLastNodesThatWereLaunchedStay(t *testing.T) {
	b := withFleet(t)
	b.do(RemoveNode{ID: "i-l"}) // its provider has not been told yet
	for i := range maxGoneNodes + 2 {
		id := fmt.Sprintf("l-%04d", i)
		b.do(launch(id))
		n := joins(id)
		n.Node.JoinedAt = at(i)
		b.do(n)
		b.do(RemoveNode{ID: n.Node.ID})
		b.do(DropLaunch{id})
	}
	known := func(id string) bool { _, ok := b.View().Node(id); return ok }
	if known("i-of-l-0001") || !known("i-of-l-0002") || !known("i-l") || !known("i-p1") {
		t.Error("others than the newest stay")
	}
}
