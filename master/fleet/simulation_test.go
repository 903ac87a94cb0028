package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"millrace/master/state"
	"millrace/master/tracker"
)

// Whatever happens on the way (resizes that overtake each other, nodes that die or come late, providers that fail, leaders that change while
// something is under way), when it is over every cluster is what was asked for last, and nothing is left over.
func TestWhateverHappensTheLastTargetIsReached(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := cluster(rapid.SampledFrom([]string{"cloud", PoolProvider}).Draw(t, "provider"), 1, 2)
		m := &mayhem{site: newSite(t, c), t: t, pools: 12}
		m.pool(m.pools)
		m.cloud.revives = rapid.Bool().Draw(t, "revives")
		for range rapid.IntRange(5, 60).Draw(t, "steps") {
			m.happens(rapid.SampledFrom(deeds).Draw(t, "deed"))
			if rapid.Bool().Draw(t, "time") {
				m.pass(time.Duration(rapid.SampledFrom([]int{1, 2, 5, 40}).Draw(t, "seconds")) * time.Second)
				m.now = m.now.Add(time.Duration(rapid.SampledFrom([]int{0, 0, 60, 700}).Draw(t, "leap")) * time.Second)
			}
			m.check()
		}
		m.calm()
		m.check()
		m.reached()
	})
}

var deeds = []string{"resize", "resize", "resize", "die", "return", "join", "leader", "leader in mid-call", "break", "mend", "busy", "free", "vanish", "fail", "drain", "terminate"}

type mayhem struct {
	*site
	t     *rapid.T
	pools int
}

func (m *mayhem) happens(what string) {
	switch what {
	case "resize":
		if !m.cluster().Ending() {
			m.resizeTo(m.groupsTo(rapid.IntRange(0, 4).Draw(m.t, "core"), rapid.IntRange(0, 8).Draw(m.t, "task"))...)
		}
	case "die":
		if n := m.some(func(n *state.Node) bool { _, up := m.up[n.ID]; return up }); n != nil {
			m.down(n.ID)
		}
	case "return":
		m.comeBack()
	case "join":
		m.cloud.join()
	case "leader":
		m.lead()
	case "leader in mid-call":
		m.fleet.Round(context.Background())
		m.lead()
	case "break":
		m.cloud.broken = errors.New("it is down")
	case "mend":
		m.cloud.broken = nil
	case "busy":
		if n := m.some(func(n *state.Node) bool { return n.Cluster != "" }); n != nil {
			m.drained[n.ID] = tracker.Drain{Known: true, Attempts: 1}
		}
	case "free":
		clear(m.drained)
	case "vanish":
		if n := m.some(func(n *state.Node) bool { return n.Launch != "" }); n != nil {
			delete(m.cloud.machines, n.Launch)
			m.down(n.ID)
			m.cloud.ended[n.Launch] = !m.cloud.revives
		}
	case "fail":
		if n := m.some(func(n *state.Node) bool { return n.Cluster != "" && n.Bootstrap == "" }); n != nil {
			m.apply(state.NoteBootstrap{ID: n.ID, Cluster: n.Cluster, State: state.BootstrapFailed, Failure: "exit code 1"})
		}
	case "drain":
		if n := m.some(func(n *state.Node) bool { return n.Cluster != "" && !n.Leaving }); n != nil {
			m.apply(state.DrainNode{ID: n.ID, By: m.now.Add(time.Minute)})
			m.NodeChanged(n.ID)
		}
	case "terminate":
		if rapid.IntRange(0, 9).Draw(m.t, "really") == 0 {
			m.apply(state.TerminateCluster{Cluster: "j-1", ReasonCode: state.ReasonUserRequest})
		}
	}
}

// groupsTo are the cluster's groups, as they are, with other targets.
func (m *mayhem) groupsTo(core, task int) []state.Group {
	list := slices.Clone(m.cluster().Groups)
	list[0].Target, list[1].Target = core, task
	return list
}

