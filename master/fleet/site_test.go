package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"millrace/master/session"
	"millrace/master/state"
	"millrace/master/tracker"
	"millrace/pkg/api"
	"millrace/pkg/security"
)

var begin = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// failer is what *testing.T and *rapid.T have in common.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// site is a log, nodes that come and go, and a provider, in virtual time: all that the fleet works with, and none of it real.
type site struct {
	failer
	state *state.Store
	index uint64
	now   time.Time
	ids   int

	up      map[string]place  // sessions, as the nodes take themselves to be
	lives   map[string]string // incarnations, of sessions that say so
	sent    []string
	load    map[string]tracker.Load
	drained map[string]tracker.Drain // nil: nothing is on it
	blocks  *api.NodeDrain           // what it takes to drain a core node
	refuse  error
	changed []string
	told    map[string]told // by node with a session
	lose    bool            // commands get lost: this leader is deposed and does not know

	cloud *cloud
	fleet *Fleet
	conf  func(*Config)
}

type place struct{ cluster, role string }

// told is what the tracker goes by: what the log said of a node when it came to a place, or when the tracker was told of it last.
type told struct {
	at   place
	node *state.Node
}

var caPEM = func() string {
	ca, err := security.NewCA("test")
	if err != nil {
		panic(err)
	}
	return string(ca.CertPEM())
}()

func newSite(t failer, clusters ...state.Cluster) *site {
	s := &site{failer: t, state: state.New(), now: begin, up: map[string]place{}, lives: map[string]string{}, load: map[string]tracker.Load{}, drained: map[string]tracker.Drain{},
		told: map[string]told{}, blocks: &api.NodeDrain{}}
	s.cloud = &cloud{site: s, machines: map[string]string{}, names: map[string]string{}, ended: map[string]bool{}, mute: map[string]bool{}}
	s.apply(state.CreateSite{Site: state.Site{ID: "site", CAPEM: caPEM, Protocol: 4}, Cluster: state.Cluster{ID: "j-DEFAULT", Name: "default", CreatedAt: begin}})
	for _, c := range clusters {
		s.apply(state.CreateCluster{Cluster: c})
	}
	s.lead()
	return s
}

// groups makes a cluster's groups, of one provider.
func groups(provider string, core, task int) []state.Group {
	return []state.Group{{ID: "ig-core", Role: state.RoleCore, Target: core, Provider: provider}, {ID: "ig-task", Role: state.RoleTask, Target: task, Provider: provider}}
}

func cluster(provider string, core, task int) state.Cluster {
	return state.Cluster{ID: "j-1", Name: "one", CreatedAt: begin, Groups: groups(provider, core, task)}
}

// lead makes another master the leader: what the one before had asked for and not logged is lost with it.
func (s *site) lead() {
	c := Config{View: s.state.View, Apply: s.log, Sessions: s, Jobs: s, Blocks: blocks{s}, Providers: map[string]Provider{"cloud": s.cloud}, Now: func() time.Time { return s.now },
		Masters: func() []string { return []string{"https://m1:7400"} }, NewID: s.newID, Digest: func(c *state.Cluster) string { return "digest of " + c.ID }}
	if s.conf != nil {
		s.conf(&c)
	}
	f, err := New(c)
	if err != nil {
		s.Fatalf("%v", err)
	}
	f.alone = true
	s.fleet = f
	clear(s.told)
}

func (s *site) newID(prefix string) (string, error) {
	s.ids++
	return fmt.Sprintf("%s%04d", prefix, s.ids), nil
}

func (s *site) log(_ context.Context, c state.Command) (any, error) {
	if s.lose {
		return nil, errors.New("not the leader")
	}
	s.mayGo(c)
	s.index++
	return s.state.Apply(s.index, c)
}

// apply logs a command that must be taken.
func (s *site) apply(c state.Command) {
	s.Helper()
	s.index++
	if _, err := s.state.Apply(s.index, c); err != nil {
		s.Fatalf("%s: %v", c.CommandName(), err)
	}
}

func (s *site) Nodes() (list []session.Node) {
	for _, id := range slices.Sorted(maps.Keys(s.up)) {
		list = append(list, session.Node{ID: id, Cluster: s.up[id].cluster, Role: s.up[id].role, Slots: 2, Connected: true, Incarnation: s.lives[id]})
	}
	return list
}

// Send brings a node its new place, which it takes at once.
func (s *site) Send(node string, m *api.MasterMessage) bool {
	if _, up := s.up[node]; !up {
		return false
	}
	if a := m.GetAssignment(); a != nil {
		s.sent = append(s.sent, fmt.Sprintf("%s: %s %s", node, a.Role, a.Cluster))
		s.up[node] = place{a.Cluster, a.Role}
	}
	return true
}

func (s *site) Load(cluster string, _ bool) tracker.Load { return s.load[cluster] }
func (s *site) ClusterChanged(cluster string)            { s.changed = append(s.changed, cluster) }

func (s *site) NodeChanged(node string) {
	s.changed = append(s.changed, node)
	if at, up := s.up[node]; up {
		n, _ := s.view().Node(node)
		s.told[node] = told{at, n}
	}
}

// leases says whether the tracker may give a node a task now.
func (s *site) leases(node string) bool {
	at, up := s.up[node]
	if t := s.told[node]; up && (t.node == nil || t.at != at) { // it has just come
		s.NodeChanged(node)
	}
	n := s.told[node].node
	return up && n != nil && n.State == state.NodeAdmitted && n.Role != state.RolePool && !n.Draining()
}

