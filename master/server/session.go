package server

import (
	"context"
	"errors"
	"io"

	"connectrpc.com/connect"

	"millrace/pkg/api"
)

// workerService hands workers' sessions to the leader's registry.
type workerService struct{ *Server }

func (s *workerService) Session(ctx context.Context, stream *connect.BidiStream[api.WorkerMessage, api.MasterMessage]) error {
	c := callOf(ctx)
	err := c.leader.Sessions.Serve(ctx, c.caller.ID, stream)
	if errors.Is(err, io.EOF) { // the worker said goodbye
		return nil
	}
	return err
}
