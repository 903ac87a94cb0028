package devcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"millrace/pkg/nodedir"
)

// ErrStore says that the cluster in the folder has its files in a store that was not named.
var ErrStore = errors.New("the cluster in this folder uses another object store")

// ErrMasters says that the cluster in the folder was made with more masters than are asked for now.
var ErrMasters = errors.New("the cluster in this folder has more masters")

// ErrInUse says that the folder belongs to a running cluster.
var ErrInUse = errors.New("another millrace dev runs in this folder")

// layoutFormat is the form of dev.json that this program knows.
const layoutFormat = 1

// layout is what must stay the same from one start to the next: the ports that
// nodes know each other by. It lies in DIR/dev.json.
type layout struct {
	Format int                       `json:"format"`
	Ports  map[string]map[string]int `json:"ports"` // by process and purpose
	// Store is the object store's URL if it is not the embedded one.
	Store string `json:"store,omitempty"`
	// Masters is how many there are; 0 = 1, as in folders of earlier versions.
	Masters int `json:"masters,omitempty"`

	path string
}

func loadLayout(dir string) (*layout, error) {
	l := &layout{Ports: map[string]map[string]int{}, path: filepath.Join(dir, "dev.json")}
	data, err := os.ReadFile(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, l); err != nil {
		return nil, fmt.Errorf("read %s: %w", l.path, err)
	}
	if l.Format > layoutFormat {
		return nil, fmt.Errorf("%s: %w: it has format %d, and this version knows format %d", l.path, nodedir.ErrNewer, l.Format, layoutFormat)
	}
	if l.Ports == nil {
		l.Ports = map[string]map[string]int{}
	}
	return l, nil
}

func (l *layout) save() error {
	l.Format = layoutFormat
	data, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(l.path, append(data, '\n'))
}

// address is where a process serves a purpose: chosen once, then kept. The folder is
// locked, so a port that is taken is another program's: then another is chosen, and the
// nodes tell each other.
func (l *layout) address(process, purpose string) (string, error) {
	if port := l.Ports[process][purpose]; port != 0 && isFree(loopback(port)) {
		return loopback(port), nil
	}
	port, err := freePort(l.taken())
	if err != nil {
		return "", err
	}
	if l.Ports[process] == nil {
		l.Ports[process] = map[string]int{}
	}
	l.Ports[process][purpose] = port
	return loopback(port), nil
}

func (l *layout) taken() map[int]bool {
	taken := map[int]bool{}
	for _, ports := range l.Ports {
		for _, p := range ports {
			taken[p] = true
		}
	}
	return taken
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// freePort finds a port that is free for TCP and UDP, below the range from which systems take the
// ports of outgoing connections: those come and go.
func freePort(taken map[int]bool) (int, error) {
	for range 1000 {
		port := 20000 + rand.IntN(12000)
		if !taken[port] && isFree(loopback(port)) {
			return port, nil
		}
	}
	return 0, errors.New("no free port between 20000 and 32000 on 127.0.0.1")
}

func isFree(address string) bool {
	t, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	defer t.Close()
	u, err := net.ListenPacket("udp", address)
	if err != nil {
		return false
	}
	u.Close()
	return true
}

// lock takes the folder for this cluster. The processes it starts hold it, too, so that
// the folder is free when the last of them has ended; wait bounds how long that may take.
func lock(ctx context.Context, dir string, wait time.Duration) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(wait)
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || ownerLives(f) || time.Now().After(deadline) {
			pid := nodedir.Signer(f)
			f.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				if pid != 0 {
					return nil, fmt.Errorf("%s: %w (pid %d)", dir, ErrInUse, pid)
				}
				return nil, fmt.Errorf("%s: %w", dir, ErrInUse)
			}
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		}
	}
	if err := nodedir.SignLock(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// ownerLives says whether the process that took the lock is still there: then waiting is of no use.
func ownerLives(f *os.File) bool {
	pid := nodedir.Signer(f)
	return pid > 1 && pid != os.Getpid() && syscall.Kill(pid, 0) == nil
}
