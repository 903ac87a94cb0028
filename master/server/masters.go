package server

import (
	"context"
	"fmt"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"millrace/master/state"
	"millrace/pkg/api"
)

// masterService is for masters among themselves.
type masterService struct{ *Server }

func (s *masterService) Announce(ctx context.Context, req *connect.Request[api.AnnounceRequest]) (*connect.Response[api.AnnounceResponse], error) {
	settled, err := s.cfg.Cluster.Announced(ctx, callOf(ctx).caller.ID, req.Msg)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.AnnounceResponse{Settled: settled}), nil
}

// AddMaster lets a master back in that was taken out of the set.
func (s *millraceService) AddMaster(ctx context.Context, req *connect.Request[api.AddMasterRequest]) (*connect.Response[api.Node], error) {
	return s.changeMasters(ctx, req.Msg.Id, added, s.cfg.Cluster.Admit)
}

// RemoveMaster takes a master out of the set: it has no vote any more, and no part of the log. AddMaster takes one back
// that is up; one that is lost is out of the site for good.
func (s *millraceService) RemoveMaster(ctx context.Context, req *connect.Request[api.RemoveMasterRequest]) (*connect.Response[api.Node], error) {
	return s.changeMasters(ctx, req.Msg.Id, removed, s.cfg.Cluster.Expel)
}

// What has become of a master, in the log of this one.
const (
	added   = "added"
	removed = "removed"
)

func (s *millraceService) changeMasters(ctx context.Context, name, what string, change func(context.Context, string) error) (*connect.Response[api.Node], error) {
	v, _, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	n, err := master(v, name)
	if err != nil {
		return nil, err
	}
	if n.State == state.NodeTerminated {
		if what == removed { // it is repeated, perhaps for want of an answer
			return connect.NewResponse(s.masterView(n)), nil
		}
		return nil, failure("have it join as a new one, with an empty folder: millrace join-token create --role master", "master %s was removed from the site for good", called(n))
	}
	if err := change(ctx, n.ID); err != nil {
		return nil, err
	}
	s.log.Info("the set of masters has changed", zap.String(what, n.ID))
	if now, ok := s.cfg.View().Node(n.ID); ok {
		n = now
	}
	return connect.NewResponse(s.masterView(n)), nil
}

// master finds a master by its id or its name. One that was removed is found only if no other is meant.
func master(v *state.View, name string) (*state.Node, error) {
	var found, gone []*state.Node
	for _, n := range v.Nodes("") {
		switch {
		case n.Role != state.RoleMaster || n.ID != name && n.Name != name:
		case n.State == state.NodeTerminated:
			gone = append(gone, n)
		default:
			found = append(found, n)
		}
	}
	if len(found) == 0 {
		found = gone
	}
	switch len(found) {
	case 0:
		return nil, notFound("millrace master list", "no such master: %s", name)
	case 1:
		return found[0], nil
	}
	return nil, usage("millrace master list", fmt.Sprintf("%s is the name of several masters: give an id", name))
}
