package master

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"millrace/master/state"
	"millrace/pkg/joining"
	"millrace/pkg/security"
)

// A master signs for itself: long before its certificate ends, and whenever the log says that the site trusts something else.
func TestAMastersCertificateNeverEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, err := openDirectory(t.TempDir(), "test")
		require.NoError(t, err)
		defer dir.Close()
		ca, err := security.NewCA("site-1")
		require.NoError(t, err)
		m := &Master{dir: dir, id: &identity{nodeFile: nodeFile{ID: "i-00000000000000001", Site: "site-1"}}, store: state.New(), log: zap.NewNop()}
		sealed, err := m.id.seal.Seal(ca.KeyPEM())
		require.NoError(t, err)
		site := state.Site{ID: "site-1", CAPEM: string(ca.CertPEM()), SealedCAKey: sealed}
		_, err = m.store.Apply(1, state.CreateSite{Site: site, Cluster: state.Cluster{ID: "j-1", Name: "default"}})
		require.NoError(t, err)
		credential, err := issue(ca, security.RoleMaster, m.id.ID, time.Now())
		require.NoError(t, err)
		m.credential, err = security.NewLive(credential)
		require.NoError(t, err)
		token, err := security.NewToken(ca.CertPEM())
		require.NoError(t, err)

		renewals := 0
		for range 5 * 365 {
			was := m.credential.Credential()
			require.NoError(t, m.renewSelf())
			now := m.credential.Credential()
			if string(was.CertPEM) != string(now.CertPEM) {
				renewals++
			}
			cert, err := now.Certificate()
			require.NoError(t, err)
			require.Greater(t, time.Until(cert.NotAfter), renewBefore-time.Hour)
			time.Sleep(24 * time.Hour)
		}
		require.InDelta(t, 5, renewals, 1)

		next, err := security.NewCA("site-1")
		require.NoError(t, err)
		for i, put := range []state.PutCA{
			{From: "", Phase: state.CASpreading, CAPEM: string(security.Bundle(ca.CertPEM(), next.CertPEM())), SealedCAKey: sealed},
			{From: state.CASpreading, Phase: state.CAIssuing, CAPEM: string(security.Bundle(next.CertPEM(), ca.CertPEM()))},
			{From: state.CAIssuing, Phase: state.CASteady, CAPEM: string(next.CertPEM())},
		} {
			if put.SealedCAKey == nil {
				put.SealedCAKey, err = m.id.seal.Seal(next.KeyPEM())
				require.NoError(t, err)
			}
			_, err = m.store.Apply(uint64(2+i), put)
			require.NoError(t, err)
			require.True(t, m.stale(m.credential.Credential()))
			require.NoError(t, m.renewSelf())
			require.Equal(t, security.TrustID([]byte(put.CAPEM)), m.credential.Credential().InUse())
			kept, err := dir.Read("pki", "ca.pem")
			require.NoError(t, err)
			require.Equal(t, put.CAPEM, string(kept))
		}
		known, err := joining.Known(dir.Dir, next.CertPEM())
		require.NoError(t, err)
		require.NoError(t, joining.SameSite(token.String(), known, "x"), "a start script's token of the first CA")
		require.ErrorIs(t, joining.SameSite(token.String(), next.CertPEM(), "x"), joining.ErrOtherNode)
	})
}
