package worker

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"millrace/pkg/api"
	"millrace/pkg/joining"
	"millrace/pkg/security"
)

const (
	renewPause = 2 * time.Second // the least time between two tries to renew the certificate
	renewRetry = 10 * time.Minute
)

// keepCertificate renews the node's certificate when that is due, until ctx ends.
func (w *Worker) keepCertificate(ctx context.Context) {
	keepFresh(ctx, w.credential, w.renewals, func() error {
		err := w.renew(ctx)
		if err != nil {
			w.log.Warn("certificate", zap.Error(err))
		} else {
			w.log.Info("certificate renewed")
		}
		return err
	})
}

// keepFresh has a credential renewed in the last third of its life, again and again until that works, and when it is asked for: the
// site has come to trust another CA.
func keepFresh(ctx context.Context, c *security.Live, asked <-chan struct{}, renew func() error) {
	for wait := time.Minute; ; {
		select {
		case <-time.After(wait):
			wait = renewEvery
			if !expiring(c.Credential(), time.Now()) {
				continue
			}
		case <-asked:
		case <-ctx.Done():
			return
		}
		if renew() != nil {
			wait = renewRetry
		}
		if !sleep(ctx, renewPause) {
			return
		}
	}
}

// heardTrust has the certificate renewed if the site trusts something else than what this node has, or another CA issues.
func (w *Worker) heardTrust(trust string) {
	if trust == "" || trust == w.credential.Credential().InUse() {
		return
	}
	select {
	case w.renewals <- struct{}{}:
	default: // it is to be, anyway
	}
}

// renew gets a new certificate for the same key, keeps it, and uses it for all connections to come.
func (w *Worker) renew(ctx context.Context) error {
	c := w.credential.Credential()
	csr, err := security.RequestFor(c.KeyPEM)
	if err != nil {
		return err
	}
	resp, err := w.client.Load().Rejoin(ctx, &api.JoinRequest{NodeId: w.id.ID, Name: w.cfg.Name, CsrDer: csr, Version: w.cfg.Version})
	if err != nil {
		return fmt.Errorf("renew: %w", err)
	}
	c.CertPEM, c.CAPEM = resp.CertificatePem, resp.CaPem
	if err := w.keepCredential(c); err != nil {
		return err
	}
	if err := w.credential.Replace(c); err != nil {
		return err
	}
	w.clients.Drop()
	return w.client.Load().Renew(c)
}

// keepCredential writes down a new certificate, and what is trusted by now.
func (w *Worker) keepCredential(c security.Credential) error {
	w.idMu.Lock()
	defer w.idMu.Unlock()
	if err := joining.KeepFormer(w.dir, w.id.credential.CAPEM, c.CAPEM); err != nil {
		return err
	}
	was := w.id.credential
	w.id.credential = c
	err := w.keep(w.id)
	if err != nil {
		w.id.credential = was
	}
	return err
}

// expiring says whether a certificate is in the last third of its life.
func expiring(c security.Credential, now time.Time) bool {
	cert, err := c.Certificate()
	return err == nil && cert.NotAfter.Sub(now) < cert.NotAfter.Sub(cert.NotBefore)/renewBefore
}
