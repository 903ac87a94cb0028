package state

import (
	"fmt"
	"slices"
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
		n.JoinedAt = old.JoinedAt
	}
	n.State = NodeAdmitted
	return &n, t.Insert(tableNode, &n)
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
	if old, ok := first[Node](t.Txn, tableNode, byID, n.ID); ok {
		if err := sameNode(old, &n); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrToken, err)
		}
		n.JoinedAt = old.JoinedAt // it asks again, perhaps for want of an answer: that costs no use
	} else if err := t.useToken(token); err != nil {
		return nil, err
	}
	n.State = NodeAdmitted
	return &n, t.joinGroup(&n)
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
		if m.Group == n.Group && m.State == NodeAdmitted {
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
	n.State = NodeTerminated
	return &n, t.Insert(tableNode, &n)
}

// sameNode refuses to make another node of one that is known: a removed node's
// certificate is revoked, and an id never changes its role or cluster.
func sameNode(old, n *Node) error {
	if old.State == NodeTerminated {
		return fmt.Errorf("node %s was removed: %w", n.ID, ErrTooLate)
	}
	if old.Role != n.Role || old.Cluster != n.Cluster {
		return fmt.Errorf("node %s as role %s of cluster %q: %w", n.ID, old.Role, old.Cluster, ErrExists)
	}
	return nil
}
