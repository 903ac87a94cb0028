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

func (t *txn) createToken(c CreateToken) (*Token, error) {
	if _, ok := first[Token](t.Txn, tableToken, byID, c.Token.ID); ok {
		return nil, fmt.Errorf("join token %s: %w", c.Token.ID, ErrExists)
	}
	if c.Token.ID == "" || !knownRole(c.Token.Role) || c.Token.UsesLeft < -1 {
		return nil, fmt.Errorf("%w: a join token needs an id, a role and a number of uses", ErrInvalid)
	}
	if err := t.clusterFor(c.Token.Role, c.Token.Cluster); err != nil {
		return nil, err
	}
	return &c.Token, t.Insert(tableToken, &c.Token)
}

func (t *txn) revokeToken(c RevokeToken) (*Token, error) {
	token, ok := first[Token](t.Txn, tableToken, byID, c.ID)
	if !ok {
		return nil, fmt.Errorf("join token %s: %w", c.ID, ErrNotFound)
	}
	return token, t.Delete(tableToken, token)
}

// clusterFor checks that a role has the cluster it needs: masters none, the others one that exists.
func (t *txn) clusterFor(role, cluster string) error {
	if role == RoleMaster && cluster == "" {
		return nil
	}
	if _, ok := first[Cluster](t.Txn, tableCluster, byID, cluster); !ok || role == RoleMaster {
		return fmt.Errorf("cluster %q for role %s: %w", cluster, role, ErrNotFound)
	}
	return nil
}

func knownRole(role string) bool {
	return role == RoleMaster || role == RoleCore || role == RoleTask
}
