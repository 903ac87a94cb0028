package server

import (
	"context"
	"fmt"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"millrace/master/state"
	"millrace/pkg/api"
)

// eventCluster is the kind of what is about a cluster as a whole.
const eventCluster = "CLUSTER"

// ListEvents gives what has happened to a cluster, after what the caller has.
func (s *millraceService) ListEvents(ctx context.Context, req *connect.Request[api.ListEventsRequest]) (*connect.Response[api.ListEventsResponse], error) {
	v, _, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	c, err := anyCluster(v, req.Msg.Cluster)
	if err != nil {
		return nil, err
	}
	resp := &api.ListEventsResponse{}
	first := c.EventsSeen - uint64(len(c.Events)) + 1 // number of the oldest that is kept
	for i, e := range c.Events {
		if n := first + uint64(i); n > req.Msg.After {
			resp.Events = append(resp.Events, &api.ClusterEvent{Number: n, At: stamp(e.At), Kind: e.Kind, Subject: e.Subject, Message: e.Message})
		}
	}
	return connect.NewResponse(resp), nil
}

// happened notes what was done to a cluster. That it was done does not depend on the note.
func (s *Server) happened(ctx context.Context, cluster, kind, subject, format string, args ...any) {
	e := state.Event{At: s.cfg.Now().UTC(), Kind: kind, Subject: subject, Message: fmt.Sprintf(format, args...)}
	if _, err := s.cfg.Log.Apply(ctx, state.AddEvents{Cluster: cluster, Events: []state.Event{e}}); err != nil {
		s.log.Warn("an event is not noted", zap.String("cluster", cluster), zap.String("event", e.Message), zap.Error(err))
	}
}
