package site

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"millrace/pkg/objectstore/faultproxy"
)

// store is a MinIO, behind one proxy that spoils requests and another that spoils connections.
type store struct {
	*node
	direct string // host:port of MinIO itself
	http   *faultproxy.Proxy
	tcp    *toxiproxy.Proxy
	mood   atomic.Pointer[mood]
}

// mood is what becomes of a request.
type mood func(faultproxy.Request) faultproxy.Fault

func openStore(c Config, host string) (*store, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &store{direct: l.Addr().String()}
	if err := l.Close(); err != nil {
		return nil, err
	}
	dir := filepath.Join(c.Dir, "store")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	s.node = &node{name: "store", disk: dir, log: filepath.Join(c.Dir, "logs", "store.log"), event: c.Event,
		argv: []string{c.MinIO, "server", "--quiet", "--address", s.direct, dir},
		env:  []string{"MINIO_ROOT_USER=" + accessKey, "MINIO_ROOT_PASSWORD=" + secretKey, "MINIO_BROWSER=off"}}
	s.calm()
	s.http, err = faultproxy.New("http://"+s.direct, func(r faultproxy.Request) faultproxy.Fault { return (*s.mood.Load())(r) })
	if err != nil {
		return nil, err
	}
	zerolog.SetGlobalLevel(zerolog.Disabled) // toxiproxy would log by itself
	s.tcp = toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), "store", host+":0", strings.TrimPrefix(s.http.URL, "http://"))
	if err := s.tcp.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("proxy of the store: %w", err), s.http.Close())
	}
	s.start()
	return s, nil
}

// url is where nodes and people find the store.
func (s *store) url() string { return "http://" + s.tcp.Listen }

func (s *store) calm() {
	s.feel(func(faultproxy.Request) faultproxy.Fault { return faultproxy.Fault{} })
}

func (s *store) feel(m mood) { s.mood.Store(&m) }

// wait waits until the store answers.
func (s *store) wait(ctx context.Context) error {
	return poll(ctx, func() error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.direct+"/minio/health/ready", nil)
		if err != nil {
			return err
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("the store says %s", answer.Status)
		}
		return nil
	})
}

func (s *store) close() error {
	s.calm()
	s.tcp.Stop()
	err := s.http.Close()
	s.node.stop()
	s.node.signal(syscall.SIGKILL)
	return errors.Join(err, s.node.wait())
}
