package attempt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
)

const (
	tailBytes     = 1 << 10
	defaultMaxLog = 16 << 20
)

// ErrNoLog says that an attempt has said nothing, or is not known here.
var ErrNoLog = errors.New("no log")

// Logs keeps the standard error of attempts: DIR/JOB/ATTEMPT.log, made when
// there is something to write. Safe for concurrent use.
type Logs struct {
	dir string
	max int64

	mu     sync.Mutex
	active map[string]*Log
}

// NewLogs keeps logs of at most max bytes (0: 16 MiB) below dir.
func NewLogs(dir string, max int64) *Logs {
	if max <= 0 {
		max = defaultMaxLog
	}
	return &Logs{dir: dir, max: max, active: map[string]*Log{}}
}

// Path is where the log of an attempt is, if there is one.
func (l *Logs) Path(job, attempt string) string {
	return filepath.Join(l.dir, job, attempt+".log")
}

// Active says whether the attempt is still writing.
func (l *Logs) Active(job, attempt string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.active[l.Path(job, attempt)] != nil
}

func (l *Logs) create(job, attempt string) *Log {
	g := &Log{logs: l, path: l.Path(job, attempt), changed: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active[g.path] = g
	return g
}

// Copy writes an attempt's log to w; with follow it goes on until the attempt or
// ctx ends. ErrNoLog if there is none.
func (l *Logs) Copy(ctx context.Context, w io.Writer, job, attempt string, follow bool) error {
	path := l.Path(job, attempt)
	var file *os.File
	defer func() {
		if file != nil {
			file.Close()
		}
	}()
	for {
		// The order matters: what comes after the copy wakes us.
		l.mu.Lock()
		g := l.active[path]
		l.mu.Unlock()
		var changed <-chan struct{}
		if g != nil {
			changed = g.change()
		}
		if file == nil {
			f, err := os.Open(path)
			switch {
			case err == nil:
				file = f
			case !errors.Is(err, os.ErrNotExist):
				return fmt.Errorf("log: %w", err)
			case g == nil || !follow:
				return fmt.Errorf("%w of attempt %s", ErrNoLog, attempt)
			}
		}
		if file != nil {
			if _, err := io.Copy(w, file); err != nil {
				return fmt.Errorf("log of attempt %s: %w", attempt, err)
			}
		}
		if g == nil || !follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// Log is one attempt's standard error. Writing never fails: what does not fit, or
// cannot be written, is dropped, and the log says so.
type Log struct {
	logs *Logs
	path string

	mu      sync.Mutex
	file    *os.File
	size    int64
	tail    []byte
	cut     bool
	closed  bool
	changed chan struct{} // closed and replaced at each change
}

// Write takes everything.
func (g *Log) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || len(p) == 0 {
		return len(p), nil
	}
	g.keep(p)
	if g.cut {
		return len(p), nil
	}
	n := int64(len(p))
	if room := g.logs.max - g.size; n > room {
		g.append(p[:room])
		g.append(fmt.Appendf(nil, "\n[millrace: the log is cut here, at %d bytes]\n", g.logs.max))
		g.cut = true
	} else {
		g.append(p)
	}
	close(g.changed)
	g.changed = make(chan struct{})
	return len(p), nil
}

func (g *Log) append(p []byte) {
	if g.cut {
		return
	}
	if g.file == nil {
		err := os.MkdirAll(filepath.Dir(g.path), 0o700)
		if err == nil {
			g.file, err = os.OpenFile(g.path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
		}
		if err != nil {
			g.cut = true
			return
		}
	}
	n, err := g.file.Write(p)
	g.size += int64(n)
	if err != nil { // a full disk, most likely: the attempt has other worries
		g.cut = true
	}
}

func (g *Log) keep(p []byte) {
	if len(p) >= tailBytes {
		g.tail = append(g.tail[:0], p[len(p)-tailBytes:]...)
		return
	}
	if over := len(g.tail) + len(p) - tailBytes; over > 0 {
		g.tail = append(g.tail[:0], g.tail[over:]...)
	}
	g.tail = append(g.tail, p...)
}

// Tail is the last of it, at most 1 KiB.
func (g *Log) Tail() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return validTail(g.tail)
}

// Size is the number of bytes in the file; 0 if there is none.
func (g *Log) Size() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.size
}

// Close ends the log and those who follow it. Idempotent.
func (g *Log) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil
	}
	g.closed = true
	g.logs.mu.Lock()
	if g.logs.active[g.path] == g {
		delete(g.logs.active, g.path)
	}
	g.logs.mu.Unlock()
	close(g.changed)
	if g.file == nil {
		return nil
	}
	if err := g.file.Close(); err != nil {
		return fmt.Errorf("log: %w", err)
	}
	return nil
}

// change is closed at the next change.
func (g *Log) change() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}
