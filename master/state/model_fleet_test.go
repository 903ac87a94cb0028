package state

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"millrace/hdfs/namespace"
)

// fleet drives a store and a fleetTwin by the same random commands.
type fleet struct {
	*machine
	w    *fleetTwin
	made int // of everything
}

var fleetActions = []struct {
	often int
	act   func(*fleet)
}{
	{5, (*fleet).createCluster}, {4, (*fleet).resize}, {4, (*fleet).setTarget}, {3, (*fleet).setCluster}, {4, (*fleet).terminate}, {8, (*fleet).end},
	{2, (*fleet).suspend}, {2, (*fleet).addEvents}, {6, (*fleet).token}, {18, (*fleet).admit}, {10, (*fleet).assign}, {5, (*fleet).leave}, {3, (*fleet).stay},
	{6, (*fleet).release}, {2, (*fleet).doubted}, {4, (*fleet).find}, {6, (*fleet).bootstrap}, {5, (*fleet).removeNode}, {8, (*fleet).ask}, {7, (*fleet).tell}, {4, (*fleet).drop},
	{2, (*fleet).submit}, {3, (*fleet).finish}, {1, (*fleet).mkdir}, {10, (*fleet).people}, {2, (*fleet).again},
}

// Whatever comes and goes in whatever order, the store has it as the twin does; so does one that plays the log anew.
func TestTheFleetIsLikeItsTwin(t *testing.T) {
	came := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		m := &fleet{machine: &machine{T: t, b: &bench{failer: t, Store: New()}, came: came}, w: newFleetTwin()}
		m.expect(CreateSite{Site: Site{ID: "site"}, Cluster: Cluster{ID: testCluster, Name: DefaultCluster, Groups: groupsOf(testCluster)}}, nil)
		m.w.createCluster(Cluster{ID: testCluster, Name: DefaultCluster, Groups: groupsOf(testCluster)})
		for _, i := range rapid.SliceOfN(action(len(fleetActions), func(i int) int { return fleetActions[i].often }), 100, 150).Draw(t, "actions") {
			fleetActions[i].act(m)
			m.check()
		}
		m.replay()
	})
	for _, name := range []string{
		"CreateCluster", "ResizeCluster", "SetTarget", "SetCluster", "TerminateCluster", "EndCluster", "SuspendGroup", "AddEvents", "AssignNode", "LeaveNode", "ReleaseNode", "FindNode",
		"NoteBootstrap", "PutLaunch", "DropLaunch", "CreateUser", "PutLoginCode", "RemoveUser", "LoginUser",
	} {
		for _, name := range []string{name, "!" + name} {
			if came[name] == 0 {
				t.Errorf("no history has this: %s", name)
			}
		}
	}
	t.Log(came)
}

func groupsOf(cluster string) []Group {
	return []Group{{ID: cluster + "-core", Role: RoleCore, Target: 1, Provider: "pool"}, {ID: cluster + "-task", Role: RoleTask, Scales: true, Max: 3}}
}

// clusterID draws a cluster, most often one that has not ended.
func (m *fleet) clusterID() string {
	var fit []string
	for id, c := range m.w.clusters {
		if !c.over() {
			fit = append(fit, id)
		}
	}
	slices.Sort(fit)
	if len(fit) == 0 || m.rare(10, "any cluster") {
		fit = []string{"j-NONE", "j-1", "j-2"}
	}
	return one(m.machine, "cluster", fit...)
}

func (m *fleet) group(cluster string) string {
	return cluster + one(m.machine, "group", "-core", "-task", "-task", "-task", "-none")
}

// nodeID draws a node, most often one that fits.
func (m *fleet) nodeID(fits func(Node) bool) string {
	var fit []string
	for _, n := range sorted(m.w.nodes, nodeKey, fits) {
		fit = append(fit, n.ID)
	}
	if len(fit) == 0 || m.rare(8, "any node") {
		fit = append(fit, "i-1", "i-2", "i-NONE")
	}
	return one(m.machine, "node", fit...)
}

func there(n Node) bool { return n.State == NodeAdmitted }

func (m *fleet) launchID() string { return one(m.machine, "launch", "l-1", "l-2", "l-3") }

