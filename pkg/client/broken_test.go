package client

import (
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
	"millrace/pkg/api/apiconnect"
	"millrace/pkg/security"
)

// dyingMaster loses all its connections in the middle of its first answer, as one that is killed.
type dyingMaster struct {
	fakeMaster
	server atomic.Pointer[httptest.Server]
	died   atomic.Bool
}

func (m *dyingMaster) die(ctx context.Context) {
	if m.died.CompareAndSwap(false, true) {
		m.server.Load().CloseClientConnections()
		<-ctx.Done()
	}
}

func (m *dyingMaster) GetSite(ctx context.Context, _ *connect.Request[api.GetSiteRequest]) (*connect.Response[api.Site], error) {
	m.die(ctx)
	return connect.NewResponse(&api.Site{Id: "ours"}), nil
}

func (m *dyingMaster) WatchJob(ctx context.Context, _ *connect.Request[api.GetJobRequest], s *connect.ServerStream[api.Job]) error {
	if err := s.Send(&api.Job{Id: "s-1", State: "RUNNING"}); err != nil {
		return err
	}
	m.die(ctx)
	return s.Send(&api.Job{Id: "s-1", State: "COMPLETED"})
}

func (m *dyingMaster) JobLogs(ctx context.Context, _ *connect.Request[api.JobLogsRequest], s *connect.ServerStream[api.JobLogsResponse]) error {
	if err := s.Send(&api.JobLogsResponse{Attempt: "a"}); err != nil {
		return err
	}
	m.die(ctx)
	return nil
}

func (m *dyingMaster) UploadFile(ctx context.Context, s *connect.ClientStream[api.UploadFileRequest]) (*connect.Response[api.UploadFileResponse], error) {
	m.die(ctx)
	for s.Receive() {
	}
	return connect.NewResponse(&api.UploadFileResponse{}), s.Err()
}

func TestACallSurvivesTheDeathOfItsMaster(t *testing.T) {
	for name, call := range map[string]func(ctx context.Context, c *Client) error{
		"an answer": func(ctx context.Context, c *Client) error {
			_, err := c.API().GetSite(ctx, connect.NewRequest(&api.GetSiteRequest{}))
			return err
		},
		"a stream": func(ctx context.Context, c *Client) error {
			last := ""
			for job, err := range c.Watch(ctx, &api.GetJobRequest{Job: "last"}, 5*time.Second) {
				if err != nil {
					return err
				}
				last = job.State
			}
			require.Equal(t, "COMPLETED", last)
			return nil
		},
		"a log": func(ctx context.Context, c *Client) error {
			return c.Repeat(ctx, apiconnect.MillraceServiceJobLogsProcedure, func() (came bool, err error) {
				stream, err := c.API().JobLogs(ctx, connect.NewRequest(&api.JobLogsRequest{}))
				if err != nil {
					return false, err
				}
				defer stream.Close()
				for stream.Receive() {
					came = true
				}
				return came, stream.Err()
			})
		},
		"an upload": func(ctx context.Context, c *Client) error {
			return c.Repeat(ctx, apiconnect.MillraceServiceUploadFileProcedure, func() (bool, error) {
				stream := c.API().UploadFile(ctx)
				for range 100 {
					if err := stream.Send(&api.UploadFileRequest{Data: make([]byte, 64<<10)}); errors.Is(err, io.EOF) {
						break
					} else if err != nil {
						return false, err
					}
				}
				_, err := stream.CloseAndReceive()
				return false, err
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPKI(t)
			m := &dyingMaster{}
			server := p.serveAs(t, m, security.RoleMaster)
			m.server.Store(server)
			require.NoError(t, call(t.Context(), p.client(t, 5*time.Second, server.URL)))
			require.True(t, m.died.Load())
		})
	}
}
