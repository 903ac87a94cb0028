package state

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func (m *machine) siteAtOnce() {
	c := CreateSite{
		Site: Site{ID: "site", CreatedAt: t0, SystemPrefix: "s3://sys/"},
		Cluster: Cluster{ID: testCluster, Name: DefaultCluster, CreatedAt: t0, Groups: []Group{
			{ID: "ig-core", Role: RoleCore, Target: 1}, {ID: "ig-task", Role: RoleTask}, {ID: "ig-more", Role: RoleTask, Target: 2}}},
	}
	m.expect(c, m.twin.createSite(c))
}

func (m *machine) createSite() {
	if m.rare(2, "whole") {
		m.siteAtOnce()
		return
	}
	c := CreateSite{Site: Site{ID: one(m, "site", "", "other")}, Cluster: Cluster{ID: one(m, "cluster", "", testCluster), Name: one(m, "name", "", DefaultCluster)}}
	if c.Site.ID != "" && c.Cluster.ID != "" { // a whole one is for siteAtOnce
		c.Cluster.Name = ""
	}
	m.expect(c, m.twin.createSite(c))
}

func (m *machine) putStore() {
	c := PutStore{SealedStore: []byte{byte(m.b.index)}, SystemPrefix: one(m, "prefix", "s3://a/", "s3://b/")}
	m.expect(c, m.twin.putStore(c))
}

// node draws a node, most often one that makes sense.
func (m *machine) node() Node {
	role := one(m, "role", RoleMaster, RoleCore, RoleTask)
	n := Node{
		ID: one(m, "node", "i-1", "i-2", "i-3", "i-4", "i-5"), Role: role, Cluster: clusterOf(role), Name: one(m, "name", "a", "b"),
		Version: one(m, "version", "1", "2"), JoinedAt: at(int(m.b.index)), State: one(m, "state", "", NodeTerminated), // not the caller's to say
	}
	if m.rare(8, "odd node") {
		n.ID, n.Role, n.Cluster = one(m, "id", "", "i-1"), one(m, "odd role", "", "PILOT", RoleTask), one(m, "odd cluster", "", "j-OTHER", testCluster)
	}
	return n
}

func clusterOf(role string) string {
	if role == RoleMaster {
		return ""
	}
	return testCluster
}

func (m *machine) putNode() {
	c := PutNode{Node: m.node()}
	c.Node.Spare, c.Node.Raft = m.rare(2, "spare"), one(m, "raft", "", "m:1")
	m.expect(c, m.twin.putNode(c))
}

func (m *machine) admitNode() {
	c := AdmitNode{Token: one(m, "token", "t-1", "t-2", "t-3"), Node: m.node(), Now: at(one(m, "now", 1, 60))}
	if token, ok := m.twin.tokens[c.Token]; ok && !m.rare(4, "another's token") {
		c.Node.Role, c.Node.Cluster = token.Role, token.Cluster
	}
	if c.Node.Role != RoleMaster {
		c.Node.Group = one(m, "group", "", "", "ig-core", "ig-task", "ig-more")
	}
	m.expect(c, m.twin.admitNode(c))
}

func (m *machine) removeNode() {
	c := RemoveNode{ID: one(m, "node", "i-1", "i-2", "i-3", "i-4", "i-5"), Shrink: m.rare(2, "shrink")}
	m.expect(c, m.twin.removeNode(c))
}

func (m *machine) drainNode() {
	c := DrainNode{ID: one(m, "node", "i-1", "i-2", "i-3", "i-4", "i-5"), By: one(m, "by", time.Time{}, at(70), at(80))}
	m.expect(c, m.twin.drainNode(c))
}

func (m *machine) createToken() {
	role := one(m, "role", RoleMaster, RoleCore, RoleTask)
	c := CreateToken{Token{
		ID: one(m, "token", "t-1", "t-2", "t-3"), SecretHash: []byte{byte(m.b.index)}, Role: role, Cluster: clusterOf(role),
		ExpiresAt: at(one(m, "expires", 30, 100)), UsesLeft: one(m, "uses", -1, 0, 1, 2),
	}}
	if m.rare(8, "odd token") {
		c.Token.ID, c.Token.Role, c.Token.Cluster = one(m, "id", "", "t-1"), one(m, "odd role", "", "PILOT", RoleCore), one(m, "odd cluster", "", "j-OTHER")
		c.Token.UsesLeft = one(m, "odd uses", -2, 1)
	}
	m.expect(c, m.twin.createToken(c))
}

func (m *machine) revokeToken() {
	c := RevokeToken{ID: one(m, "token", "t-1", "t-2", "t-3")}
	m.expect(c, m.twin.revokeToken(c))
}

// checkSite compares what the views say of the site, its clusters, nodes and tokens.
func (m *machine) checkSite() {
	m.Helper()
	v, w := m.b.View(), &m.twin
	if v.Index() != m.b.index {
		m.Fatalf("the view is of index %d after %d commands", v.Index(), m.b.index)
	}
	var clusters []*Cluster
	site, made := v.Site()
	if w.site != nil {
		clusters = []*Cluster{&w.cluster}
	}
	m.same("site", w.site, site)
	m.same("is there a site", w.site != nil, made)
	m.same("clusters", clusters, v.Clusters())
	for _, ref := range []string{"", DefaultCluster, testCluster, "j-OTHER"} {
		c, found := v.Cluster(ref)
		m.same("is there cluster "+ref, w.site != nil && ref != "j-OTHER", found)
		if found {
			m.same("cluster "+ref, &w.cluster, c)
		}
	}
	nodes := sorted(w.nodes, func(n Node) string { return n.ID })
	m.same("nodes", nodes, v.Nodes(""))
	m.same("nodes of the cluster", slices.DeleteFunc(slices.Clone(nodes), func(n *Node) bool { return n.Cluster != testCluster }), v.Nodes(testCluster))
	for i := range 6 {
		id := fmt.Sprint("i-", i)
		want, known := w.nodes[id]
		n, found := v.Node(id)
		m.same("is there node "+id, known, found)
		if found {
			m.same("node "+id, &want, n)
		}
	}
	m.same("tokens", sorted(w.tokens, func(t Token) string { return t.ID }), v.Tokens())
	for i := range 4 {
		id := fmt.Sprint("t-", i)
		want, known := w.tokens[id]
		token, found := v.Token(id)
		m.same("is there token "+id, known, found)
		if found {
			m.same("token "+id, &want, token)
		}
	}
}

// same compares what the twin has with what the store shows; none and an empty list are the same.
func (m *machine) same(what string, twin, store any) {
	if reflect.DeepEqual(twin, store) {
		return // the usual case, and cheaper
	}
	m.Helper()
	if d := gocmp.Diff(twin, store, cmpopts.EquateEmpty()); d != "" {
		m.Fatalf("%s (- twin, + store):\n%s", what, d)
	}
}

// sorted lists what a map holds, or of that what fits, in order of a key.
func sorted[V any](all map[string]V, key func(V) string, fit ...func(V) bool) (list []*V) {
	for v := range maps.Values(all) {
		if len(fit) == 0 || fit[0](v) {
			list = append(list, &v)
		}
	}
	slices.SortFunc(list, func(a, b *V) int { return cmp.Compare(key(*a), key(*b)) })
	return list
}
