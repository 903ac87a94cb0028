package worker

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"millrace/pkg/security"
	"millrace/worker/attempt"
	"millrace/worker/shuffle"
)

const closeWithin = time.Second

// server is the node's HTTPS port. Whoever speaks to it is a node of the site: TLS and
// authorize see to that.
type server struct {
	http   *http.Server
	config atomic.Pointer[tls.Config]
}

func newServer(c security.Credential, site string, segments *shuffle.Server, logs *attempt.Logs, log *zap.Logger) (*server, error) {
	s := &server{}
	if err := s.renew(c); err != nil {
		return nil, err
	}
	nodes := http.NewServeMux()
	segments.Register(nodes)
	mux := http.NewServeMux()
	mux.Handle("/", authorize(nodes, site, security.RoleWorker, security.RoleMaster))
	mux.Handle("GET /v1/logs/{job}/{attempt}", authorize(serveLog(logs, log), site, security.RoleMaster))
	mux.Handle("GET /v1/health", authorize(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), site, security.RoleWorker, security.RoleMaster))
	s.http = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: zap.NewStdLog(log.Named("https").WithOptions(zap.IncreaseLevel(zap.ErrorLevel)))}
	return s, nil
}

// renew serves further connections with another certificate.
func (s *server) renew(c security.Credential) error {
	config, err := c.ServerTLS(true)
	if err != nil {
		return err
	}
	s.config.Store(config)
	return nil
}

// serve answers until ctx ends.
func (s *server) serve(ctx context.Context, l net.Listener) error {
	first := s.config.Load().Clone()
	first.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.config.Load(), nil }
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		patience, cancel := context.WithTimeout(context.Background(), closeWithin)
		defer cancel()
		if s.http.Shutdown(patience) != nil {
			s.http.Close()
		}
	})
	err := s.http.Serve(tls.NewListener(l, first))
	if !stop() {
		<-ended
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// authorize lets only peers of the site with one of the roles through.
func authorize(h http.Handler, site string, roles ...security.Role) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil {
			if id, ok := security.PeerIdentity(r.TLS); ok && id.Site == site {
				for _, role := range roles {
					if id.Role == role {
						h.ServeHTTP(w, r)
						return
					}
				}
			}
		}
		http.Error(w, "this port is for the site's own nodes", http.StatusForbidden)
	})
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
