package state

import (
	"testing"
)

func withTokens(t *testing.T) *bench {
	b := newBench(t)
	for _, token := range []Token{
		{ID: "core", Role: RoleCore, Cluster: testCluster, ExpiresAt: at(60), UsesLeft: -1},
		{ID: "once", Role: RoleTask, Cluster: testCluster, ExpiresAt: at(60), UsesLeft: 1},
		{ID: "master", Role: RoleMaster, ExpiresAt: at(60), UsesLeft: -1},
	} {
		b.do(CreateToken{token})
	}
	return b
}

func coreNode(id string) Node {
	return Node{ID: id, Role: RoleCore, Cluster: testCluster, JoinedAt: t0}
}
func taskNode(id string) Node {
	return Node{ID: id, Role: RoleTask, Cluster: testCluster, JoinedAt: t0}
}

func TestAdmitNode(t *testing.T) {
	b := withTokens(t)
	n := b.do(AdmitNode{Token: "core", Node: coreNode("i-1"), Now: t0}).(*Node)
	if n.State != NodeAdmitted || n.Group != "ig-core" {
		t.Errorf("admitted as %+v", n)
	}
	if m := b.do(AdmitNode{Token: "master", Node: Node{ID: "i-m", Role: RoleMaster}, Now: t0}).(*Node); m.Group != "" {
		t.Errorf("a master is in group %q", m.Group)
	}
	if got := ids(b.View().Nodes(testCluster), func(n *Node) string { return n.ID }); got != "i-1 " {
		t.Errorf("nodes of the cluster: %s", got)
	}
	if got := ids(b.View().Nodes(""), func(n *Node) string { return n.ID }); got != "i-1 i-m " {
		t.Errorf("nodes of the site: %s", got)
	}
}

func TestAdmitNodeRefusals(t *testing.T) {
	for _, c := range []struct {
		name string
		cmd  AdmitNode
		want error
	}{
		{"no such token", AdmitNode{Token: "none", Node: coreNode("i-9"), Now: t0}, ErrToken},
		{"expired, to the second", AdmitNode{Token: "core", Node: coreNode("i-9"), Now: at(60)}, ErrToken},
		{"another role", AdmitNode{Token: "core", Node: taskNode("i-9"), Now: t0}, ErrToken},
		{"another cluster", AdmitNode{Token: "core", Node: Node{ID: "i-9", Role: RoleCore, Cluster: "j-X"}, Now: t0}, ErrToken},
		{"used up", AdmitNode{Token: "once", Node: taskNode("i-9"), Now: t0}, ErrToken},
		{"known as another role", AdmitNode{Token: "core", Node: coreNode("i-t"), Now: t0}, ErrToken},
		{"removed before", AdmitNode{Token: "core", Node: coreNode("i-gone"), Now: t0}, ErrToken},
		{"no id", AdmitNode{Token: "core", Node: coreNode(""), Now: t0}, ErrInvalid},
		{"no such group", AdmitNode{Token: "core", Node: Node{ID: "i-9", Role: RoleCore, Cluster: testCluster, Group: "ig-task"}, Now: t0}, ErrNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := withTokens(t)
			b.do(AdmitNode{Token: "once", Node: taskNode("i-t"), Now: t0})
			b.do(AdmitNode{Token: "core", Node: coreNode("i-gone"), Now: t0})
			b.do(RemoveNode{ID: "i-gone"})
			b.refuse(c.want, c.cmd)
		})
	}
}

func TestANodeAdmittedAgainUsesNothingUp(t *testing.T) {
	b := withTokens(t)
	b.do(AdmitNode{Token: "once", Node: taskNode("i-1"), Now: t0})
	again := taskNode("i-1")
	again.Serial, again.JoinedAt = "2", at(9)
	n := b.do(AdmitNode{Token: "once", Node: again, Now: at(9)}).(*Node)
	if n.Serial != "2" || !n.JoinedAt.Equal(t0) {
		t.Errorf("admitted again as %+v", n)
	}
	if token, _ := b.View().Token("once"); token.UsesLeft != 0 {
		t.Errorf("%d uses left", token.UsesLeft)
	}
	b.refuse(ErrToken, AdmitNode{Token: "once", Node: again, Now: at(60)})
}

func TestAdmissionRaisesAFullGroupsTarget(t *testing.T) {
	b := withTokens(t)
	target := func() int {
		c, _ := b.View().Cluster("")
		return c.Groups[0].Target
	}
	for i, step := range []struct {
		cmd  Command
		want int
	}{
		{AdmitNode{Token: "core", Node: coreNode("i-1"), Now: t0}, 1}, // fills the target
		{AdmitNode{Token: "core", Node: coreNode("i-2"), Now: t0}, 2},
		{AdmitNode{Token: "core", Node: coreNode("i-2"), Now: t0}, 2}, // again
		{RemoveNode{ID: "i-1"}, 2},
		{AdmitNode{Token: "core", Node: coreNode("i-3"), Now: t0}, 2}, // takes the removed one's place
	} {
		b.do(step.cmd)
		if got := target(); got != step.want {
			t.Errorf("step %d: target %d, not %d", i, got, step.want)
		}
	}
}

