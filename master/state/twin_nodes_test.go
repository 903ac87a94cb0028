package state

import "time"

// createToken: for the pool, or for a role of a cluster.
func (w *fleetTwin) createToken(t Token) error {
	if _, known := w.tokens[t.ID]; known {
		return ErrExists
	}
	if t.Role == RolePool && t.Cluster != "" {
		return ErrNotFound
	}
	if t.Role != RolePool {
		if _, err := w.live(t.Cluster); err != nil {
			return err
		}
	}
	w.tokens[t.ID] = t
	return nil
}

func (w *fleetTwin) counts(n Node) bool {
	return n.State == NodeAdmitted && n.Failure == "" && !n.Leaving
}

func (w *fleetTwin) admit(a AdmitNode) error {
	t, ok := w.tokens[a.Token]
	n := a.Node
	if !ok || n.Role != t.Role || n.Cluster != t.Cluster {
		return ErrToken
	}
	if c := w.clusters[t.Cluster]; t.Cluster != "" && c.State != "" {
		return ErrToken
	}
	if old, known := w.nodes[n.ID]; known {
		return w.admitAgain(old, n, t)
	}
	if t.UsesLeft == 0 {
		return ErrToken
	}
	n.State, n.Pooled = NodeAdmitted, t.Role == RolePool
	if t.Launch != "" {
		l, there := w.launches[t.Launch]
		if !there || l.State == LaunchTerminating || l.Node != "" {
			return ErrToken
		}
		n.Launch, n.Provider, n.Group = l.ID, l.Provider, l.Group
		l.State, l.Node, l.Tries = LaunchJoined, n.ID, 0
		w.launches[l.ID] = l
	}
	if t.UsesLeft > 0 {
		t.UsesLeft--
		w.tokens[t.ID] = t
	}
	w.nodes[n.ID] = n
	if t.Launch == "" && n.Cluster != "" {
		w.join(n.ID)
	}
	return nil
}

// admitAgain: what is known of the node stays, but for what it says of itself.
func (w *fleetTwin) admitAgain(old, n Node, t Token) error {
	switch {
	case old.State == NodeTerminated, t.Launch != "" && old.Launch != t.Launch:
		return ErrToken
	case old.Pooled && t.Role == RolePool: // wherever it is by now
	case old.Role != n.Role || old.Cluster != n.Cluster:
		return ErrToken
	}
	old.Version = n.Version
	w.nodes[n.ID] = old
	if old.Launch == "" && !old.Pooled {
		w.join(n.ID)
	}
	return nil
}

// join has a node that came of itself be in the group of its role, which grows if it is full.
func (w *fleetTwin) join(id string) {
	n := w.nodes[id]
	c := w.clusters[n.Cluster]
	for i := range c.groups {
		if g := &c.groups[i]; g.Role == n.Role {
			n.Group = g.ID
			w.nodes[id] = n
			members := 0
			for _, m := range w.nodes {
				if m.Group == g.ID && w.counts(m) {
					members++
				}
			}
			g.Target = max(g.Target, members)
		}
	}
}

// node finds a node that was not removed.
func (w *fleetTwin) node(id string) (Node, error) {
	n, ok := w.nodes[id]
	switch {
	case !ok:
		return n, ErrNotFound
	case n.State == NodeTerminated:
		return n, ErrTooLate
	}
	return n, nil
}

func (w *fleetTwin) assign(a AssignNode) error {
	n, err := w.node(a.ID)
	if err != nil {
		return err
	}
	if n.Role != RolePool || !n.DrainBy.IsZero() {
		return ErrTooLate
	}
	c, err := w.live(a.Cluster)
	if err != nil {
		return err
	}
	g := c.group(a.Group)
	if g == nil {
		return ErrNotFound
	}
	n.Cluster, n.Group, n.Role = c.ID, g.ID, g.Role
	w.nodes[n.ID] = n
	return nil
}

func (w *fleetTwin) drain(id string, by time.Time, bye string, leave bool) error {
	n, err := w.node(id)
	if err != nil {
		return err
	}
	if bye != "" && n.Bye == "" && !n.DrainBy.IsZero() {
		return nil
	}
	n.DrainBy, n.Bye = by, bye
	if leave {
		n.Leaving = true
	}
	if by.IsZero() {
		n.Leaving, n.Bye = false, ""
	}
	w.nodes[id] = n
	return nil
}

func (w *fleetTwin) release(id string) error {
	n, err := w.node(id)
	if err != nil {
		return err
	}
	if !n.Pooled {
		return ErrInvalid
	}
	w.nodes[id] = Node{ID: n.ID, Role: RolePool, State: n.State, Version: n.Version, Pooled: true, Unsure: n.Unsure}
	return nil
}

