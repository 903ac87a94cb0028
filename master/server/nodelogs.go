package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"connectrpc.com/connect"

	"millrace/master/session"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// NodeLogPath is where a master gives the last of its own log, to other masters.
const NodeLogPath = "/v1/node/log"

// bootstrapLogPath is where a worker gives what its bootstrap actions have said.
const bootstrapLogPath = "/v1/node/bootstrap-log"

// bootstrapFolder is below the system prefix: CLUSTER/NODE/N-NAME.log.
const bootstrapFolder = "bootstrap/"

// LogTail has the last of what this process has logged.
type LogTail interface {
	Copy(ctx context.Context, w io.Writer, follow bool) error
}

// ownLog gives it to another master.
func (s *Server) ownLog(w http.ResponseWriter, r *http.Request) {
	if s.cfg.LogTail == nil {
		http.Error(w, "this master keeps no log in memory", http.StatusNotFound)
		return
	}
	ctx, stop := s.whileOpen(r.Context())
	defer stop()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	out := &flushing{w, http.NewResponseController(w)}
	if _, err := out.Write(nil); err == nil { // it may be long until there is a line
		_ = s.cfg.LogTail.Copy(ctx, out, r.FormValue("follow") == "1") // the reader is gone if it fails
	}
}

// flushing sends every piece on at once.
type flushing struct {
	http.ResponseWriter
	rc *http.ResponseController
}

func (f *flushing) Write(p []byte) (int, error) {
	n, err := f.ResponseWriter.Write(p)
	if err == nil {
		err = f.rc.Flush()
	}
	return n, err
}

