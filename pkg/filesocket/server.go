package filesocket

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"millrace/pkg/objectstore"
)

// Server is a worker's end.
type Server struct {
	store Store
	http  *http.Server
	name  string
	done  chan struct{}

	mu      sync.Mutex
	allowed map[upload]struct{}
	below   map[*folder]struct{}
}

type upload struct{ bucket, key, id string }

// folder is a prefix below which files may be written.
type folder struct{ bucket, prefix string }

// Listen serves a store, to processes of one user alone (os.Geteuid: this process's own), until it is closed.
func Listen(store Store, user int) (*Server, error) {
	s := &Server{store: store, name: "@millrace-files-" + rand.Text(), done: make(chan struct{}), allowed: map[upload]struct{}{}, below: map[*folder]struct{}{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+filePath, s.get)
	mux.HandleFunc("HEAD "+filePath, s.head)
	mux.HandleFunc("PUT "+filePath, s.put)
	mux.HandleFunc("PUT "+partPath, s.part)
	mux.HandleFunc("POST "+sealPath, s.seal)
	s.http = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.name, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("serve files to attempts: %w", err)
	}
	go func() {
		defer close(s.done)
		_ = s.http.Serve(processesOf{l, uint32(user)}) // ends with Close alone
	}()
	return s, nil
}

// Close ends the serving, requests under way included.
func (s *Server) Close() error {
	err := s.http.Close()
	<-s.done
	return err
}

// Name is what a Client finds the socket by.
func (s *Server) Name() string { return s.name }

// processesOf lets in whom a socket of the user's with mode 0600 would: his own processes.
type processesOf struct {
	*net.UnixListener
	user uint32
}

func (l processesOf) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if user, err := userOf(conn); err == nil && user == l.user {
			return conn, nil
		}
		conn.Close()
	}
}

// userOf is whose process is at the other end.
func userOf(conn *net.UnixConn) (uint32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var who *unix.Ucred
	var refused error
	err = raw.Control(func(fd uintptr) { who, refused = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, refused); err != nil {
		return 0, err
	}
	return who.Uid, nil
}

// Allow lets an upload be written and sealed until it is revoked.
func (s *Server) Allow(bucket, key, id string) (revoke func()) {
	u := upload{bucket, key, id}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allowed[u] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.allowed, u)
	}
}

func (s *Server) allows(u upload) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.allowed[u]; ok {
		return nil
	}
	return denied(u.bucket, u.key, "no attempt that runs on this node has this upload")
}

func denied(bucket, key, why string) error {
	return &objectstore.Error{Op: "write", URL: objectstore.URL{Bucket: bucket, Key: key}.String(), Kind: objectstore.ErrDenied, Err: errors.New(why)}
}

const copyBuffer = 256 << 10

var buffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}

func (s *Server) get(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	offset, err := number(q, "offset")
	length, err2 := number(q, "length")
	if err := errors.Join(err, err2); err != nil {
		refuse(w, "get", fmt.Errorf("%w: %w", objectstore.ErrInvalid, err))
		return
	}
	body, err := s.store.Get(r.Context(), q.Get("bucket"), q.Get("key"), offset, length, q.Get("etag"))
	if err != nil {
		refuse(w, "get", err)
		return
	}
	defer body.Close()
	w.Header().Set("Trailer", trouble)
	w.Header().Set("Content-Type", "application/octet-stream")
	w.WriteHeader(http.StatusOK)
	buf := buffers.Get().(*[copyBuffer]byte)
	defer buffers.Put(buf)
	for {
		n := 0
		for err = nil; n < len(buf) && err == nil; {
			var more int
			more, err = body.Read(buf[n:])
			n += more
		}
		if _, gone := w.Write(buf[:n]); gone != nil {
			return // who has asked
		}
		switch {
		case errors.Is(err, io.EOF):
			w.Header().Set(trouble, whole)
			return
		case err != nil:
			w.Header().Set(trouble, problemOf("get", err).header())
			return
		}
	}
}

func (s *Server) part(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	u := upload{q.Get("bucket"), q.Get("key"), q.Get("upload")}
	n, err := number(q, "number")
	if err == nil && (r.ContentLength < 0 || r.ContentLength > maxPart) {
		err = fmt.Errorf("a part of %d bytes", r.ContentLength)
	}
	if err != nil {
		refuse(w, "upload part", fmt.Errorf("%w: %w", objectstore.ErrInvalid, err))
		return
	}
	if err := s.allows(u); err != nil {
		refuse(w, "upload part", err)
		return
	}
	data := make([]byte, r.ContentLength) // not used again: the store may keep it until it is safe
	if _, err := io.ReadFull(r.Body, data); err != nil {
		return // who sent it has gone
	}
	part, err := s.store.UploadPart(r.Context(), u.bucket, u.key, u.id, int(n), data)
	answer(w, "upload part", part, err)
}

func (s *Server) seal(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	u := upload{q.Get("bucket"), q.Get("key"), q.Get("upload")}
	err := s.allows(u)
	if err == nil {
		err = s.store.SealUpload(r.Context(), u.bucket, u.key, u.id)
	}
	answer(w, "seal upload", struct{}{}, err)
}

func answer(w http.ResponseWriter, op string, v any, err error) {
	if err != nil {
		refuse(w, op, err)
		return
	}
	_ = json.NewEncoder(w).Encode(v) // if it fails, who has asked is gone
}

func refuse(w http.ResponseWriter, op string, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusUnprocessableEntity)
	_ = json.NewEncoder(w).Encode(problemOf(op, err))
}
