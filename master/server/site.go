package server

import (
	"context"

	"connectrpc.com/connect"

	"millrace/pkg/api"
	"millrace/pkg/security"
)

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
	_, settings, err := s.siteStore(v)
	if err != nil {
		return nil, err
	}
	shown := &api.ObjectStore{Endpoint: settings.Endpoint, Region: settings.Region, CaPem: settings.CaPem}
	if caller := callOf(ctx).caller; caller.Role == security.RoleUser && caller.ID == Admin {
		shown = settings
	}
	return connect.NewResponse(&api.Site{
		Id: site.ID, Version: s.cfg.Version, SystemPrefix: site.SystemPrefix, Store: shown, Leader: s.cfg.Cluster.Leader(),
	}), nil
}