// whileOpen ends a context when this master closes: what goes on for long must not hold that up.
func (s *Server) whileOpen(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-s.closed:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// NodeLogs streams the last of what a node says of itself, or the output of its bootstrap actions: from the node while
// it has a session, else what was stored.
func (s *millraceService) NodeLogs(ctx context.Context, req *connect.Request[api.NodeLogsRequest], stream *connect.ServerStream[api.NodeLogsResponse]) error {
	ctx, stop := s.whileOpen(ctx)
	defer stop()
	v, l, n, err := s.namedNode(ctx, req.Msg.Node)
	if err != nil {
		return err
	}
	out := logPieces{stream}
	if n.ID == s.cfg.NodeID && !req.Msg.Bootstrap && s.cfg.LogTail != nil {
		return s.cfg.LogTail.Copy(ctx, out, req.Msg.Follow)
	}
	switch {
	case n.Role == state.RoleMaster && req.Msg.Bootstrap:
		return usage("millrace node logs "+called(n), fmt.Sprintf("node %s is a master: it runs no bootstrap actions", called(n)))
	case n.Role == state.RoleMaster:
		return s.masterLog(ctx, n, req.Msg.Follow, out)
	case req.Msg.Bootstrap:
		return s.bootstrapLog(ctx, v, l, n, req.Msg.Follow, out)
	}
	return s.workerLog(ctx, l, n, req.Msg.Follow, out)
}

// logPieces sends what is written.
type logPieces struct {
	stream *connect.ServerStream[api.NodeLogsResponse]
}

func (l logPieces) Write(p []byte) (int, error) {
	if err := l.stream.Send(&api.NodeLogsResponse{Data: p}); err != nil {
		return 0, err
	}
	return len(p), nil
}

// namedNode finds a node, a master too, once this leader has heard of those that are up.
func (s *Server) namedNode(ctx context.Context, ref string) (*state.View, *Leader, *state.Node, error) {
	v, l, err := s.read(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	n, err := findNode(v, ref)
	if err != nil {
		return nil, nil, nil, err
	}
	if _, up := sessionOf(l, n.ID); !up && n.Role != state.RoleMaster && n.State != state.NodeTerminated {
		s.awaitNodes(ctx, v, l, n.Cluster)
	}
	return v, l, n, nil
}

// followed is the path of a log, with what comes if that is wanted.
func followed(path string, follow bool) string {
	if follow {
		return path + "?follow=1"
	}
	return path
}

// onMachine is where to look when the node itself gives no log.
func onMachine(n *state.Node) string {
	unit := "millrace-worker"
	if n.Role == state.RoleMaster {
		unit = "millrace-master"
	}
	return "look on its machine: journalctl -u " + unit
}

func (s *Server) masterLog(ctx context.Context, n *state.Node, follow bool, out io.Writer) error {
	if n.ID == s.cfg.NodeID {
		return failure(onMachine(n), "master %s keeps no log in memory", called(n))
	}
	body, err := fetch(ctx, s.forward.transport, n.Address+followed(NodeLogPath, follow))
	if err != nil {
		return failure(onMachine(n), "the log of master %s cannot be read from here: %s", called(n), err)
	}
	return relay(ctx, out, body, n)
}

func (s *Server) workerLog(ctx context.Context, l *Leader, n *state.Node, follow bool, out io.Writer) error {
	sess, up := sessionOf(l, n.ID)
	switch {
	case n.State == state.NodeTerminated:
		return failure(onMachine(n), "node %s was removed from the site: its own log cannot be read from here", called(n))
	case !up:
		return failure(onMachine(n), "node %s is lost: its own log cannot be read from here", called(n))
	}
	body, err := s.workers.get(ctx, sess, followed(NodeLogPath, follow))
	switch {
	case errors.Is(err, errNoLog):
		return failure(onMachine(n), "node %s keeps no log in memory", called(n))
	case err != nil:
		return err
	}
	return relay(ctx, out, body, n)
}

// relay copies a log, to its end or the caller's.
func relay(ctx context.Context, out io.Writer, body io.ReadCloser, n *state.Node) error {
	defer body.Close()
	_, err := io.CopyBuffer(out, body, make([]byte, logChunk))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("log of node %s: %w", called(n), err)
	}
	return nil
}

// bootstrapLog is what a node's actions have said: all of it from the node, else that of those that have ended.
func (s *Server) bootstrapLog(ctx context.Context, v *state.View, l *Leader, n *state.Node, follow bool, out io.Writer) error {
	if sess, up := sessionOf(l, n.ID); up {
		body, err := s.workers.get(ctx, sess, followed(bootstrapLogPath, follow))
		if err == nil {
			return relay(ctx, out, body, n)
		}
		if !errors.Is(err, errNoLog) {
			return err
		}
	}
	if n.Cluster == "" {
		return failure("millrace node list", "node %s is free, in the site's pool: what it had of a cluster is deleted", called(n))
	}
	store, _, err := s.siteStore(v)
	if err != nil {
		return err
	}
	place, err := systemPlace(v)
	if err != nil {
		return err
	}
	prefix := place.Key + bootstrapFolder + n.Cluster + "/" + n.ID + "/"
	var keys []string
	for o, err := range store.List(ctx, place.Bucket, prefix, objectstore.ListOptions{}) {
		if err != nil {
			return fmt.Errorf("output of the bootstrap actions of %s: %w", called(n), err)
		}
		keys = append(keys, o.Key)
	}
	if len(keys) == 0 {
		return failure("", "no bootstrap action has run on node %s", called(n))
	}
	slices.SortFunc(keys, func(a, b string) int { return cmp.Compare(numbered(a[len(prefix):]), numbered(b[len(prefix):])) })
	for _, key := range keys {
		body, err := store.Get(ctx, place.Bucket, key, 0, -1, "")
		if err != nil {
			return fmt.Errorf("output of the bootstrap actions of %s: %w", called(n), err)
		}
		if err := relay(ctx, out, body, n); err != nil {
			return err
		}
	}
	return nil
}

// numbered is the number that a name begins with, N-NAME.
func numbered(name string) int {
	digits, _, _ := strings.Cut(name, "-")
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0
	}
	return n
}

// fetch gets a log from a node's own port; errNoLog if that has none.
func fetch(ctx context.Context, t *http.Transport, url string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return nil, errNoLog
	}
	return nil, fmt.Errorf("%s answers %s", req.URL.Host, resp.Status)
}

// get gets a log from a worker.
func (w workerLogs) get(ctx context.Context, n session.Node, path string) (io.ReadCloser, error) {
	return fetch(ctx, w.transport(n.ID), strings.TrimSuffix(n.Address, "/")+path)
}
