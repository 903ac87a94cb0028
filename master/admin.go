package master

import (
	"fmt"
	"slices"

	"millrace/master/server"
	"millrace/pkg/client"
)

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
	if !found || m.stale(admin.Credential()) {
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
