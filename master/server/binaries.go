package server

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"millrace/master/state"
	"millrace/pkg/api"
)

// BinariesPath is below which masters hand out the program itself: /v1/binaries/linux-amd64. Who asks shows a join
// token, or rather the SHA-256 of its secret in hex, as the bearer: the machine that asks cannot check yet whom it speaks to, and the hash is
// good for nothing else.
const BinariesPath = "/v1/binaries/"

// ownExecutable is this process's program, also when another has taken its place on the disk.
const ownExecutable = "/proc/self/exe"

var binaryName = regexp.MustCompile(`^(linux)-([a-z0-9]+)$`)

// binaries are the programs that a master hands out: its own, and those that were put into a folder for machines of another kind.
type binaries struct {
	own, dir, version string

	mu     sync.Mutex
	hashed map[string]hashedFile // by path
}

// hashedFile is what a file's hash was when it had that size and time.
type hashedFile struct {
	size    int64
	changed time.Time
	sum     string
}

func newBinaries(own, dir, version string) *binaries {
	if own == "" {
		own = ownExecutable
	}
	return &binaries{own: own, dir: dir, version: version, hashed: map[string]hashedFile{}}
}

// path is where a program lies.
func (b *binaries) path(name string) string {
	if name == runtime.GOOS+"-"+runtime.GOARCH {
		return b.own
	}
	return filepath.Join(b.dir, name)
}

// BinarySums are the SHA-256 in hex of the programs for Linux that this master hands out, by architecture as Go calls it.
func (s *Server) BinarySums() (map[string]string, error) {
	all, err := s.binaries.list()
	if err != nil {
		return nil, err
	}
	sums := map[string]string{}
	for _, b := range all {
		sums[b.Arch] = b.Sha256
	}
	return sums, nil
}

// list describes all programs, this master's own first.
func (b *binaries) list() ([]*api.Binary, error) {
	names := []string{runtime.GOOS + "-" + runtime.GOARCH}
	entries, err := os.ReadDir(b.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list binaries: %w", err)
	}
	for _, e := range entries {
		if binaryName.MatchString(e.Name()) && e.Type().IsRegular() && !slices.Contains(names, e.Name()) {
			names = append(names, e.Name())
		}
	}
	var out []*api.Binary
	for i, name := range names {
		f, size, sum, err := b.open(name)
		if err != nil {
			return nil, err
		}
		f.Close()
		parts := binaryName.FindStringSubmatch(name)
		one := &api.Binary{Os: parts[1], Arch: parts[2], Sha256: sum, Size: size}
		if i == 0 {
			one.Version = b.version
		}
		out = append(out, one)
	}
	return out, nil
}

// open opens a program and says its size and its SHA-256 in hex.
func (b *binaries) open(name string) (f *os.File, size int64, sum string, err error) {
	path := b.path(name)
	if f, err = os.Open(path); err != nil {
		return nil, 0, "", fmt.Errorf("binary %s: %w", name, err)
	}
	info, err := f.Stat()
	if err == nil {
		size = info.Size()
		sum, err = b.hash(path, f, info)
	}
	if err != nil {
		return nil, 0, "", errors.Join(fmt.Errorf("binary %s: %w", name, err), f.Close())
	}
	return f, size, sum, nil
}

// hash reads a file once for as long as it stays the same.
func (b *binaries) hash(path string, f *os.File, info fs.FileInfo) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if known, ok := b.hashed[path]; ok && known.size == info.Size() && known.changed.Equal(info.ModTime()) {
		return known.sum, nil
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	text := hex.EncodeToString(sum.Sum(nil))
	b.hashed[path] = hashedFile{info.Size(), info.ModTime(), text}
	return text, nil
}

// serveBinary answers GET /v1/binaries/OS-ARCH. Every master does, whether it leads or not.
func (s *Server) serveBinary(w http.ResponseWriter, r *http.Request) {
	if !bearsToken(s.cfg.View(), r.Header.Get("Authorization"), s.cfg.Now()) {
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, "a join token that is still good is needed: the SHA-256 of its secret, in hex, as the bearer", http.StatusUnauthorized)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	name := strings.TrimPrefix(r.URL.Path, BinariesPath)
	if !binaryName.MatchString(name) {
		http.Error(w, "a binary's name is like linux-amd64", http.StatusNotFound)
		return
	}
	f, _, sum, err := s.binaries.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		http.Error(w, "this master has no binary for "+name+": put one into "+s.binaries.path(name), http.StatusNotFound)
		return
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", `"`+sum+`"`)
	http.ServeContent(w, r, "", time.Time{}, f)
}

// bearsToken says whether a header shows a token that nodes can join with at that time.
func bearsToken(v *state.View, header string, now time.Time) bool {
	value, is := strings.CutPrefix(header, "Bearer ")
	hash, err := hex.DecodeString(strings.TrimSpace(value))
	if !is || err != nil || len(hash) != sha256.Size {
		return false
	}
	good := false
	for _, t := range v.Tokens() { // all of them, always
		if subtle.ConstantTimeCompare(t.SecretHash, hash) == 1 && tokenFault(t, now) == nil {
			good = true
		}
	}
	return good
}

// ListBinaries is what a machine's first script needs to know of them.
func (s *millraceService) ListBinaries(ctx context.Context, _ *connect.Request[api.ListBinariesRequest]) (*connect.Response[api.ListBinariesResponse], error) {
	v, _, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	site, ok := v.Site()
	if !ok {
		return nil, errNoLeader
	}
	list, err := s.binaries.list()
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.ListBinariesResponse{Binaries: list, CaPem: []byte(site.CAPEM)}), nil
}
