package worker

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	"millrace/pkg/api"
	"millrace/worker/bootstrap"
	"millrace/worker/command"
)

const (
	execLimit  = 10 * time.Minute // of a program, if nobody says otherwise
	maxExec    = 2 << 20          // bytes of a request
	execPrefix = "/v1/node/"
)

// LogTail has the last of what this process has logged; *logtail.Tail is one.
type LogTail interface {
	Copy(ctx context.Context, w io.Writer, follow bool) error
}

// ownPort is what the masters ask of the node itself, for people:
//
//	GET  /v1/node/log?follow=1            the last of what it has logged
//	GET  /v1/node/bootstrap-log?follow=1  what its bootstrap actions have said
//	POST /v1/node/exec                    runs a program: an ExecNodeRequest; delimited ExecNodeResponses
type ownPort struct {
	tail    LogTail // nil: there is none
	actions *bootstrap.Runner
	environ func() []string
	log     *zap.Logger
	running gate // of programs: none outlives the node's life here
}

func (p *ownPort) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+execPrefix+"log", func(w http.ResponseWriter, r *http.Request) {
		if p.tail == nil {
			http.Error(w, "this node keeps no log in memory", http.StatusNotFound)
			return
		}
		p.copy(w, r, p.tail.Copy)
	})
	mux.HandleFunc("GET "+execPrefix+"bootstrap-log", func(w http.ResponseWriter, r *http.Request) { p.copy(w, r, p.actions.Copy) })
	mux.Handle("POST "+execPrefix+"exec", p.running.through(http.HandlerFunc(p.exec)))
	return mux
}

// copy answers with a log; with follow=1 with what comes, too.
func (p *ownPort) copy(w http.ResponseWriter, r *http.Request, from func(context.Context, io.Writer, bool) error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	out := &flushing{w: w, rc: http.NewResponseController(w)}
	switch err := from(r.Context(), out, r.FormValue("follow") == "1"); {
	case errors.Is(err, bootstrap.ErrNone):
		http.Error(w, err.Error(), http.StatusNotFound)
	case err != nil && r.Context().Err() == nil:
		p.log.Debug("serve a log", zap.Error(err))
	}
}

// exec runs a program for as long as the caller is there.
func (p *ownPort) exec(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxExec))
	q := &api.ExecNodeRequest{}
	if err == nil {
		err = proto.Unmarshal(body, q)
	}
	if err != nil || len(q.Command) == 0 {
		http.Error(w, "no program to run", http.StatusBadRequest)
		return
	}
	p.log.Info("runs a program for an administrator", zap.String("program", q.Command[0]))
	rc := http.NewResponseController(w)
	if rc.Flush() != nil { // it may be long until the program says anything
		return
	}
	out := &frames{to: &flushing{w: w, rc: rc}}
	c := command.Command{Path: q.Command[0], Args: q.Command[1:], Dir: "/", Env: command.Environ(p.environ()...), Limit: execLimit,
		Stdout: frame{out, false}, Stderr: frame{out, true}}
	if len(q.Stdin) > 0 {
		c.Stdin = q.Stdin
	}
	if q.TimeoutMs > 0 {
		c.Limit = time.Duration(q.TimeoutMs) * time.Millisecond
	}
	end := command.Run(r.Context(), c)
	last := &api.ExecEnd{ExitCode: int32(end.Code), Signal: end.Signal}
	if end.Err != nil {
		last.Error = end.Err.Error()
	}
	if err := out.send(&api.ExecNodeResponse{Piece: &api.ExecNodeResponse_End{End: last}}); err != nil && r.Context().Err() == nil {
		p.log.Debug("answer", zap.Error(err))
	}
}

// frames sends the pieces of a program's output, one at a time.
type frames struct {
	mu sync.Mutex
	to io.Writer
}

func (f *frames) send(m *api.ExecNodeResponse) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := protodelim.MarshalTo(f.to, m)
	return err
}

// frame is one of the two outputs.
type frame struct {
	*frames
	stderr bool
}

func (f frame) Write(p []byte) (int, error) {
	m := &api.ExecNodeResponse{Piece: &api.ExecNodeResponse_Stdout{Stdout: p}}
	if f.stderr {
		m.Piece = &api.ExecNodeResponse_Stderr{Stderr: p}
	}
	if err := f.send(m); err != nil {
		return 0, err
	}
	return len(p), nil
}