func (m *fleet) createCluster() {
	m.made++
	id := fmt.Sprint("j-", m.made)
	c := Cluster{
		ID: id, Name: one(m.machine, "name", "a", "b", "j-1"), User: one(m.machine, "user", "ann", "bob"), RequestID: one(m.machine, "request", "", "", "r"),
		CreatedAt: at(m.made), Groups: groupsOf(id), Tags: []Tag{{"z", "1"}, {"a", "2"}},
	}
	id, err := m.w.createCluster(c)
	if got := m.expect(CreateCluster{c}, err); err == nil && got.(*Cluster).ID != id {
		m.Fatalf("the answer is %s; the twin says %s", got.(*Cluster).ID, id)
	}
}

func (m *fleet) resize() {
	c := ResizeCluster{Cluster: m.clusterID()}
	for _, group := range []string{"-core", "-task"} {
		if m.rare(2, group) {
			g := Group{ID: c.Cluster + group, Role: RoleCore, Target: one(m.machine, "target", 0, 1, 3, 6, -1), GraceMs: 5, Max: 4}
			g.Scales = m.rare(2, "scales")
			c.Groups = append(c.Groups, g)
		}
	}
	m.expect(c, m.w.resize(c))
}

func (m *fleet) setTarget() {
	c := SetTarget{Cluster: m.clusterID(), From: one(m.machine, "from", 0, 1, 3), To: one(m.machine, "to", -1, 0, 2, 5), Event: &Event{Kind: "SCALING", Message: fmt.Sprint(m.b.index)}}
	c.Group = m.group(c.Cluster)
	m.expect(c, m.w.setTarget(c))
}

func (m *fleet) setCluster() {
	c := SetCluster{Cluster: m.clusterID(), TerminationProtected: new(m.rare(4, "protected")), Ready: one(m.machine, "ready", time.Time{}, at(int(m.b.index)))}
	c.PutTags, c.RemoveTags = []Tag{{one(m.machine, "tag", "b", "z"), fmt.Sprint(m.b.index)}}, []string{one(m.machine, "remove", "a", "b", "x")}
	if m.rare(3, "bootstrap") {
		c.Bootstrap = []BootstrapAction{{Name: "a.sh", SHA256: fmt.Sprint(m.b.index)}}
		if of := m.w.clusters[c.Cluster]; of != nil && len(of.Bootstrap) > 0 && m.rare(3, "the same") {
			c.Bootstrap = of.Bootstrap
		}
	}
	m.expect(c, m.w.setCluster(c))
}

func (m *fleet) terminate() {
	c := TerminateCluster{Cluster: m.clusterID(), ReasonCode: one(m.machine, "reason", ReasonUserRequest, ReasonAutoTerminate)}
	if c.Cluster == testCluster && !m.rare(4, "the default one") {
		return
	}
	m.expect(c, m.w.terminate(c))
}

func (m *fleet) end() {
	c := EndCluster{Cluster: m.clusterID(), State: one(m.machine, "state", ClusterTerminated, ClusterTerminatedWithErrors), At: at(int(m.b.index))}
	m.expect(c, m.w.end(c))
}

func (m *fleet) suspend() {
	c := SuspendGroup{Cluster: m.clusterID(), Reason: "why"}
	c.Group = m.group(c.Cluster)
	m.expect(c, m.w.suspend(c))
}

func (m *fleet) addEvents() {
	c := AddEvents{Cluster: m.clusterID(), Events: slices.Repeat([]Event{{Kind: "NODE", Message: fmt.Sprint(m.b.index)}}, one(m.machine, "events", 0, 1, 2, 299, 301))}
	twin := m.w.clusters[c.Cluster]
	if twin == nil {
		m.expect(c, ErrNotFound)
		return
	}
	twin.events = append(twin.events, c.Events...)
	m.expect(c, nil)
}

func (m *fleet) token() {
	c := CreateToken{Token{ID: one(m.machine, "token", "t-1", "t-2", "t-3"), Role: one(m.machine, "role", RolePool, RolePool, RoleCore, RoleTask), ExpiresAt: at(9999), UsesLeft: one(m.machine, "uses", -1, 2)}}
	if c.Token.Role != RolePool || m.rare(8, "odd") {
		c.Token.Cluster = m.clusterID()
	}
	m.expect(c, m.w.createToken(c.Token))
}

func (m *fleet) admit() {
	var tokens []string
	for _, t := range sorted(m.w.tokens, func(t Token) string { return t.ID }) {
		tokens = append(tokens, t.ID)
	}
	if len(tokens) == 0 || m.rare(10, "any token") {
		tokens = append(tokens, "t-1", "t-l-1")
	}
	c := AdmitNode{Token: one(m.machine, "token", tokens...), Node: Node{Version: fmt.Sprint(m.b.index)}, Now: t0}
	if m.rare(4, "again") {
		c.Node.ID = m.nodeID(there)
	} else {
		m.made++
		c.Node.ID = fmt.Sprint("i-", m.made)
	}
	token := m.w.tokens[c.Token]
	c.Node.Role, c.Node.Cluster = token.Role, token.Cluster
	if m.rare(10, "odd") {
		c.Node.Role = RoleCore
	}
	m.expect(c, m.w.admit(c))
}

