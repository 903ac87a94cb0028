package worker

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/pkg/security"
)

// Five years of a node's life: its certificate is renewed in the last third of each one's, also when no master answers for two
// months of that.
func TestACertificateNeverEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, err := security.NewCA("s")
		require.NoError(t, err)
		key, csr, err := security.NewKey()
		require.NoError(t, err)
		sign := func() security.Credential {
			cert, _, err := ca.Sign(csr, security.Identity{Site: "s", Role: security.RoleWorker, ID: "i-1"}, nil, time.Now(), security.CertLifetime)
			require.NoError(t, err)
			return security.Credential{CertPEM: cert, KeyPEM: key, CAPEM: ca.CertPEM()}
		}
		live, err := security.NewLive(sign())
		require.NoError(t, err)
		begun := time.Now()
		renewed, failed := 0, 0
		var awayFrom time.Time // of the masters, in the second year
		renew := func() error {
			cert, err := live.Credential().Certificate()
			require.NoError(t, err)
			left := time.Until(cert.NotAfter)
			require.Positive(t, left)
			require.Less(t, left, security.CertLifetime/2)
			if renewed == 1 && awayFrom.IsZero() {
				awayFrom = time.Now()
			}
			if !awayFrom.IsZero() && time.Since(awayFrom) < 60*24*time.Hour {
				failed++
				return errors.New("no master answers")
			}
			renewed++
			return live.Replace(sign())
		}
		ctx, cancel := context.WithCancel(t.Context())
		asked := make(chan struct{}, 1)
		done := make(chan struct{})
		go func() { defer close(done); keepFresh(ctx, live, asked, renew) }()
		for time.Since(begun) < 5*365*24*time.Hour {
			time.Sleep(24 * time.Hour)
			cert, err := live.Credential().Certificate()
			require.NoError(t, err)
			require.True(t, time.Now().Before(cert.NotAfter), "it has ended")
		}
		require.GreaterOrEqual(t, renewed, 6)
		require.LessOrEqual(t, renewed, 9)
		require.Greater(t, failed, 100, "it goes on asking")

		// One that is asked for does not wait for the last third.
		was := live.Credential()
		asks := make(chan struct{}, 1)
		again := make(chan struct{})
		cancel()
		<-done
		ctx, cancel = context.WithCancel(t.Context())
		go func() { defer close(again); keepFresh(ctx, live, asks, func() error { return live.Replace(sign()) }) }()
		asks <- struct{}{}
		synctest.Wait()
		require.NotEqual(t, was.CertPEM, live.Credential().CertPEM)
		cancel()
		<-again
	})
}
