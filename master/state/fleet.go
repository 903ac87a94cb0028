package state

import (
	"cmp"
	"fmt"
	"slices"
)

// maxGoneNodes is how many of the nodes that were launched and removed stay known.
const maxGoneNodes = 1000

// Counts says whether a node counts for its group: it was not removed, has not failed and does not leave.
func (n *Node) Counts() bool { return n.State == NodeAdmitted && n.Failure == "" && !n.Leaving }

// Free says whether a node of the pool can be given to a cluster.
func (n *Node) Free() bool { return n.Pooled && n.Cluster == "" && n.Counts() && !n.Draining() }

// node returns a copy of the record of a node that was not removed, to change and put.
func (t *txn) node(id string) (*Node, error) {
	old, ok := first[Node](t.Txn, tableNode, byID, id)
	switch {
	case !ok:
		return nil, fmt.Errorf("node %s: %w", id, ErrNotFound)
	case old.State == NodeTerminated:
		return nil, fmt.Errorf("node %s was removed: %w", id, ErrTooLate)
	}
	n := *old
	return &n, nil
}

// worker is node, of one that is no master.
func (t *txn) worker(id string) (*Node, error) {
	if n, ok := first[Node](t.Txn, tableNode, byID, id); ok && n.Role == RoleMaster {
		return nil, fmt.Errorf("%w: node %s is a master, which holds nothing to drain", ErrInvalid, id)
	}
	return t.node(id)
}

func (t *txn) assignNode(a AssignNode) (*Node, error) {
	n, err := t.node(a.ID)
	if err != nil {
		return nil, err
	}
	if !n.Free() {
		return nil, fmt.Errorf("node %s is no free node of the pool: %w", n.ID, ErrTooLate)
	}
	c, err := t.liveCluster(a.Cluster)
	if err != nil {
		return nil, err
	}
	g, err := c.group(a.Group)
	if err != nil {
		return nil, err
	}
	n.Cluster, n.Group, n.Role, n.Bootstrap = c.ID, g.ID, g.Role, ""
	return n, t.Insert(tableNode, n)
}

func (t *txn) leaveNode(l LeaveNode) (*Node, error) {
	n, err := t.worker(l.ID)
	if err != nil {
		return nil, err
	}
	if l.By.IsZero() {
		return nil, fmt.Errorf("%w: node %s needs a time to leave by", ErrInvalid, n.ID)
	}
	if l.Bye != "" && n.drainsForOthers() {
		return n, nil
	}
	n.Leaving, n.DrainBy, n.Bye = true, l.By, l.Bye
	return n, t.Insert(tableNode, n)
}

func (t *txn) releaseNode(r ReleaseNode) (*Node, error) {
	n, err := t.node(r.ID)
	if err != nil {
		return nil, err
	}
	if !n.Pooled {
		return nil, fmt.Errorf("%w: node %s is not of the pool", ErrInvalid, n.ID)
	}
	n.Cluster, n.Group, n.Role, n.Bootstrap, n.Failure = "", "", RolePool, "", ""
	n.stay()
	return n, t.Insert(tableNode, n)
}

func (t *txn) findNode(f FindNode) (*Node, error) {
	n, err := t.node(f.ID)
	if err != nil || !n.Unsure {
		return n, err
	}
	n.Unsure = false
	if c, err := t.liveCluster(f.Cluster); err == nil && (f.Cluster != n.Cluster || f.Role != n.Role) {
		if i := slices.IndexFunc(c.Groups, func(g Group) bool { return g.Role == f.Role }); i >= 0 {
			n.Cluster, n.Group, n.Role, n.Bootstrap, n.Failure = c.ID, c.Groups[i].ID, f.Role, "", ""
			n.stay()
		}
	}
	return n, t.Insert(tableNode, n)
}

func (t *txn) noteBootstrap(b NoteBootstrap) (*Node, error) {
	n, err := t.node(b.ID)
	switch {
	case err != nil:
		return nil, err
	case b.State != BootstrapDone && b.State != BootstrapFailed, b.Cluster == "":
		return nil, fmt.Errorf("%w: the bootstrap actions of node %s for cluster %q end %q", ErrInvalid, n.ID, b.Cluster, b.State)
	case n.Cluster != b.Cluster:
		return nil, fmt.Errorf("node %s is of cluster %q by now, not of %q: %w", n.ID, n.Cluster, b.Cluster, ErrTooLate)
	case n.Bootstrap != "":
		return n, nil // it is said again: what was said first stays
	}
	n.Bootstrap = b.State
	if b.State == BootstrapFailed {
		n.Failure = clip(cmp.Or(b.Failure, "its bootstrap actions failed"), maxMessage)
		if err := t.countFailure(n); err != nil {
			return nil, err
		}
	}
	return n, t.Insert(tableNode, n)
}

// countFailure counts a node that has failed, for its group.
func (t *txn) countFailure(n *Node) error {
	c, err := t.cluster(n.Cluster)
	if err != nil {
		return err
	}
	g, err := c.group(n.Group)
	if err != nil {
		return err
	}
	g.Failed++
	return t.Insert(tableCluster, c)
}

// launchOrder is the order of a launch's states: it goes forward only.
var launchOrder = []string{LaunchRequested, LaunchGiven, LaunchJoined, LaunchTerminating}

