// Package audit owns a master's audit log: who changed what, and who was refused, a line of JSON each, in files that are
// bounded in size and number. What is worth a line is the server's to decide.
package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Event is one line of the log.
type Event struct {
	At        time.Time `json:"at"`
	User      string    `json:"user,omitempty"` // who called: a person, or
	Node      string    `json:"node,omitempty"` // a node; neither: somebody without a certificate
	Role      string    `json:"role,omitempty"` // admin, submit, read; worker, pool, master
	Peer      string    `json:"peer"`           // host:port that the call came from
	Procedure string    `json:"procedure"`
	Subject   string    `json:"subject,omitempty"` // what it is about
	Outcome   string    `json:"outcome"`           // ok, or why not
	Refused   bool      `json:"refused,omitempty"` // it was not the caller's to make
	Omitted   int       `json:"omitted,omitempty"` // refused calls before this one that have no line: they came too fast
}

const (
	name     = "audit.jsonl"
	maxText  = 4 << 10 // bytes of one field: what is longer is cut
	burst    = 50      // refused calls at once that all have a line
	perPause = 200 * time.Millisecond
)

// Config sets up a Log.
type Config struct {
	Dir       string          // made if it is not there, mode 0700
	FileBytes int64           // a file is put aside when it has so many; 0 = 8 MiB
	Files     int             // so many that were put aside are kept; 0 = 16
	Failed    func(err error) // told when a line could not be written, once until one could be again
}

// Log is the log of one master.
type Log struct {
	cfg Config

	mu      sync.Mutex
	file    *os.File
	size    int64
	failing bool
	tokens  int // of refused calls
	refill  time.Time
	omitted int
}

// Open makes the folder and goes on where the log was.
func Open(c Config) (*Log, error) {
	if c.FileBytes == 0 {
		c.FileBytes = 8 << 20
	}
	if c.Files == 0 {
		c.Files = 16
	}
	if c.Failed == nil {
		c.Failed = func(error) {}
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	l := &Log{cfg: c, tokens: burst}
	return l, l.open()
}

func (l *Log) open() (err error) {
	if l.file, err = os.OpenFile(l.path(name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	info, err := l.file.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("audit log: %w", err), l.file.Close())
	}
	l.size = info.Size()
	return nil
}

func (l *Log) path(name string) string { return filepath.Join(l.cfg.Dir, name) }

// Audit writes a line. A disk that takes none stops no call: Failed is told.
func (l *Log) Audit(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.Refused && !l.affords(&e) {
		return
	}
	err := l.write(e)
	if err != nil && !l.failing {
		l.cfg.Failed(err)
	}
	l.failing = err != nil
}

// affords keeps strangers from filling the log: refused calls have a line each as long as they are few.
func (l *Log) affords(e *Event) bool {
	if more := int(e.At.Sub(l.refill) / perPause); more > 0 {
		l.tokens, l.refill = min(burst, l.tokens+more), e.At
	}
	if l.tokens == 0 {
		l.omitted++
		return false
	}
	l.tokens--
	e.Omitted, l.omitted = l.omitted, 0
	return true
}

func (l *Log) write(e Event) error {
	for _, text := range []*string{&e.User, &e.Node, &e.Procedure, &e.Subject, &e.Outcome} {
		*text = cut(*text)
	}
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	line = append(line, '\n')
	if l.file == nil || l.size > 0 && l.size+int64(len(line)) > l.cfg.FileBytes {
		if err := l.rotate(e.At); err != nil {
			return err
		}
	}
	n, err := l.file.Write(line)
	l.size += int64(n)
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	return nil
}

// rotate puts the file aside, under the time, and removes the oldest of those.
func (l *Log) rotate(now time.Time) error {
	if l.file != nil {
		err := l.file.Close()
		l.file = nil
		if err != nil {
			return fmt.Errorf("audit log: %w", err)
		}
		aside := l.path("audit-" + now.UTC().Format("20060102T150405.000000000") + ".jsonl")
		if err := os.Rename(l.path(name), aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("audit log: %w", err)
		}
	}
	if err := l.open(); err != nil {
		return err
	}
	old, err := filepath.Glob(l.path("audit-*.jsonl"))
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	slices.Sort(old)
	for _, path := range old[:max(0, len(old)-l.cfg.Files)] {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("audit log: %w", err)
		}
	}
	return nil
}

// Close ends the log.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}

func cut(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "…"
}
