package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"connectrpc.com/connect"

	"millrace/master/history"
	"millrace/master/session"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
	"millrace/pkg/security"
)

const (
	logChunk   = 64 << 10
	logFolder  = "logs/"
	logsByPath = "/v1/logs/" // on workers: + JOB/ATTEMPT
)

// errNoLog says that a place does not have the log.
var errNoLog = errors.New("no log there")

// JobLogs streams an attempt's standard error: from its worker while that is connected, else
// from where the worker put it.
func (s *millraceService) JobLogs(ctx context.Context, req *connect.Request[api.JobLogsRequest], stream *connect.ServerStream[api.JobLogsResponse]) error {
	v, l, err := s.read(ctx)
	if err != nil {
		return err
	}
	r, err := s.record(ctx, v, req.Msg)
	if err != nil {
		return err
	}
	j, attempt := r.Job, req.Msg.Attempt
	if attempt == "" {
		if attempt = firstFailed(r); attempt == "" {
			return failure("millrace job tasks "+j.ID+" lists attempts, millrace job logs "+j.ID+" --attempt ID shows one's log",
				"no attempt of job %s has failed", j.ID)
		}
	}
	node, known := nodeOfAttempt(l, r, attempt)
	if !known {
		return notFound("millrace job tasks "+j.ID+" lists them", "job %s has no attempt %s", j.ID, attempt)
	}
	if _, up := sessionOf(l, node); !up {
		s.awaitNodes(ctx, v, l, j.Cluster)
		// Its node has just said that it runs, or that it has ended.
		v = s.cfg.View()
		if r, err = s.record(ctx, v, req.Msg); err != nil {
			return err
		}
		node, _ = nodeOfAttempt(l, r, attempt)
	}
	body, err := s.openLog(ctx, v, l, j.ID, attempt, node, req.Msg.Follow)
	if err != nil {
		return err
	}
	defer body.Close()
	return sendLog(stream, body, attempt)
}

func sendLog(stream *connect.ServerStream[api.JobLogsResponse], body io.Reader, attempt string) error {
	if err := stream.Send(&api.JobLogsResponse{Attempt: attempt}); err != nil {
		return err
	}
	buf := make([]byte, logChunk)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if sendErr := stream.Send(&api.JobLogsResponse{Data: buf[:n]}); sendErr != nil {
				return sendErr
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read log of %s: %w", attempt, err)
		}
	}
}

// firstFailed is the first failed attempt of the task that failed the job, else the first one that failed at all.
func firstFailed(r *history.Record) string {
	j, f := r.Job, facts{maps: r.Maps, reduces: r.Reduces}
	if failed := f.failuresOf(j.Failure); len(failed) > 0 {
		return failed[0].Attempt
	}
	if j.Failure != nil && j.Failure.Attempt != "" {
		return j.Failure.Attempt
	}
	var (
		first string
		when  time.Time
	)
	for _, tasks := range [][]*state.Task{r.Maps, r.Reduces} {
		for _, t := range tasks {
			for _, e := range t.Ended {
				if e.State == "FAILED" && (first == "" || e.EndedAt.Before(when)) {
					first, when = e.Attempt, e.EndedAt
				}
			}
		}
	}
	return first
}

// nodeOfAttempt says which node ran an attempt. Of an attempt of this job that is in no record any
// more (only the newest are kept) the node is unknown: "".
func nodeOfAttempt(l *Leader, r *history.Record, attempt string) (node string, ok bool) {
	j := r.Job
	if !strings.HasPrefix(attempt, j.ID+"-") || strings.ContainsAny(attempt, "/\\") {
		return "", false
	}
	live, _ := l.Tracker.Live(j.ID)
	for _, a := range live.Attempts {
		if a.ID == attempt {
			return a.Node, true
		}
	}
	for _, tasks := range [][]*state.Task{r.Maps, r.Reduces} {
		for _, t := range tasks {
			if t.Win != nil && t.Win.Attempt == attempt {
				return t.Win.Node, true
			}
			for _, e := range t.Ended {
				if e.Attempt == attempt {
					return e.Node, true
				}
			}
		}
	}
	return "", true
}

func (s *Server) openLog(ctx context.Context, v *state.View, l *Leader, job, attempt, node string, follow bool) (io.ReadCloser, error) {
	silent := false // its node is there and knows of no log
	for _, n := range l.Sessions.Nodes() {
		if n.ID != node {
			continue
		}
		body, err := s.workers.open(ctx, n, job, attempt, follow)
		if err == nil {
			return body, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		silent = errors.Is(err, errNoLog)
	}
	store, _, err := s.siteStore(v)
	if err != nil {
		return nil, err
	}
	place, err := systemPlace(v)
	if err != nil {
		return nil, err
	}
	body, err := store.Get(ctx, place.Bucket, place.Key+logFolder+job+"/"+attempt+".log", 0, -1, "")
	if errors.Is(err, objectstore.ErrNotExist) && silent {
		return io.NopCloser(strings.NewReader("")), nil // it wrote nothing: only what is not empty is kept
	}
	if errors.Is(err, objectstore.ErrNotExist) {
		return nil, notFound("", "the log of attempt %s is gone: node %s is not connected and had not stored it", attempt, node)
	}
	if err != nil {
		return nil, fmt.Errorf("log of %s: %w", attempt, err)
	}
	return body, nil
}

// workerLogs fetches logs from workers, each verified to be the node it should be. It keeps no connections: what is
// read is read by people, and nodes come and go.
type workerLogs struct{ credential *security.Live }

func (w workerLogs) transport(node string) *http.Transport {
	dial := w.credential.Dialer(security.NodeName(node), nil)
	return &http.Transport{
		DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
			defer cancel()
			return dial(ctx, network, address)
		},
		ResponseHeaderTimeout: 10 * time.Second, DisableKeepAlives: true,
	}
}

func (w workerLogs) open(ctx context.Context, n session.Node, job, attempt string, follow bool) (io.ReadCloser, error) {
	body, err := w.get(ctx, n, followed(logsByPath+url.PathEscape(job)+"/"+url.PathEscape(attempt), follow))
	if err != nil && !errors.Is(err, errNoLog) {
		return nil, fmt.Errorf("log of %s: node %s: %w", attempt, n.ID, err)
	}
	return body, err
}
