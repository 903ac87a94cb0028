package master

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"millrace/master/server"
	"millrace/pkg/client"
	"millrace/pkg/security"
)

// renewBefore is how long before its end a certificate is made anew.
const renewBefore = 60 * 24 * time.Hour

// writeAdmin keeps admin.json right: a valid certificate of the user admin, this
// master's address, the store's settings.
func (m *Master) writeAdmin() error {
	settings, _, err := m.stores.site()
	if err != nil {
		return err
	}
	var admin client.Context
	found, err := m.dir.ReadJSON(&admin, "admin.json")
	if err != nil {
		return err
	}
	old := admin
	s3 := &client.S3{
		Endpoint: settings.Endpoint, Region: settings.Region, AccessKey: settings.AccessKey, SecretKey: settings.SecretKey,
		SessionToken: settings.SessionToken, CABundle: settings.CaPem,
	}
	if !found || stale(admin.Credential()) {
		credential, err := m.issueAdmin()
		if err != nil {
			return fmt.Errorf("make the administrator's context: %w", err)
		}
		admin = client.Context{Name: server.Admin, CA: string(credential.CAPEM), Certificate: string(credential.CertPEM), Key: string(credential.KeyPEM)}
	}
	admin.Servers, admin.S3 = []string{m.address}, s3
	if found && slices.Equal(old.Servers, admin.Servers) && old.S3 != nil && *old.S3 == *s3 && old.Certificate == admin.Certificate {
		return nil
	}
	return client.WriteContext(m.dir.Path("admin.json"), &admin)
}

// stale says that a credential has to be made anew.
func stale(c security.Credential) bool {
	cert, err := c.Certificate()
	return err != nil || time.Until(cert.NotAfter) < renewBefore
}

// renewSelf replaces this master's certificate long before it ends. It is used from the next start on.
func (m *Master) renewSelf() error {
	if !stale(m.id.credential) {
		return nil
	}
	ca, err := m.ca()
	if err != nil {
		return err
	}
	csr, err := security.RequestFor(m.id.credential.KeyPEM)
	if err != nil {
		return fmt.Errorf("renew certificate: %w", err)
	}
	self := security.Identity{Site: m.id.Site, Role: security.RoleMaster, ID: m.id.ID}
	cert, _, err := ca.Sign(csr, self, nil, time.Now(), security.CertLifetime)
	if err != nil {
		return fmt.Errorf("renew certificate: %w", err)
	}
	m.log.Info("this master's certificate was renewed: it is used from the next start on")
	return m.dir.Write(cert, "pki", "cert.pem")
}

func (m *Master) issueAdmin() (security.Credential, error) {
	ca, err := m.ca()
	if err != nil {
		return security.Credential{}, err
	}
	return issue(ca, security.RoleUser, server.Admin, time.Now())
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
