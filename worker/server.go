package worker

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"

	"millrace/hdfs/wire"
	"millrace/pkg/connlimit"
	"millrace/pkg/security"
	"millrace/worker/attempt"
	"millrace/worker/shuffle"
)

const closeWithin = time.Second

// server is the node's HTTPS port. Whoever speaks to it has a certificate of the site: TLS sees to that; and may have what is asked
// for: peers says so.
type server struct {
	http   *http.Server
	config *tls.Config
	gate   gate // closed before what requests read and write has another owner
}

func newServer(c *security.Live, site string, peers *peers, segments *shuffle.Server, blocks *blocks, logs *attempt.Logs, own *ownPort, log *zap.Logger) (*server, error) {
	config, err := c.ServerTLS(true, nil)
	if err != nil {
		return nil, err
	}
	s := &server{config: config}
	mux := guarded{http.NewServeMux(), peers, site}
	nodes, stored := http.NewServeMux(), http.NewServeMux()
	segments.Register(nodes)
	blocks.register(stored)
	mux.handle("/v1/shuffle/", nodes)
	mux.handle("/v1/segments/", nodes)
	mux.handle(wire.PipelinePath, stored)
	mux.handle(wire.BlocksPath, stored)
	logged := http.NewServeMux()
	logged.Handle("GET /v1/logs/{job}/{attempt}", serveLog(logs, log))
	mux.handle("/v1/logs/", logged)
	mux.handle(execPrefix, own.handler())
	mux.handle("/v1/health", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.http = &http.Server{Handler: s.gate.through(mux), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: zap.NewStdLog(log.Named("https").WithOptions(zap.IncreaseLevel(zap.ErrorLevel)))}
	return s, nil
}

// gate counts who is inside, and lets nobody in any more once it is closed.
type gate struct {
	inside sync.RWMutex // held for reading by each
	closed bool
}

// through answers requests until the gate is closed.
func (g *gate) through(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.inside.RLock()
		defer g.inside.RUnlock()
		if g.closed {
			http.Error(w, "the node ends what it does here", http.StatusServiceUnavailable)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// close waits for those who are inside.
func (g *gate) close() {
	g.inside.Lock()
	defer g.inside.Unlock()
	g.closed = true
}

// serve answers until ctx ends.
func (s *server) serve(ctx context.Context, l net.Listener) error {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		patience, cancel := context.WithTimeout(context.Background(), closeWithin)
		defer cancel()
		if s.http.Shutdown(patience) != nil {
			s.http.Close()
		}
	})
	err := s.http.Serve(tls.NewListener(connlimit.New(l, connlimit.Total, connlimit.PerHost), s.config))
	if !stop() {
		<-ended
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// serveLog streams an attempt's standard error; with follow=1 until it ends.
func serveLog(logs *attempt.Logs, log *zap.Logger) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		job, name := r.PathValue("job"), r.PathValue("attempt")
		if !shuffle.ValidName(job) || !shuffle.ValidName(name) {
			http.Error(w, "no such log", http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		out := &flushing{w: w, rc: http.NewResponseController(w)}
		follow, begun := r.FormValue("follow") == "1", false
		if begun = follow && logs.Active(job, name); begun {
			// Say at once that this is the place: it may be long until there is a line.
			w.WriteHeader(http.StatusOK)
			if err := out.rc.Flush(); err != nil {
				return
			}
		}
		err := logs.Copy(r.Context(), out, job, name, follow)
		switch {
		case errors.Is(err, attempt.ErrNoLog) && !begun:
			http.Error(w, err.Error(), http.StatusNotFound)
		case err != nil && r.Context().Err() == nil:
			log.Debug("serve a log", zap.String("attempt", name), zap.Error(err))
		}
	}
}

// flushing sends every piece on at once.
type flushing struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func (f *flushing) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err == nil {
		err = f.rc.Flush()
	}
	return n, err
}
