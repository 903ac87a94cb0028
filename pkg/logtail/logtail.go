// Package logtail keeps the last of what a process logs, in memory, for whoever asks for it over the network. What is to stay is for
// whoever started the process to keep.
package logtail

import (
	"bytes"
	"context"
	"io"
	"sync"
)

// DefaultSize is how many bytes are kept.
const DefaultSize = 1 << 20

// Tail is an io.Writer that keeps the last of what is written. Safe for concurrent use. The zero value is ready.
type Tail struct {
	Size int // bytes; 0 = DefaultSize

	mu      sync.Mutex
	data    []byte // the last, at most twice the size
	end     int64  // bytes that were ever written
	changed chan struct{}
}

// Write takes everything. A line is written by one call, and seen whole.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	size := t.Size
	if size <= 0 {
		size = DefaultSize
	}
	t.end += int64(len(p))
	t.data = append(t.data, p[max(0, len(p)-size):]...)
	if len(t.data) > 2*size {
		t.data = append(t.data[:0], t.data[len(t.data)-size:]...)
	}
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
	return len(p), nil
}

// Copy writes what is kept to w, from the beginning of a line on; with follow it goes on with what comes, until ctx ends or w fails.
func (t *Tail) Copy(ctx context.Context, w io.Writer, follow bool) error {
	from := int64(0)
	for {
		data, end, changed := t.after(from)
		if len(data) > 0 {
			if _, err := w.Write(data); err != nil {
				return err
			}
		}
		from = end
		if !follow {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// after is what was written after so many bytes, as far as it is kept.
func (t *Tail) after(from int64) (data []byte, end int64, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.changed == nil {
		t.changed = make(chan struct{})
	}
	first := t.end - int64(len(t.data)) // of what is kept
	data = t.data[max(0, from-first):]
	if first > from { // somebody is slow, or it is the beginning: half a line is none
		_, data, _ = bytes.Cut(data, []byte("\n"))
	}
	return bytes.Clone(data), t.end, t.changed
}
