package state

import (
	"fmt"
	"slices"
	"time"
)

func (t *txn) putNode(c PutNode) (*Node, error) {
	n := c.Node
	if n.ID == "" || !knownRole(n.Role) {
		return nil, fmt.Errorf("%w: a node needs an id and a role", ErrInvalid)
	}
	if err := t.clusterFor(n.Role, n.Cluster); err != nil {
		return nil, err
	}
	if old, ok := first[Node](t.Txn, tableNode, byID, n.ID); ok {
		if err := sameNode(old, &n); err != nil {
			return nil, err
		}
		n.keep(old)
	} else if err := t.takes(n.Cluster); err != nil {
		return nil, err
	}
	n.State = NodeAdmitted
	return &n, t.Insert(tableNode, &n)
}

// keep takes over what is no part of what a node says of itself.
func (n *Node) keep(old *Node) {
	n.JoinedAt, n.DrainBy, n.Leaving, n.Bye = old.JoinedAt, old.DrainBy, old.Leaving, old.Bye
	n.Provider, n.Launch, n.Pooled, n.Bootstrap, n.Failure = old.Provider, old.Launch, old.Pooled, old.Bootstrap, old.Failure
	n.Unsure = old.Unsure
}

func (t *txn) admitNode(c AdmitNode) (*Node, error) {
	n := c.Node
	token, ok := first[Token](t.Txn, tableToken, byID, c.Token)
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: no such token", ErrToken)
	case !c.Now.Before(token.ExpiresAt):
		return nil, fmt.Errorf("%w: it has expired", ErrToken)
	case n.Role != token.Role || n.Cluster != token.Cluster:
		return nil, fmt.Errorf("%w: it is for role %s of cluster %q", ErrToken, token.Role, token.Cluster)
	case n.ID == "":
		return nil, fmt.Errorf("%w: a node needs an id", ErrInvalid)
	}
	if err := t.clusterFor(n.Role, n.Cluster); err != nil {
		return nil, err
	}
	if err := t.takes(n.Cluster); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrToken, err)
	}
	n.State = NodeAdmitted
	if old, ok := first[Node](t.Txn, tableNode, byID, n.ID); ok {
		return t.admitAgain(&n, old, token)
	}
	if err := t.useToken(token); err != nil {
		return nil, err
	}
	n.Pooled, n.Leaving, n.Bye, n.Bootstrap, n.Failure, n.Launch, n.Provider = n.Role == RolePool, false, "", "", "", "", ""
	if token.Launch != "" {
		return t.admitLaunched(&n, token)
	}
	return &n, t.joinGroup(&n)
}

// admitAgain is for a node that asks again, perhaps for want of an answer: that costs no use. One that a provider launched, or that is
// of the pool, stays where it was put meanwhile.
func (t *txn) admitAgain(n, old *Node, token *Token) (*Node, error) {
	if old.Pooled && n.Role == RolePool {
		n.Role, n.Cluster = old.Role, old.Cluster
	}
	if err := sameNode(old, n); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrToken, err)
	}
	if token.Launch != "" && token.Launch != old.Launch {
		return nil, fmt.Errorf("%w: it is for a node that is new, and %s is known", ErrToken, n.ID)
	}
	n.keep(old)
	if n.Launch == "" && !n.Pooled {
		return n, t.joinGroup(n)
	}
	n.Group = old.Group
	return n, t.Insert(tableNode, n)
}

// admitLaunched puts a node into the group that it was launched for. The target is not raised: it has changed, perhaps, since
// the node was asked for.
func (t *txn) admitLaunched(n *Node, token *Token) (*Node, error) {
	old, ok := first[Launch](t.Txn, tableLaunch, byID, token.Launch)
	if !ok || old.State == LaunchTerminating {
		return nil, fmt.Errorf("%w: its node is wanted no more", ErrToken)
	}
	if old.Node != "" {
		return nil, fmt.Errorf("%w: node %s has joined with it", ErrToken, old.Node)
	}
	l := *old
	l.State, l.Node, l.Tries, l.Problem = LaunchJoined, n.ID, 0, ""
	if err := t.Insert(tableLaunch, &l); err != nil {
		return nil, err
	}
	n.Launch, n.Provider, n.Group = l.ID, l.Provider, l.Group
	return n, t.Insert(tableNode, n)
}