// mayGo fails if a node is let go that may be given tasks up to the last: it has to be told to leave first. What a cluster
// that ends still has is its own.
func (s *site) mayGo(c state.Command) {
	id := ""
	switch c := c.(type) {
	case state.RemoveNode:
		id = c.ID
	case state.ReleaseNode:
		id = c.ID
	default:
		return
	}
	n, _ := s.view().Node(id)
	of, ok := s.view().Cluster(n.Cluster)
	if s.leases(id) && ok && !of.Ending() {
		s.Fatalf("%s of %s, which may be given tasks", c.CommandName(), id)
	}
}

// blocks hears what the block manager does.
type blocks struct{ *site }

func (blocks) NodeChanged(string) {}

func (s *site) Drained(node string) tracker.Drain {
	if d, ok := s.drained[node]; ok {
		return d
	}
	return tracker.Drain{Known: true}
}
func (s *site) CanDrain(...string) (*api.NodeDrain, error) { return s.blocks, s.refuse }
func (s *site) Draining(string) (*api.NodeDrain, error)    { return &api.NodeDrain{Drained: true}, nil }
func (s *site) Alone(string) ([]*api.BlockTrouble, error)  { return nil, nil }
func (s *site) view() *state.View                          { return s.state.View() }
func (s *site) cluster() *state.Cluster                    { c, _ := s.view().Cluster("j-1"); return c }
func (s *site) nodes(group string) []*state.Node           { return s.view().NodesOf("j-1", group) }
func (s *site) resize(core, task int)                      { s.resizeTo(groups("", core, task)...) }
func (s *site) resizeTo(to ...state.Group)                 { s.apply(state.ResizeCluster{Cluster: "j-1", Groups: to}) }

// round lets the leader do what is due, answers of providers included.
func (s *site) round() {
	s.fleet.Round(context.Background())
	s.fleet.takeResults(context.Background())
}

// pass lets time pass, a second at a time.
func (s *site) pass(d time.Duration) {
	for range int(d / time.Second) {
		s.now = s.now.Add(time.Second)
		s.round()
	}
}

// settle lets what is under way come to its end.
func (s *site) settle() {
	for range 10 {
		s.round()
		s.cloud.join()
	}
}

// pool has nodes join the site's pool.
func (s *site) pool(n int) {
	s.ids++
	token := fmt.Sprintf("t-pool-%d", s.ids)
	s.apply(state.CreateToken{Token: state.Token{ID: token, Role: state.RolePool, ExpiresAt: s.now.Add(time.Hour), UsesLeft: n}})
	for range n {
		s.ids++
		id := fmt.Sprintf("i-p%04d", s.ids)
		s.apply(state.AdmitNode{Token: token, Node: state.Node{ID: id, Role: state.RolePool, JoinedAt: s.now}, Now: s.now})
		s.up[id] = place{"", state.RolePool}
	}
}

// messages are the cluster's events so far.
func (s *site) messages() (list []string) {
	for _, e := range s.cluster().Events {
		list = append(list, e.Message)
	}
	return list
}

// cloud is a provider of machines that run until somebody ends them. One whose key is mute never joins.
type cloud struct {
	site     *site
	machines map[string]string // by key
	names    map[string]string // of machines, by key: one that is started again is the same one
	ended    map[string]bool   // keys that were ended
	mute     map[string]bool
	allMute  bool
	broken   error // what every call answers
	asked    []Request
	launches int
	counted  int // machines ever made
	revives  bool
}

func (c *cloud) Revives() bool { return c.revives }

func (c *cloud) Launch(_ context.Context, r Request) (string, error) {
	c.asked = append(c.asked, r)
	c.launches++
	if c.broken != nil {
		return "", c.broken
	}
	if c.ended[r.Key] {
		c.site.Fatalf("launch %s is asked for after it was ended", r.Key)
	}
	if c.machines[r.Key] == "" {
		c.counted++
		c.names[r.Key] = cmp.Or(c.names[r.Key], fmt.Sprintf("vm-%d", c.counted))
		c.machines[r.Key] = c.names[r.Key]
	}
	return c.machines[r.Key], nil
}

func (c *cloud) Terminate(_ context.Context, key, machine string) error {
	if c.broken != nil {
		return c.broken
	}
	if there := c.machines[key]; machine != "" && there != "" && there != machine {
		c.site.Fatalf("launch %s is machine %s, not %s", key, there, machine)
	}
	delete(c.machines, key)
	delete(c.site.up, nodeOf(key))
	c.ended[key] = true
	return nil
}

func (c *cloud) List(context.Context) (map[string]string, error) {
	return maps.Clone(c.machines), c.broken
}

func nodeOf(key string) string { return "i-of-" + key }

// join has the nodes of machines that run join, as far as they may.
func (c *cloud) join() {
	s := c.site
	for _, l := range s.view().Launches("") {
		if c.machines[l.ID] == "" || c.mute[l.ID] || c.allMute || l.Node != "" {
			continue
		}
		cl, ok := s.view().Cluster(l.Cluster)
		if !ok {
			continue
		}
		role := ""
		for _, g := range cl.Groups {
			if g.ID == l.Group {
				role = g.Role
			}
		}
		n := state.Node{ID: nodeOf(l.ID), Role: role, Cluster: l.Cluster, JoinedAt: s.now}
		s.index++
		if _, err := s.state.Apply(s.index, state.AdmitNode{Token: l.Token, Node: n, Now: s.now}); err == nil {
			s.up[n.ID] = place{l.Cluster, role}
		} else if !errors.Is(err, state.ErrToken) {
			s.Fatalf("join: %v", err)
		}
	}
}
