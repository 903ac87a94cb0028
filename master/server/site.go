package server

import (
	"context"
	"fmt"

	"connectrpc.com/connect"

	"millrace/master/state"
	"millrace/pkg/api"
)

// SetSite changes what holds for the whole site.
func (s *millraceService) SetSite(ctx context.Context, req *connect.Request[api.SetSiteRequest]) (*connect.Response[api.Site], error) {
	if _, _, err := s.read(ctx); err != nil {
		return nil, err
	}
	if req.Msg.NoExec == nil {
		return nil, usage("millrace site set --help", "nothing to set was given")
	}
	if _, err := s.cfg.Log.Apply(ctx, state.SetSite{NoExec: req.Msg.NoExec}); err != nil {
		return nil, fmt.Errorf("set site: %w", err)
	}
	return s.GetSite(ctx, nil)
}

// GetSite says what the site is and where its store lies; keys go to the administrator only.
func (s *millraceService) GetSite(ctx context.Context, _ *connect.Request[api.GetSiteRequest]) (*connect.Response[api.Site], error) {
	v, _, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	site, ok := v.Site()
	if !ok {
		return nil, errNoLeader
	}
	shown, err := s.storeFor(v, callOf(ctx).isAdmin())
	if err != nil {
		return nil, err
	}
	ca, err := s.caState(v)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.Site{
		Ca: ca, Id: site.ID, Version: s.cfg.Version, SystemPrefix: site.SystemPrefix, Store: shown, Leader: s.cfg.Cluster.Leader(), NoExec: site.NoExec,
	}), nil
}