func (m *fleet) assign() {
	c := AssignNode{ID: m.nodeID(func(n Node) bool { return n.Role == RolePool && there(n) }), Cluster: m.clusterID()}
	c.Group = m.group(c.Cluster)
	m.expect(c, m.w.assign(c))
}

func (m *fleet) leave() {
	c := LeaveNode{ID: m.nodeID(there), By: at(int(m.b.index)), Bye: one(m.machine, "bye", "", "1")}
	m.expect(c, m.w.drain(c.ID, c.By, c.Bye, true))
}

func (m *fleet) stay() {
	c := DrainNode{ID: m.nodeID(func(n Node) bool { return n.Leaving }), By: one(m.machine, "by", time.Time{}, at(7)), Bye: one(m.machine, "bye", "", "2")}
	m.expect(c, m.w.drain(c.ID, c.By, c.Bye, false))
}

func (m *fleet) release() {
	c := ReleaseNode{ID: m.nodeID(func(n Node) bool { return n.Pooled && n.Cluster != "" })}
	m.expect(c, m.w.release(c.ID))
}

// doubted is a node of the pool as a store has it that goes on from a backup. Its id is no other's: a store does not put one node in
// another's place.
func (m *fleet) doubted() {
	m.made++
	n := Node{ID: fmt.Sprint("i-doubted-", m.made), Role: RolePool, Pooled: true, Unsure: true, State: NodeAdmitted}
	m.w.nodes[n.ID] = n
	m.expect(PutNode{n}, nil)
}

func (m *fleet) find() {
	c := FindNode{ID: m.nodeID(func(n Node) bool { return n.Unsure }), Cluster: m.clusterID(), Role: one(m.machine, "role", RoleCore, RoleTask, RolePool)}
	m.expect(c, m.w.find(c))
}

func (m *fleet) bootstrap() {
	c := NoteBootstrap{ID: m.nodeID(func(n Node) bool { return there(n) && n.Cluster != "" }), State: one(m.machine, "state", BootstrapDone, BootstrapFailed), Failure: "exit code 1"}
	if c.Cluster = m.w.nodes[c.ID].Cluster; c.Cluster == "" || m.rare(8, "another cluster") {
		c.Cluster = "j-2"
	}
	m.expect(c, m.w.note(c))
}

func (m *fleet) removeNode() {
	c := RemoveNode{ID: m.nodeID(there), Shrink: m.rare(2, "shrink")}
	m.expect(c, m.w.remove(c))
}

func (m *fleet) ask() {
	id, cluster := m.launchID(), m.clusterID()
	c := PutLaunch{
		Launch: Launch{ID: id, Cluster: cluster, Group: cluster + "-task", Provider: "command", State: LaunchRequested, Token: "t-" + id},
		Create: &Token{ID: "t-" + id, Role: RoleTask, Cluster: cluster, ExpiresAt: at(9999), UsesLeft: 1, Launch: id},
	}
	m.expect(c, m.w.ask(c))
}

func (m *fleet) tell() {
	c := PutLaunch{Launch: Launch{ID: m.launchID(), Provider: "x", State: one(m.machine, "state", LaunchGiven, LaunchRequested, LaunchJoined, LaunchTerminating)}}
	if _, known := m.w.launches[c.Launch.ID]; !known && c.Launch.State == LaunchRequested {
		return // which would be to ask
	}
	c.Launch.Machine, c.Launch.Tries = one(m.machine, "machine", "", "vm"), one(m.machine, "tries", 0, 1)
	m.expect(c, m.w.tell(c.Launch))
}

func (m *fleet) drop() {
	c := DropLaunch{ID: m.launchID()}
	m.expect(c, m.w.drop(c.ID))
}

func (m *fleet) submit() {
	m.made++
	c := SubmitJob{Job{ID: fmt.Sprint("s-", m.made), Cluster: m.clusterID()}}
	_, err := m.w.live(c.Job.Cluster)
	if err == nil {
		m.w.jobs[c.Job.ID] = c.Job.Cluster
	}
	m.expect(c, err)
}

