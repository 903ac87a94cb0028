package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/security"
)

// A change of the site's CA has three steps, each of which waits until all nodes have taken up the one before, so that at no moment
// two of them do not trust each other:
//
//	SPREADING  both CAs are trusted, the old one issues
//	ISSUING    both are trusted, the new one issues; the old one vouches for it, for who has a token or a code from before
//	STEADY     only the new one is trusted
//
// Between the last two the old one stays for caRetires, for people who come seldom: their contexts are brought up to date by
// whatever command they run.
const (
	caRetires = 7 * 24 * time.Hour
	caEvery   = time.Second // how often the leader looks whether the next step can be made
	caSteady  = "STEADY"
	caRetire  = "RETIRING" // ISSUING, as it is shown when no node is waited for any more
)

// RotateCA begins a change of the site's CA, or says how far one has come.
func (s *millraceService) RotateCA(ctx context.Context, req *connect.Request[api.RotateCARequest]) (*connect.Response[api.CAState], error) {
	v, _, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	site, ok := v.Site()
	if !ok {
		return nil, errNoLeader
	}
	switch {
	case req.Msg.StatusOnly:
	case site.CAPhase == state.CASteady && req.Msg.Finish:
		return nil, usage("millrace ca rotate", "no change of the CA is under way that could be finished")
	case site.CAPhase == state.CASteady:
		err = s.beginCA(ctx, site)
	case req.Msg.Finish:
		err = s.advanceCA(ctx, site)
	}
	if err != nil {
		return nil, err
	}
	state, err := s.caState(s.cfg.View())
	return connect.NewResponse(state), err
}

// beginCA makes the new CA and has all learn to trust it.
func (s *Server) beginCA(ctx context.Context, site *state.Site) error {
	next, err := security.NewCA(site.ID)
	if err != nil {
		return err
	}
	sealed, err := s.cfg.Seal.Seal(next.KeyPEM())
	if err != nil {
		return err
	}
	return s.putCA(ctx, state.PutCA{From: site.CAPhase, Phase: state.CASpreading, CAPEM: string(security.Bundle([]byte(site.CAPEM), next.CertPEM())),
		SealedCAKey: site.SealedCAKey, NextCAPEM: string(next.CertPEM()), SealedNextKey: sealed})
}

// advanceCA makes the step that comes after the site's present one.
func (s *Server) advanceCA(ctx context.Context, site *state.Site) error {
	issuer, err := security.Issuer([]byte(site.CAPEM))
	if err != nil {
		return err
	}
	if site.CAPhase == state.CAIssuing {
		return s.putCA(ctx, state.PutCA{From: site.CAPhase, Phase: state.CASteady, CAPEM: string(issuer), SealedCAKey: site.SealedCAKey})
	}
	old, err := s.openCA(issuer, site.SealedCAKey)
	if err != nil {
		return err
	}
	next, err := s.openCA([]byte(site.NextCAPEM), site.SealedNextKey)
	if err != nil {
		return err
	}
	vouched, err := old.Vouch(next, s.cfg.Now())
	if err != nil {
		return err
	}
	return s.putCA(ctx, state.PutCA{From: site.CAPhase, Phase: state.CAIssuing, CAPEM: string(security.Bundle(next.CertPEM(), issuer, vouched)),
		SealedCAKey: site.SealedNextKey})
}

func (s *Server) openCA(certPEM, sealedKey []byte) (*security.CA, error) {
	key, err := s.cfg.Seal.Open(sealedKey)
	if err != nil {
		return nil, fmt.Errorf("site's CA key: %w", err)
	}
	return security.LoadCA(certPEM, key)
}

func (s *Server) putCA(ctx context.Context, c state.PutCA) error {
	c.Since = s.cfg.Now().UTC()
	_, err := s.cfg.Log.Apply(ctx, c)
	if errors.Is(err, state.ErrTooLate) { // somebody made this step already
		return nil
	}
	if err != nil {
		return fmt.Errorf("change the site's CA: %w", err)
	}
	s.log.Info("the site's CA changes", zap.String("from", c.From), zap.String("to", c.Phase))
	return nil
}

// caState is how far a change has come.
func (s *Server) caState(v *state.View) (*api.CAState, error) {
	site, ok := v.Site()
	if !ok {
		return nil, errNoLeader
	}
	fingerprint, err := security.Fingerprint([]byte(site.CAPEM))
	if err != nil {
		return nil, err
	}
	c := &api.CAState{Phase: caSteady, Fingerprint: fingerprint, Since: stamp(site.CASince)}
	if site.CAPhase == state.CASteady {
		return c, nil
	}
	c.Phase, c.Waiting = site.CAPhase, s.caWaiting(v, security.TrustID([]byte(site.CAPEM)))
	if c.Phase == state.CAIssuing && len(c.Waiting) == 0 {
		c.Phase = caRetire
	}
	return c, nil
}

// caWaiting are the nodes that do not use yet what the site trusts, or have not said so to this leader: those that are lost
// are among them, for they might come back. A master that is out of the set is not: it gets no log, and so cannot know.
func (s *Server) caWaiting(v *state.View, trust string) (waiting []string) {
	uses := map[string]string{}
	if l := s.lead.Load(); l != nil {
		for _, n := range l.Sessions.Nodes() {
			uses[n.ID] = n.Trust
		}
	}
	for _, n := range v.Nodes("") {
		if n.State != state.NodeAdmitted || n.Spare {
			continue
		}
		if n.Role == state.RoleMaster {
			uses[n.ID] = s.cfg.Cluster.LastHeard(n.ID).Trust
		}
		if uses[n.ID] != trust {
			waiting = append(waiting, n.ID)
		}
	}
	return waiting
}

// KeepCA makes the steps of a change of the site's CA while this master leads, until ctx ends.
func (s *Server) KeepCA(ctx context.Context) {
	for {
		select {
		case <-time.After(caEvery):
		case <-ctx.Done():
			return
		}
		if err := s.stepCA(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("the site's CA cannot be changed yet", zap.Error(err))
		}
	}
}

// stepCA makes the next step if nobody is waited for.
func (s *Server) stepCA(ctx context.Context) error {
	v := s.cfg.View()
	site, ok := v.Site()
	if !ok || site.CAPhase == state.CASteady || s.lead.Load() == nil {
		return nil
	}
	if len(s.caWaiting(v, security.TrustID([]byte(site.CAPEM)))) > 0 {
		return nil
	}
	if site.CAPhase == state.CAIssuing && s.cfg.Now().Sub(site.CASince) < caRetires {
		return nil
	}
	return s.advanceCA(ctx, site)
}
