package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"connectrpc.com/connect"
	"go.uber.org/zap"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	"millrace/master/session"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/api/apiconnect"
)

const (
	nodeExecPath = "/v1/node/exec"
	maxStdin     = 1 << 20
)

// ExecNode runs a program on a worker, for as long as the caller stays. It is audited when it begins, and again, as any call, when it
// has ended.
func (s *millraceService) ExecNode(ctx context.Context, req *connect.Request[api.ExecNodeRequest], stream *connect.ServerStream[api.ExecNodeResponse]) error {
	ctx, stop := s.whileOpen(ctx)
	defer stop()
	v, l, n, err := s.namedNode(ctx, req.Msg.Node)
	if err != nil {
		return err
	}
	if site, ok := v.Site(); !ok || site.NoExec {
		return failure("millrace site set --exec on", "node exec is switched off for this site")
	}
	if err := checkExec(req.Msg, n); err != nil {
		return err
	}
	sess, up := sessionOf(l, n.ID)
	if !up {
		return failure("millrace node list", "node %s is not up: nothing can be run there", called(n))
	}
	begins := s.event(callOf(ctx), apiconnect.MillraceServiceExecNodeProcedure)
	begins.Subject, begins.Outcome = subjectOf(req.Msg.ProtoReflect()), "begins"
	s.cfg.Audit.Audit(begins)

	body, err := s.workers.exec(ctx, sess, req.Msg)
	if err != nil {
		return fmt.Errorf("run a program on node %s: %w", called(n), err)
	}
	defer body.Close()
	for in := bufio.NewReader(body); ; {
		m := &api.ExecNodeResponse{}
		if err := (protodelim.UnmarshalOptions{MaxSize: maxMessage}).UnmarshalFrom(in, m); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			s.log.Info("a program's end was not heard of", zap.String("node", n.ID), zap.Error(err))
			return failure("millrace node list", "node %s went away while the program ran, which has ended with the connection", called(n))
		}
		if err := stream.Send(m); err != nil || m.GetEnd() != nil {
			return err
		}
	}
}

// checkExec says what is wrong with a request, or with the node for it.
func checkExec(q *api.ExecNodeRequest, n *state.Node) error {
	name := called(n)
	switch {
	case len(q.Command) == 0 || q.Command[0] == "":
		return usage("millrace node exec "+name+" -- uptime", "no program is given")
	case len(q.Stdin) > maxStdin:
		return usage("millrace node exec --help", fmt.Sprintf("%d bytes of standard input: at most %d", len(q.Stdin), maxStdin))
	case q.TimeoutMs < 0:
		return usage("millrace node exec --help", "a time limit cannot be negative")
	case n.Role == state.RoleMaster:
		return usage("millrace node list", fmt.Sprintf("node %s is a master: programs are run on workers only", name))
	case n.State == state.NodeTerminated:
		return failure("millrace node list", "node %s was removed", name)
	}
	return nil
}

// exec has a worker run a program: what it answers are delimited ExecNodeResponses.
func (w workerLogs) exec(ctx context.Context, n session.Node, q *api.ExecNodeRequest) (io.ReadCloser, error) {
	message, err := proto.Marshal(q)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(n.Address, "/")+nodeExecPath, bytes.NewReader(message))
	if err != nil {
		return nil, err
	}
	resp, err := w.transport(n.ID).RoundTrip(req)
	if err != nil {
		return nil, err
	}
	switch resp.StatusCode {
	case http.StatusOK:
		return resp.Body, nil
	case http.StatusNotFound:
		err = errors.New("it is of a version that runs none")
	default:
		err = fmt.Errorf("it answers %s", resp.Status)
	}
	resp.Body.Close()
	return nil, err
}
