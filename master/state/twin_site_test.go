package state

import (
	"strings"
	"time"
)

// twin is a slow and simple model of the store: plain maps, and sums counted anew each time.
type twin struct {
	site    *Site
	cluster Cluster // its groups' targets change
	nodes   map[string]Node
	tokens  map[string]Token
	jobs    map[string]*twinJob
	order   []*twinJob // as they were submitted
	past    []*twinJob // that have moved to the history
	made    int        // jobs, all in all
}

func newTwin() twin {
	return twin{nodes: map[string]Node{}, tokens: map[string]Token{}, jobs: map[string]*twinJob{}}
}

// A site is made once, with its first cluster.
func (w *twin) createSite(c CreateSite) error {
	switch {
	case w.site != nil:
		return ErrExists
	case c.Site.ID == "" || c.Cluster.ID == "" || c.Cluster.Name == "":
		return ErrInvalid
	}
	w.site, w.cluster = &c.Site, c.Cluster
	w.cluster.Groups = append([]Group(nil), c.Cluster.Groups...)
	return nil
}

func (w *twin) putStore(c PutStore) error {
	if w.site == nil {
		return ErrNotFound
	}
	w.site.SealedStore, w.site.SystemPrefix = c.SealedStore, c.SystemPrefix
	return nil
}

// place says whether a role can be in a cluster: masters are in none, workers in one that exists.
func (w *twin) place(role, cluster string) error {
	if role == RoleMaster && cluster == "" {
		return nil
	}
	if role == RoleMaster || w.site == nil || cluster != w.cluster.ID {
		return ErrNotFound
	}
	return nil
}

// become says whether a node may be what it asks to be: one that was removed never comes back, and none changes its role or cluster.
func (w *twin) become(n Node) error {
	old, known := w.nodes[n.ID]
	switch {
	case !known:
		return nil
	case old.State == NodeTerminated:
		return ErrTooLate
	case old.Role != n.Role || old.Cluster != n.Cluster:
		return ErrExists
	}
	return nil
}

func (w *twin) putNode(c PutNode) error {
	if c.Node.ID == "" || !strings.Contains("MASTER CORE TASK", c.Node.Role) || c.Node.Role == "" {
		return ErrInvalid
	}
	if err := w.place(c.Node.Role, c.Node.Cluster); err != nil {
		return err
	}
	if err := w.become(c.Node); err != nil {
		return err
	}
	w.admit(c.Node)
	return nil
}

// admit keeps when a node came first, and whether it drains.
func (w *twin) admit(n Node) {
	if old, known := w.nodes[n.ID]; known {
		n.JoinedAt, n.DrainBy = old.JoinedAt, old.DrainBy
	}
	n.State = NodeAdmitted
	w.nodes[n.ID] = n
}

// A token is for one role of one cluster, until a time, for so many new nodes. The group that is joined grows if it is full.
func (w *twin) admitNode(c AdmitNode) error {
	n := c.Node
	token, ok := w.tokens[c.Token]
	if !ok || !c.Now.Before(token.ExpiresAt) || n.Role != token.Role || n.Cluster != token.Cluster {
		return ErrToken
	}
	if n.ID == "" {
		return ErrInvalid
	}
	if w.become(n) != nil {
		return ErrToken
	}
	_, known := w.nodes[n.ID]
	if !known && token.UsesLeft == 0 {
		return ErrToken
	}
	var group *Group
	for i := range w.cluster.Groups {
		g := &w.cluster.Groups[i]
		if group == nil && n.Role != RoleMaster && g.Role == n.Role && (n.Group == "" || n.Group == g.ID) {
			group = g
		}
	}
	if n.Role != RoleMaster && group == nil {
		return ErrNotFound
	}
	if !known && token.UsesLeft > 0 {
		token.UsesLeft--
		w.tokens[token.ID] = token
	}
	if group != nil {
		n.Group = group.ID
	}
	w.admit(n)
	if group != nil {
		members := 0
		for _, other := range w.nodes {
			if other.State == NodeAdmitted && other.Group == group.ID {
				members++
			}
		}
		group.Target = max(group.Target, members)
	}
	return nil
}

func (w *twin) removeNode(c RemoveNode) error {
	n, known := w.nodes[c.ID]
	if !known {
		return ErrNotFound
	}
	if c.Shrink && n.State != NodeTerminated {
		for i, g := range w.cluster.Groups {
			if g.ID == n.Group {
				w.cluster.Groups[i].Target = max(0, g.Target-1)
			}
		}
	}
	n.State, n.DrainBy = NodeTerminated, time.Time{}
	w.nodes[c.ID] = n
	return nil
}

// Workers drain, until they are told otherwise or removed.
func (w *twin) drainNode(c DrainNode) error {
	n, known := w.nodes[c.ID]
	switch {
	case !known:
		return ErrNotFound
	case n.Role == RoleMaster:
		return ErrInvalid
	case n.State == NodeTerminated:
		return ErrTooLate
	}
	n.DrainBy = c.By
	w.nodes[c.ID] = n
	return nil
}

func (w *twin) createToken(c CreateToken) error {
	t := c.Token
	if _, known := w.tokens[t.ID]; known {
		return ErrExists
	}
	if t.ID == "" || t.Role == "" || !strings.Contains("MASTER CORE TASK", t.Role) || t.UsesLeft < -1 {
		return ErrInvalid
	}
	if err := w.place(t.Role, t.Cluster); err != nil {
		return err
	}
	w.tokens[t.ID] = t
	return nil
}

func (w *twin) revokeToken(c RevokeToken) error {
	if _, known := w.tokens[c.ID]; !known {
		return ErrNotFound
	}
	delete(w.tokens, c.ID)
	return nil
}
