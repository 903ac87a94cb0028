package bootstrap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	tailBytes  = 1 << 10 // of an output, in the reason
	tailLines  = 8
	keepWithin = 15 * time.Second
	logSuffix  = ".log"
)

// output is what an action says, DIR/N-NAME.log: its beginning as it comes, and its end, when it has ended. Writing never fails: what
// the disk does not take is left out.
type output struct {
	path string
	half int // bytes of the beginning, and of the end

	mu      sync.Mutex
	file    *os.File // nil once it is whole
	written int64    // bytes in the file
	failed  error    // of the disk
	rest    []byte   // after the beginning, the last of it
	left    int64    // bytes left out
	last    []byte
	changed chan struct{} // closed and replaced at each change
}

// output begins the output of an action.
func (r *Runner) output(i, of int, a Action) (*output, error) {
	path := r.path(fmt.Sprintf("%d-%s%s", i+1, fileName(a.Name), logSuffix))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	o := &output{path: path, half: r.maxOutput / 2, file: f, changed: make(chan struct{})}
	o.append(fmt.Appendf(nil, "[bootstrap action %d of %d: %s]\n", i+1, of, a.Name))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outputs = append(r.outputs, o)
	close(r.changed)
	r.changed = make(chan struct{})
	return o, nil
}

// findOutputs lists those that a former life has written, in order.
func findOutputs(dir string) (list []*output, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	number := func(path string) int {
		n, _, _ := strings.Cut(filepath.Base(path), "-")
		i, err := strconv.Atoi(n)
		if err != nil {
			return 0
		}
		return i
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && strings.HasSuffix(e.Name(), logSuffix) && number(e.Name()) > 0 {
			list = append(list, &output{path: filepath.Join(dir, e.Name()), written: info.Size(), changed: make(chan struct{})})
		}
	}
	slices.SortFunc(list, func(a, b *output) int { return number(a.path) - number(b.path) })
	return list, nil
}

// Write takes everything.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = lastOf(append(o.last, p...), tailBytes)
	n := max(0, min(len(p), o.half-int(o.written)))
	o.append(p[:n])
	if n < len(p) {
		o.rest = append(o.rest, p[n:]...)
		if len(o.rest) > 2*o.half {
			o.trim()
		}
	}
	o.wake()
	return len(p), nil
}

// trim leaves the end of the rest. Called with mu held.
func (o *output) trim() {
	over := max(0, len(o.rest)-o.half)
	o.left += int64(over)
	o.rest = append(o.rest[:0], o.rest[over:]...)
}

// append writes to the file. Called with mu held.
func (o *output) append(p []byte) {
	if o.failed != nil || o.file == nil || len(p) == 0 {
		return
	}
	n, err := o.file.Write(p)
	o.written += int64(n)
	o.failed = err
}

func (o *output) wake() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// close adds the end of it, and a note of ours.
func (o *output) close(note string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.trim()
	if o.left > 0 {
		o.append(fmt.Appendf(nil, "\n[%d bytes are left out here]\n", o.left))
	}
	o.append(o.rest)
	o.rest = nil
	if note != "" {
		if len(o.last) > 0 && o.last[len(o.last)-1] != '\n' {
			note = "\n[" + note
		} else {
			note = "[" + note
		}
		o.append([]byte(note + "]\n"))
	}
	err := errors.Join(o.failed, o.file.Close())
	o.file = nil
	o.wake()
	return err
}

func (o *output) size() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.written
}

// tail is the last lines of it, in one, as it goes where a line is all there is: lists, logs, events.
func (o *output) tail() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(strings.ToValidUTF8(string(o.last), string(utf8.RuneError))), "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], " | ")
}

func lastOf(b []byte, n int) []byte { return bytes.Clone(b[max(0, len(b)-n):]) }

// withTail is an error with what was said last before it.
func withTail(err error, tail string) error {
	if tail == "" {
		return err
	}
	return fmt.Errorf("%w; it said last: %s", err, tail)
}

// ErrNone says that no action has run on the node.
var ErrNone = errors.New("no bootstrap action has run on this node")

// Copy writes what all actions have said to w; with follow it goes on until they have ended, or ctx does.
func (r *Runner) Copy(ctx context.Context, w io.Writer, follow bool) error {
	for i := 0; ; i++ {
		o, err := r.nth(ctx, i, follow)
		if o == nil || err != nil {
			return err
		}
		if err := o.copy(ctx, w, follow); err != nil {
			return fmt.Errorf("output of bootstrap actions: %w", err)
		}
	}
}

// nth waits for an output, if there may be one yet; nil if there is none.
func (r *Runner) nth(ctx context.Context, i int, follow bool) (*output, error) {
	for {
		r.mu.Lock()
		outputs, over, changed := r.outputs, r.over, r.changed
		r.mu.Unlock()
		switch {
		case i < len(outputs):
			return outputs[i], nil
		case over && i == 0:
			return nil, ErrNone
		case over || !follow:
			return nil, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (o *output) copy(ctx context.Context, w io.Writer, follow bool) error {
	f, err := os.Open(o.path)
	if err != nil {
		return err
	}
	defer f.Close()
	for at := int64(0); ; {
		o.mu.Lock()
		upTo, whole, changed := o.written, o.file == nil, o.changed
		o.mu.Unlock()
		n, err := io.Copy(w, io.NewSectionReader(f, at, upTo-at))
		if at += n; err != nil {
			return err
		}
		if whole || !follow {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
