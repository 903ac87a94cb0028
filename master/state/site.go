package state

import "fmt"

func (t *txn) createSite(c CreateSite) (*Site, error) {
	if _, ok := first[Site](t.Txn, tableSite, byID, "site"); ok {
		return nil, fmt.Errorf("site: %w", ErrExists)
	}
	if c.Site.ID == "" || c.Cluster.ID == "" || c.Cluster.Name == "" {
		return nil, fmt.Errorf("%w: a site needs an id and a named cluster", ErrInvalid)
	}
	if err := t.Insert(tableCluster, &c.Cluster); err != nil {
		return nil, err
	}
	return &c.Site, t.Insert(tableSite, &c.Site)
}

func (t *txn) putStore(c PutStore) (*Site, error) {
	old, ok := first[Site](t.Txn, tableSite, byID, "site")
	if !ok {
		return nil, fmt.Errorf("site: %w", ErrNotFound)
	}
	s := *old
	s.SealedStore, s.SystemPrefix = c.SealedStore, c.SystemPrefix
	return &s, t.Insert(tableSite, &s)
}

func (t *txn) raiseSite(c RaiseSite) (*Site, error) {
	old, ok := first[Site](t.Txn, tableSite, byID, "site")
	if !ok {
		return nil, fmt.Errorf("site: %w", ErrNotFound)
	}
	if c.Protocol <= old.Protocol {
		return old, nil
	}
	s := *old
	s.Protocol = c.Protocol
	return &s, t.Insert(tableSite, &s)
}

func (t *txn) setSite(c SetSite) (*Site, error) {
	old, ok := first[Site](t.Txn, tableSite, byID, "site")
	if !ok {
		return nil, fmt.Errorf("site: %w", ErrNotFound)
	}
	s := *old
	set(&s.NoExec, c.NoExec)
	return &s, t.Insert(tableSite, &s)
}

func (t *txn) putCA(c PutCA) (*Site, error) {
	old, ok := first[Site](t.Txn, tableSite, byID, "site")
	switch {
	case !ok:
		return nil, fmt.Errorf("site: %w", ErrNotFound)
	case old.CAPhase != c.From:
		return nil, fmt.Errorf("the site's CA is in phase %q, not %q: %w", old.CAPhase, c.From, ErrTooLate)
	case c.CAPEM == "" || len(c.SealedCAKey) == 0:
		return nil, fmt.Errorf("%w: a site needs a CA with its key", ErrInvalid)
	}
	s := *old
	s.CAPhase, s.CASince, s.CAPEM, s.SealedCAKey = c.Phase, c.Since, c.CAPEM, c.SealedCAKey
	s.NextCAPEM, s.SealedNextKey = c.NextCAPEM, c.SealedNextKey
	return &s, t.Insert(tableSite, &s)
}

func (t *txn) createToken(c CreateToken) (*Token, error) {
	if c.Token.Launch != "" {
		return nil, fmt.Errorf("%w: the join token of a launch is made with it", ErrInvalid)
	}
	return t.newToken(c.Token)
}

func (t *txn) newToken(token Token) (*Token, error) {
	if _, ok := first[Token](t.Txn, tableToken, byID, token.ID); ok {
		return nil, fmt.Errorf("join token %s: %w", token.ID, ErrExists)
	}
	if token.ID == "" || !knownRole(token.Role) || token.UsesLeft < -1 {
		return nil, fmt.Errorf("%w: a join token needs an id, a role and a number of uses", ErrInvalid)
	}
	if err := t.clusterFor(token.Role, token.Cluster); err != nil {
		return nil, err
	}
	if err := t.takes(token.Cluster); err != nil {
		return nil, err
	}
	return &token, t.Insert(tableToken, &token)
}

func (t *txn) revokeToken(c RevokeToken) (*Token, error) {
	token, ok := first[Token](t.Txn, tableToken, byID, c.ID)
	if !ok {
		return nil, fmt.Errorf("join token %s: %w", c.ID, ErrNotFound)
	}
	return token, t.Delete(tableToken, token)
}

// clusterFor checks that a role has the cluster it needs: masters and free nodes of the pool none, the others one that exists.
func (t *txn) clusterFor(role, cluster string) error {
	nowhere := role == RoleMaster || role == RolePool
	if nowhere && cluster == "" {
		return nil
	}
	if _, ok := first[Cluster](t.Txn, tableCluster, byID, cluster); !ok || nowhere {
		return fmt.Errorf("cluster %q for role %s: %w", cluster, role, ErrNotFound)
	}
	return nil
}

// takes refuses what is new to a cluster that is ending; "" is none.
func (t *txn) takes(cluster string) error {
	if c, ok := first[Cluster](t.Txn, tableCluster, byID, cluster); ok && c.Ending() {
		return ending(c)
	}
	return nil
}

func knownRole(role string) bool {
	return role == RoleMaster || role == RoleCore || role == RoleTask || role == RolePool
}
