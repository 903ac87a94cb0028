package devcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"millrace/pkg/nodedir"
	"millrace/pkg/ports"
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

	path     string
	reserved ports.Reserved // for as long as this program runs
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
		return nil, fmt.Errorf("read %s: %w; it holds the ports and the number of masters: put back a copy, or begin in another folder (--dir)", l.path, err)
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

// workers are the numbers of the workers of each role that the folder has; empty if it never had any.
func (l *layout) workers() map[string][]int {
	had := map[string][]int{}
	for name := range l.Ports {
		role, number, _ := strings.Cut(name, "-")
		if n, err := strconv.Atoi(number); err == nil && n > 0 && slices.Contains(workerRoles, role) {
			had[role] = append(had[role], n)
		}
	}
	for _, numbers := range had {
		slices.Sort(numbers)
	}
	return had
}

// address is where a process serves a purpose: chosen once, then kept. The folder is
// locked, so a port that is taken, or reserved, is another program's: then another is chosen, and
// the nodes tell each other.
func (l *layout) address(process, purpose string) (string, error) {
	if port := l.Ports[process][purpose]; l.reserved.Reserve(port) {
		return ports.Address(port), nil
	}
	port, err := l.takePort()
	if err != nil {
		return "", err
	}
	if l.Ports[process] == nil {
		l.Ports[process] = map[string]int{}
	}
	l.Ports[process][purpose] = port
	return ports.Address(port), nil
}

// takePort reserves one that no process of the folder has, running or not.
func (l *layout) takePort() (int, error) {
	for {
		port, err := l.reserved.Take(20000, 32000)
		if err != nil || !l.has(port) {
			return port, err
		}
	}
}

func (l *layout) has(port int) bool {
	for _, byPurpose := range l.Ports {
		for _, p := range byPurpose {
			if p == port {
				return true
			}
		}
	}
	return false
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
