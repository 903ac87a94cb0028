package master

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"millrace/master/server"
	"millrace/pkg/joining"
	"millrace/pkg/security"
	"millrace/pkg/shortage"
)

const (
	// renewBefore is how long before its end a certificate is made anew.
	renewBefore = 60 * 24 * time.Hour

	credentialEvery = time.Second // how often a master looks whether its own is as it should be
)

// keepCredential keeps this master's certificate right, until ctx ends: it is made anew long before it ends, and when the log
// says that the site has come to trust another CA. Every master has the key to the CA's key: it signs for itself.
func (m *Master) keepCredential(ctx context.Context) {
	said := ""
	for {
		select {
		case <-time.After(credentialEvery):
		case <-ctx.Done():
			return
		}
		err := m.renewSelf()
		if err != nil && err.Error() != said {
			m.log.Warn("this master's certificate cannot be made anew yet", zap.Error(shortage.Explained(err)))
		}
		said = ""
		if err != nil {
			said = err.Error()
		}
	}
}

// renewSelf replaces this master's certificate, and the administrator's beside it if there is one, if that is due. Connections that
// are made from then on have the new one.
func (m *Master) renewSelf() error {
	m.renewing.Lock()
	defer m.renewing.Unlock()
	c := m.credential.Credential()
	if !m.stale(c) {
		return nil
	}
	ca, err := m.ca()
	if err != nil {
		return err
	}
	csr, err := security.RequestFor(c.KeyPEM)
	if err != nil {
		return fmt.Errorf("renew certificate: %w", err)
	}
	self := security.Identity{Site: m.id.Site, Role: security.RoleMaster, ID: m.id.ID}
	was := c.CAPEM
	if c.CertPEM, _, err = ca.Sign(csr, self, nil, time.Now(), security.CertLifetime); err != nil {
		return fmt.Errorf("renew certificate: %w", err)
	}
	c.CAPEM = ca.CertPEM()
	err = errors.Join(joining.KeepFormer(m.dir.Dir, was, c.CAPEM), m.dir.Write(c.CertPEM, "pki", "cert.pem"), m.dir.Write(c.CAPEM, "pki", "ca.pem"))
	if err != nil {
		return err
	}
	if err := m.credential.Replace(c); err != nil {
		return err
	}
	if nodes := m.nodes.Load(); nodes != nil {
		nodes.Drop()
	}
	m.log.Info("this master's certificate was renewed")
	if found, err := m.dir.Read("admin.json"); err != nil || found == nil {
		return err
	}
	return m.writeAdmin()
}

// stale says that a credential has to be made anew: it ends before long, or is not of what the site trusts.
func (m *Master) stale(c security.Credential) bool {
	cert, err := c.Certificate()
	if err != nil || time.Until(cert.NotAfter) < renewBefore {
		return true
	}
	site, ok := m.store.View().Site()
	return ok && c.InUse() != security.TrustID([]byte(site.CAPEM))
}

// ca opens the site's CA.
func (m *Master) ca() (*security.CA, error) {
	site, ok := m.store.View().Site()
	if !ok {
		return nil, errors.New("there is no site yet")
	}
	key, err := m.id.seal.Open(site.SealedCAKey)
	if err != nil {
		return nil, fmt.Errorf("site's CA key: %w", err)
	}
	return security.LoadCA([]byte(site.CAPEM), key)
}

func (m *Master) issueAdmin() (security.Credential, error) {
	ca, err := m.ca()
	if err != nil {
		return security.Credential{}, err
	}
	return issue(ca, security.RoleUser, server.Admin, time.Now())
}