func (w *fleetTwin) find(f FindNode) error {
	n, err := w.node(f.ID)
	if err != nil || !n.Unsure {
		return err
	}
	n.Unsure = false
	if c, err := w.live(f.Cluster); err == nil && (n.Cluster != f.Cluster || n.Role != f.Role) {
		for _, g := range c.groups {
			if g.Role == f.Role {
				n = Node{ID: n.ID, Cluster: c.ID, Group: g.ID, Role: g.Role, State: n.State, Version: n.Version, Pooled: true}
			}
		}
	}
	w.nodes[n.ID] = n
	return nil
}

func (w *fleetTwin) note(b NoteBootstrap) error {
	n, err := w.node(b.ID)
	if err != nil {
		return err
	}
	if n.Cluster != b.Cluster {
		return ErrTooLate
	}
	if n.Bootstrap != "" {
		return nil
	}
	if n.Bootstrap = b.State; b.State == BootstrapFailed {
		n.Failure = b.Failure
		c := w.clusters[n.Cluster]
		c.failed[n.Group] = append(c.failed[n.Group], n.ID)
	}
	w.nodes[n.ID] = n
	return nil
}

func (w *fleetTwin) remove(r RemoveNode) error {
	n, ok := w.nodes[r.ID]
	if !ok {
		return ErrNotFound
	}
	if c := w.clusters[n.Cluster]; c != nil && r.Shrink && w.counts(n) {
		g := c.group(n.Group)
		g.Target = max(0, g.Target-1)
	}
	if l, ok := w.launches[n.Launch]; ok && l.State != LaunchTerminating {
		l.State, l.Tries = LaunchTerminating, 0
		w.launches[l.ID] = l
	}
	n.State, n.DrainBy, n.Leaving, n.Bye = NodeTerminated, time.Time{}, false, ""
	w.nodes[n.ID] = n
	return nil
}

// ask makes a launch with its token.
func (w *fleetTwin) ask(p PutLaunch) error {
	if _, known := w.launches[p.Launch.ID]; known {
		return ErrExists
	}
	c, err := w.live(p.Launch.Cluster)
	if err != nil {
		return err
	}
	if c.group(p.Launch.Group) == nil {
		return ErrNotFound
	}
	if _, known := w.tokens[p.Create.ID]; known {
		return ErrExists
	}
	w.launches[p.Launch.ID], w.tokens[p.Create.ID] = p.Launch, *p.Create
	return nil
}

var launchRank = map[string]int{LaunchRequested: 1, LaunchGiven: 2, LaunchJoined: 3, LaunchTerminating: 4}

// tell says how far a launch is, perhaps too late.
func (w *fleetTwin) tell(l Launch) error {
	old, known := w.launches[l.ID]
	switch {
	case !known && l.State == LaunchRequested:
		return w.ask(PutLaunch{Launch: l, Create: nil}) // the histories do not do this
	case !known:
		return ErrNotFound
	case l.State == LaunchJoined && launchRank[old.State] < 3:
		return ErrInvalid
	case l.State == LaunchTerminating && old.State == LaunchJoined && w.nodes[old.Node].State == NodeAdmitted:
		return ErrTooLate
	}
	if l.Machine != "" {
		old.Machine = l.Machine
	}
	if launchRank[l.State] >= launchRank[old.State] {
		old.State, old.Tries = l.State, l.Tries
	}
	w.launches[l.ID] = old
	return nil
}

func (w *fleetTwin) drop(id string) error {
	l, ok := w.launches[id]
	if !ok {
		return ErrNotFound
	}
	delete(w.tokens, l.Token)
	delete(w.launches, id)
	return nil
}

func (w *fleetTwin) codeTaken(id string) bool {
	for _, u := range w.users {
		if u.CodeID == id {
			return true
		}
	}
	return false
}

func (w *fleetTwin) createUser(u User) error {
	if _, known := w.users[u.Name]; known || u.CodeID != "" && w.codeTaken(u.CodeID) {
		return ErrExists
	}
	w.users[u.Name] = u
	return nil
}

func (w *fleetTwin) putCode(c PutLoginCode) error {
	u, known := w.users[c.Name]
	switch {
	case !known:
		return ErrNotFound
	case w.codeTaken(c.CodeID):
		return ErrExists
	}
	u.CodeID, u.CodeHash, u.CodeExpiresAt = c.CodeID, c.CodeHash, c.ExpiresAt
	w.users[u.Name] = u
	return nil
}

func (w *fleetTwin) login(l LoginUser) error {
	for _, u := range w.users {
		if u.CodeID == l.CodeID && l.Now.Before(u.CodeExpiresAt) {
			u.CodeID, u.CodeHash, u.CodeExpiresAt, u.LastLoginAt = "", nil, time.Time{}, l.Now
			w.users[u.Name] = u
			return nil
		}
	}
	return ErrToken
}