// finish ends one of the jobs.
func (m *fleet) finish() {
	for _, j := range m.b.View().OpenJobs() {
		m.expect(CancelJob{Job: j.ID}, nil)
		m.expect(EndJob{Job: j.ID, At: t0}, nil)
		delete(m.w.jobs, j.ID)
		return
	}
}

func (m *fleet) mkdir() {
	c := namespace.Mkdir{Cluster: m.clusterID(), Path: "/" + one(m.machine, "path", "x", "y"), At: t0}
	twin := m.w.clusters[c.Cluster]
	if twin == nil || twin.over() {
		m.expect(c, ErrNotFound)
		return
	}
	if !slices.Contains(twin.folders, c.Path) {
		twin.folders = append(twin.folders, c.Path)
	}
	m.expect(c, nil)
}

func (m *fleet) people() {
	name, code := one(m.machine, "name", "ann", "bob"), one(m.machine, "code", "c-1", "c-2")
	switch one(m.machine, "what", 1, 2, 0, 3) {
	case 0:
		c := CreateUser{User{Name: name, Role: UserSubmit, CreatedAt: at(int(m.b.index)), CodeID: code, CodeHash: []byte{1}, CodeExpiresAt: at(9)}}
		c.User.CodeID = one(m.machine, "with a code", "", code)
		m.expect(c, m.w.createUser(c.User))
	case 1:
		c := PutLoginCode{Name: name, CodeID: code, CodeHash: []byte{2}, ExpiresAt: at(5)}
		m.expect(c, m.w.putCode(c))
	case 2:
		c := LoginUser{CodeID: code, Now: at(one(m.machine, "now", 0, 0, 7))}
		m.expect(c, m.w.login(c))
	case 3:
		_, known := m.w.users[name]
		delete(m.w.users, name)
		if c := (RemoveUser{Name: name}); known {
			m.expect(c, nil)
		} else {
			m.expect(c, ErrNotFound)
		}
	}
}

// again goes on from a snapshot.
func (m *fleet) again() { m.restore() }

func (m *fleet) check() {
	m.Helper()
	v, w := m.b.View(), m.w
	var all, live []*Cluster
	for _, c := range sorted(w.clusters, func(c *twinCluster) string { return c.ID }) {
		all = append(all, (*c).record())
		if !(*c).over() {
			live = append(live, (*c).record())
		}
		m.same("launches of "+(*c).ID, sorted(w.launches, launchKey, func(l Launch) bool { return l.Cluster == (*c).ID }), v.Launches((*c).ID))
		for _, g := range (*c).groups {
			m.same("nodes of "+g.ID, sorted(w.nodes, nodeKey, func(n Node) bool { return n.Group == g.ID && n.State == NodeAdmitted }), v.NodesOf((*c).ID, g.ID))
		}
		for _, path := range []string{"/x", "/y"} {
			_, err := v.Files((*c).ID).Stat(path)
			m.same("is there "+path+" in "+(*c).ID, slices.Contains((*c).folders, path), err == nil)
		}
	}
	m.same("clusters", all, v.Clusters())
	m.same("clusters that have not ended", live, v.LiveClusters())
	for _, name := range []string{"a", "b", "j-1", DefaultCluster} {
		c, found := v.Cluster(name)
		m.same("cluster "+name, w.named(name), c)
		m.same("is there cluster "+name, c != nil, found)
	}
	m.same("nodes", sorted(w.nodes, nodeKey), v.Nodes(""))
	m.same("the pool", sorted(w.nodes, nodeKey, func(n Node) bool { return n.Role == RolePool && n.State == NodeAdmitted }), v.PoolNodes())
	m.same("tokens", sorted(w.tokens, func(t Token) string { return t.ID }), v.Tokens())
	m.same("launches", sorted(w.launches, launchKey), v.Launches(""))
	m.same("users", sorted(w.users, func(u User) string { return u.Name }), v.Users())
}

func nodeKey(n Node) string     { return n.ID }
func launchKey(l Launch) string { return l.ID }

// named is the cluster with an id, else the one of a name that has not ended, else the newest of that name.
func (w *fleetTwin) named(name string) *Cluster {
	if c := w.clusters[name]; c != nil {
		return c.record()
	}
	var best *twinCluster
	for _, c := range w.clusters {
		if c.Name == name && (best == nil || !c.over() || best.over() && c.CreatedAt.After(best.CreatedAt)) {
			best = c
		}
	}
	if best == nil {
		return nil
	}
	return best.record()
}