func (t *txn) putLaunch(p PutLaunch) (*Launch, error) {
	l := p.Launch
	if l.ID == "" || l.Provider == "" || !slices.Contains(launchOrder, l.State) || l.Tries < 0 {
		return nil, fmt.Errorf("%w: a launch needs an id, a provider and a state", ErrInvalid)
	}
	l.Problem = clip(l.Problem, maxMessage)
	if old, ok := first[Launch](t.Txn, tableLaunch, byID, l.ID); ok {
		if p.Create != nil {
			return nil, fmt.Errorf("launch %s: %w", l.ID, ErrExists)
		}
		if n, known := first[Node](t.Txn, tableNode, byID, old.Node); known && n.State == NodeAdmitted && old.State == LaunchJoined && l.State == LaunchTerminating {
			return nil, fmt.Errorf("launch %s: node %s has joined, which is to be removed first: %w", l.ID, n.ID, ErrTooLate)
		}
		if err := l.follow(old); err != nil {
			return nil, err
		}
		return &l, t.Insert(tableLaunch, &l)
	}
	if l.State != LaunchRequested {
		return nil, fmt.Errorf("launch %s: %w", l.ID, ErrNotFound) // it was dropped
	}
	if err := t.newLaunch(&l, p.Create); err != nil {
		return nil, err
	}
	return &l, t.Insert(tableLaunch, &l)
}

// newLaunch checks a launch that is to begin, and makes its token.
func (t *txn) newLaunch(l *Launch, token *Token) error {
	c, err := t.liveCluster(l.Cluster)
	if err != nil {
		return err
	}
	g, err := c.group(l.Group)
	if err != nil {
		return err
	}
	if token == nil || token.ID != l.Token || token.Launch != l.ID || token.Role != g.Role || token.Cluster != c.ID {
		return fmt.Errorf("%w: launch %s needs a join token of its own, for role %s of cluster %s", ErrInvalid, l.ID, g.Role, c.ID)
	}
	l.Node = "" // not the caller's to say
	_, err = t.newToken(*token)
	return err
}

// follow makes l what becomes of old: what was settled stays, as l may come of what was known before.
func (l *Launch) follow(old *Launch) error {
	before, now := slices.Index(launchOrder, old.State), slices.Index(launchOrder, l.State)
	if l.State == LaunchJoined && before < now {
		return fmt.Errorf("%w: launch %s is joined by its node alone", ErrInvalid, l.ID)
	}
	if now < before {
		l.State, l.Tries, l.Problem = old.State, old.Tries, old.Problem
	}
	l.Cluster, l.Group, l.Provider, l.RequestedAt = old.Cluster, old.Group, old.Provider, old.RequestedAt
	l.Token, l.SealedToken, l.Node, l.Machine = old.Token, old.SealedToken, old.Node, cmp.Or(l.Machine, old.Machine)
	return nil
}

// endLaunch has a launch taken back, as its node was removed.
func (t *txn) endLaunch(id string) error {
	old, ok := first[Launch](t.Txn, tableLaunch, byID, id)
	if !ok || old.State == LaunchTerminating {
		return nil
	}
	l := *old
	l.State, l.Tries, l.Problem = LaunchTerminating, 0, ""
	return t.Insert(tableLaunch, &l)
}

func (t *txn) dropLaunch(d DropLaunch) (*Launch, error) {
	l, ok := first[Launch](t.Txn, tableLaunch, byID, d.ID)
	if !ok {
		return nil, fmt.Errorf("launch %s: %w", d.ID, ErrNotFound)
	}
	if token, ok := first[Token](t.Txn, tableToken, byID, l.Token); ok {
		if err := t.Delete(tableToken, token); err != nil {
			return nil, err
		}
	}
	if err := t.Delete(tableLaunch, l); err != nil {
		return nil, err
	}
	return l, t.forgetNodes()
}

// forgetNodes forgets the nodes that joined first of those whose launches are over, beyond those that stay: machines come and go for
// years. Who is not known is not let in.
func (t *txn) forgetNodes() error {
	var over []*Node
	for n := range each[Node](t.Txn, tableNode, byID) {
		if n.State != NodeTerminated || n.Launch == "" {
			continue
		}
		if _, ok := first[Launch](t.Txn, tableLaunch, byID, n.Launch); !ok {
			over = append(over, n)
		}
	}
	slices.SortFunc(over, func(a, b *Node) int { return cmp.Or(a.JoinedAt.Compare(b.JoinedAt), cmp.Compare(a.ID, b.ID)) })
	for _, n := range over[:max(0, len(over)-maxGoneNodes)] {
		if err := t.Delete(tableNode, n); err != nil {
			return err
		}
	}
	return nil
}

// NodesOf returns the nodes of a cluster's group that were not removed, in order of their ids. Not all of them count for it.
func (v *View) NodesOf(cluster, group string) []*Node {
	var nodes []*Node
	for n := range each[Node](v.txn, tableNode, byCluster, cluster) {
		if n.Group == group && n.State == NodeAdmitted {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// PoolNodes returns the nodes of the site's pool that are of no cluster and were not removed, in order of their ids. Those that can be
// given to one are Free.
func (v *View) PoolNodes() []*Node {
	var nodes []*Node
	for n := range each[Node](v.txn, tableNode, byCluster, "") {
		if n.Role == RolePool && n.State == NodeAdmitted {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// Launches returns a cluster's launches in order of their ids; "" means all of the site.
func (v *View) Launches(cluster string) []*Launch {
	if cluster == "" {
		return collect(each[Launch](v.txn, tableLaunch, byID))
	}
	return collect(each[Launch](v.txn, tableLaunch, byCluster, cluster))
}

// Launch finds a launch by its id.
func (v *View) Launch(id string) (*Launch, bool) { return first[Launch](v.txn, tableLaunch, byID, id) }
