package worker

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"millrace/pkg/api"
	"millrace/pkg/security"
)

// keepCertificate renews the node's certificate in the last third of its life.
func (w *Worker) keepCertificate(ctx context.Context) {
	for wait := time.Minute; sleep(ctx, wait); wait = renewEvery {
		w.idMu.Lock()
		due := expiring(w.id.credential, time.Now())
		w.idMu.Unlock()
		if !due {
			continue
		}
		if err := w.renew(ctx); err != nil {
			w.log.Warn("certificate", zap.Error(err))
			continue
		}
		w.log.Info("certificate renewed")
	}
}

// renew gets a new certificate for the same key, keeps it, and uses it for all connections to come.
func (w *Worker) renew(ctx context.Context) error {
	csr, err := security.RequestFor(w.id.credential.KeyPEM)
	if err != nil {
		return err
	}
	resp, err := w.client.Load().Rejoin(ctx, &api.JoinRequest{NodeId: w.id.ID, Name: w.cfg.Name, CsrDer: csr, Version: w.cfg.Version})
	if err != nil {
		return fmt.Errorf("renew: %w", err)
	}
	w.idMu.Lock()
	defer w.idMu.Unlock()
	w.id.credential.CertPEM, w.id.credential.CAPEM = resp.CertificatePem, resp.CaPem
	if err := w.keep(w.id); err != nil {
		return err
	}
	w.clients.renew(w.id.credential)
	if err := w.server.renew(w.id.credential); err != nil {
		return err
	}
	return w.connect(w.id.Masters, w.id.credential)
}

// expiring says whether a certificate is in the last third of its life.
func expiring(c security.Credential, now time.Time) bool {
	cert, err := c.Certificate()
	return err == nil && cert.NotAfter.Sub(now) < cert.NotAfter.Sub(cert.NotBefore)/renewBefore
}