// some is one of the workers for which something is true, or nil.
func (m *mayhem) some(is func(*state.Node) bool) *state.Node {
	var list []*state.Node
	for _, n := range m.view().Nodes("") {
		if n.State == state.NodeAdmitted && is(n) {
			list = append(list, n)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return rapid.SampledFrom(list).Draw(m.t, "node")
}

// down ends a node's session, which the tracker hears of.
func (m *mayhem) down(id string) {
	delete(m.up, id)
	delete(m.told, id)
}

// comeBack has all nodes have sessions whose machines run, as what the log says they are.
func (m *mayhem) comeBack() {
	for _, n := range m.view().Nodes("") {
		if n.State == state.NodeAdmitted && (n.Launch == "" || m.cloud.machines[n.Launch] != "") {
			m.up[n.ID] = place{n.Cluster, n.Role}
		}
	}
}

// check is what is true at any time.
func (m *mayhem) check() {
	of := map[string]string{}
	for key, machine := range m.cloud.machines {
		if other := of[machine]; other != "" {
			m.t.Fatalf("machine %s is of %s and %s", machine, other, key)
		}
		of[machine] = key
		if _, known := m.view().Launch(key); !known {
			m.t.Fatalf("machine %s of %s is left over", machine, key)
		}
	}
	for _, n := range m.view().Nodes("") {
		if (n.Draining() || n.Role == state.RolePool || n.State == state.NodeTerminated) && m.leases(n.ID) {
			m.t.Fatalf("%s may be given tasks, as far as the tracker was told: %+v\n%s", n.ID, n, m.story())
		}
	}
}

// calm is a long time in which nothing goes wrong.
func (m *mayhem) calm() {
	m.cloud.broken = nil
	clear(m.drained)
	if !m.cluster().Ending() {
		m.resizeTo(m.groupsTo(m.cluster().Groups[0].Target, m.cluster().Groups[1].Target)...) // what has failed is tried again
	}
	for _, n := range m.view().Nodes("j-1") {
		if n.State == state.NodeAdmitted && n.Draining() && !n.Leaving {
			m.apply(state.DrainNode{ID: n.ID}) // people do not have it drained any more
			m.NodeChanged(n.ID)
		}
	}
	for range 200 {
		m.comeBack()
		m.cloud.join()
		m.now = m.now.Add(10 * time.Second)
		m.round()
	}
}

func (m *mayhem) reached() {
	c, want, free := m.cluster(), 0, m.pools
	for _, g := range c.Groups {
		has := m.nodes(g.ID)
		if target := g.Target; c.Ending() {
			if len(has) > 0 || !c.Ended() {
				m.t.Fatalf("the cluster is %s and has %v\n%s", c.State, ids(has), m.story())
			}
		} else if len(has) != target {
			m.t.Fatalf("group %s is to have %d nodes and has %v: %+v\n%s", g.ID, target, ids(has), m.fleet.Status(g.ID), m.story())
		}
		for _, n := range has {
			if n.Leaving || n.Failure != "" {
				m.t.Fatalf("%s is not settled: %+v\n%s", n.ID, n, m.story())
			}
			if n.Pooled {
				free--
			} else {
				want++
			}
		}
		if st := m.fleet.Status(g.ID); st != (Status{}) && !c.Ended() {
			m.t.Fatalf("group %s: %+v", g.ID, st)
		}
	}
	if n := len(m.view().PoolNodes()); n != free {
		m.t.Fatalf("%d nodes are in the pool, not %d\n%s", n, free, m.story())
	}
	if len(m.cloud.machines) != want || len(m.view().Launches("")) != want {
		m.t.Fatalf("%d machines run for %d launches of %d nodes\n%s", len(m.cloud.machines), len(m.view().Launches("")), want, m.story())
	}
}

func (m *mayhem) story() (text string) {
	for _, e := range m.cluster().Events {
		text += fmt.Sprintf("%8s %s\n", e.At.Sub(begin), e.Message)
	}
	return text
}