func TestNodesDrain(t *testing.T) {
	b := withTokens(t)
	b.do(AdmitNode{Token: "core", Node: coreNode("i-1"), Now: t0})
	b.do(AdmitNode{Token: "core", Node: coreNode("i-2"), Now: t0})
	b.do(PutNode{Node{ID: "i-m", Role: RoleMaster}})
	if n := b.do(DrainNode{ID: "i-1", By: at(9)}).(*Node); !n.Draining() || !n.DrainBy.Equal(at(9)) || n.State != NodeAdmitted {
		t.Errorf("%+v", n)
	}
	if n := b.do(AdmitNode{Token: "core", Node: coreNode("i-1"), Now: t0}).(*Node); !n.DrainBy.Equal(at(9)) {
		t.Errorf("a node that asks again to be admitted drains no more: %+v", n)
	}
	if n := b.do(DrainNode{ID: "i-1", By: at(3)}).(*Node); !n.DrainBy.Equal(at(3)) {
		t.Errorf("another time does not replace the first: %+v", n)
	}
	if n := b.do(DrainNode{ID: "i-1"}).(*Node); n.Draining() {
		t.Errorf("it does not resume: %+v", n)
	}
	b.do(DrainNode{ID: "i-1", By: at(9)})
	if n := b.do(RemoveNode{ID: "i-1", Shrink: true}).(*Node); n.Draining() || n.State != NodeTerminated {
		t.Errorf("%+v", n)
	}
	b.refuse(ErrTooLate, DrainNode{ID: "i-1", By: at(9)})
	b.refuse(ErrNotFound, DrainNode{ID: "i-none", By: at(9)})
	b.refuse(ErrInvalid, DrainNode{ID: "i-m", By: at(9)})
}

func TestAShrinkLowersTheGroupsTargetOnce(t *testing.T) {
	b := withTokens(t)
	b.do(AdmitNode{Token: "core", Node: coreNode("i-1"), Now: t0})
	b.do(AdmitNode{Token: "core", Node: coreNode("i-2"), Now: t0})
	for i, want := range []int{1, 1} { // the second time it is gone already
		b.do(RemoveNode{ID: "i-1", Shrink: true})
		if c, _ := b.View().Cluster(""); c.Groups[0].Target != want {
			t.Errorf("after %d: target %d", i+1, c.Groups[0].Target)
		}
	}
	b.do(AdmitNode{Token: "core", Node: coreNode("i-3"), Now: t0})
	if c, _ := b.View().Cluster(""); c.Groups[0].Target != 2 {
		t.Errorf("one more: target %d", c.Groups[0].Target)
	}
}

func TestPutNode(t *testing.T) {
	b := newBench(t)
	b.do(PutNode{Node{ID: "i-m", Role: RoleMaster, Address: "https://a", JoinedAt: t0}})
	n := b.do(PutNode{Node{ID: "i-m", Role: RoleMaster, Address: "https://b", JoinedAt: at(9)}}).(*Node)
	if n.Address != "https://b" || n.State != NodeAdmitted || !n.JoinedAt.Equal(t0) {
		t.Errorf("%+v", n)
	}
	b.refuse(ErrExists, PutNode{Node{ID: "i-m", Role: RoleCore, Cluster: testCluster}})
	b.refuse(ErrNotFound, PutNode{Node{ID: "i-n", Role: RoleMaster, Cluster: testCluster}})
	b.refuse(ErrInvalid, PutNode{Node{ID: "i-n", Role: "BOSS"}})
	b.do(RemoveNode{ID: "i-m"})
	b.do(RemoveNode{ID: "i-m"})
	b.refuse(ErrTooLate, PutNode{Node{ID: "i-m", Role: RoleMaster}})
	b.refuse(ErrNotFound, RemoveNode{ID: "i-none"})
}

func TestTokens(t *testing.T) {
	b := withTokens(t)
	b.refuse(ErrExists, CreateToken{Token{ID: "core", Role: RoleCore, Cluster: testCluster}})
	b.refuse(ErrInvalid, CreateToken{Token{ID: "", Role: RoleCore, Cluster: testCluster}})
	b.refuse(ErrInvalid, CreateToken{Token{ID: "x", Role: "", Cluster: testCluster}})
	b.refuse(ErrInvalid, CreateToken{Token{ID: "x", Role: RoleCore, Cluster: testCluster, UsesLeft: -2}})
	b.refuse(ErrNotFound, CreateToken{Token{ID: "x", Role: RoleCore, Cluster: "j-X"}})
	b.refuse(ErrNotFound, CreateToken{Token{ID: "x", Role: RoleCore}})
	b.do(RevokeToken{ID: "core"})
	b.refuse(ErrNotFound, RevokeToken{ID: "core"})
	b.refuse(ErrToken, AdmitNode{Token: "core", Node: coreNode("i-1"), Now: t0})
	if got := ids(b.View().Tokens(), func(t *Token) string { return t.ID }); got != "master once " {
		t.Error(got)
	}
}