func (t *txn) useToken(token *Token) error {
	switch token.UsesLeft {
	case -1:
		return nil
	case 0:
		return fmt.Errorf("%w: it is used up", ErrToken)
	}
	used := *token
	used.UsesLeft--
	return t.Insert(tableToken, &used)
}

// joinGroup stores n in the group of its role and raises the group's target if the
// node is one more than that.
func (t *txn) joinGroup(n *Node) error {
	cluster, ok := first[Cluster](t.Txn, tableCluster, byID, n.Cluster)
	if !ok {
		return t.Insert(tableNode, n) // a master: every cluster shows the site's masters
	}
	i := slices.IndexFunc(cluster.Groups, func(g Group) bool {
		return g.Role == n.Role && (n.Group == "" || n.Group == g.ID)
	})
	if i < 0 {
		return fmt.Errorf("instance group %q of role %s: %w", n.Group, n.Role, ErrNotFound)
	}
	n.Group = cluster.Groups[i].ID
	if err := t.Insert(tableNode, n); err != nil {
		return err
	}
	members := 0
	for m := range each[Node](t.Txn, tableNode, byCluster, n.Cluster) {
		if m.Group == n.Group && m.Counts() {
			members++
		}
	}
	if members <= cluster.Groups[i].Target {
		return nil
	}
	raised := *cluster
	raised.Groups = slices.Clone(cluster.Groups)
	raised.Groups[i].Target = members
	return t.Insert(tableCluster, &raised)
}

func (t *txn) removeNode(c RemoveNode) (*Node, error) {
	old, ok := first[Node](t.Txn, tableNode, byID, c.ID)
	if !ok {
		return nil, fmt.Errorf("node %s: %w", c.ID, ErrNotFound)
	}
	n := *old
	n.stay()
	n.State = NodeTerminated
	if err := t.Insert(tableNode, &n); err != nil {
		return nil, err
	}
	if err := t.endLaunch(n.Launch); err != nil {
		return nil, err
	}
	if !c.Shrink || !old.Counts() {
		return &n, nil
	}
	return &n, t.shrinkGroup(&n)
}

// shrinkGroup lowers the target of the group that a node was in.
func (t *txn) shrinkGroup(n *Node) error {
	cluster, ok := first[Cluster](t.Txn, tableCluster, byID, n.Cluster)
	if !ok {
		return nil // a master
	}
	i := slices.IndexFunc(cluster.Groups, func(g Group) bool { return g.ID == n.Group })
	if i < 0 || cluster.Groups[i].Target == 0 {
		return nil
	}
	lowered := *cluster
	lowered.Groups = slices.Clone(cluster.Groups)
	lowered.Groups[i].Target--
	return t.Insert(tableCluster, &lowered)
}

func (t *txn) drainNode(c DrainNode) (*Node, error) {
	n, err := t.worker(c.ID)
	if err != nil {
		return nil, err
	}
	if c.Bye != "" && n.drainsForOthers() {
		return n, nil
	}
	if n.DrainBy, n.Bye = c.By, c.Bye; !n.Draining() {
		n.stay()
	}
	return n, t.Insert(tableNode, n)
}

// drainsForOthers says whether a node drains because somebody wants it, whatever it says itself.
func (n *Node) drainsForOthers() bool { return n.Draining() && n.Bye == "" }

// stay has a node neither drain nor leave.
func (n *Node) stay() { n.DrainBy, n.Leaving, n.Bye = time.Time{}, false, "" }

// sameNode refuses to make another node of one that is known: a removed node's
// certificate is revoked, and an id changes its role and cluster by AssignNode, ReleaseNode and FindNode alone.
func sameNode(old, n *Node) error {
	if old.State == NodeTerminated {
		return fmt.Errorf("node %s was removed: %w", n.ID, ErrTooLate)
	}
	if old.Role != n.Role || old.Cluster != n.Cluster {
		return fmt.Errorf("node %s as role %s of cluster %q: %w", n.ID, old.Role, old.Cluster, ErrExists)
	}
	return nil
}
