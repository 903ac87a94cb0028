package attempt

import (
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxEarly  = 4 << 10 // kept of what a child says before it has an attempt
	pumpGrace = 300 * time.Millisecond
)

// pump reads a child's standard output and error and writes them to the log of
// whatever attempt it has at the moment.
type pump struct {
	r    *os.File
	done chan struct{}

	mu      sync.Mutex
	log     *Log
	early   []byte
	waiting []chan struct{}
}

func startPump(r *os.File) *pump {
	p := &pump{r: r, done: make(chan struct{})}
	go p.run()
	return p
}

// to sends what comes from now on to another log; nil keeps a little for the next.
func (p *pump) to(l *Log) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = l
	if l != nil && len(p.early) > 0 {
		_, _ = l.Write(p.early) // a Log keeps its trouble to itself
		p.early = nil
	}
}

func (p *pump) write(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.log != nil {
		_, _ = p.log.Write(b)
		return
	}
	p.early = append(p.early, b[:min(len(b), maxEarly-len(p.early))]...)
}

func (p *pump) run() {
	defer close(p.done)
	buf := make([]byte, 32<<10)
	for {
		n, err := p.r.Read(buf)
		if n > 0 {
			p.write(buf[:n])
		}
		if errors.Is(err, os.ErrDeadlineExceeded) && p.drain(buf) {
			continue
		}
		if err != nil {
			return
		}
	}
}

// drain reads what is in the pipe now and tells those who wait for it. False: our end is closed.
func (p *pump) drain(buf []byte) bool {
	p.mu.Lock()
	waiting := p.waiting
	p.waiting = nil
	err := p.r.SetReadDeadline(time.Time{})
	p.mu.Unlock()
	defer func() {
		for _, w := range waiting {
			close(w)
		}
	}()
	if err != nil {
		return false
	}
	raw, err := p.r.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Read(func(fd uintptr) bool {
		// No more than is in the pipe now: somebody may go on writing for ever.
		left, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		for err == nil && left > 0 {
			var n int
			if n, err = unix.Read(int(fd), buf[:min(left, len(buf))]); err == unix.EINTR {
				n, err = 0, nil
			} else if n <= 0 {
				break
			}
			p.write(buf[:n])
			left -= n
		}
		return true
	})
	return err == nil || errors.Is(err, os.ErrDeadlineExceeded)
}

// flush waits until everything written into the pipe so far has been taken over.
func (p *pump) flush() {
	w := make(chan struct{})
	p.mu.Lock()
	p.waiting = append(p.waiting, w)
	err := p.r.SetReadDeadline(time.Unix(1, 0))
	p.mu.Unlock()
	if err != nil {
		return // closed: run has read everything
	}
	select {
	case <-w:
	case <-p.done:
	}
}

// close waits for the pipe's end, which somebody who got away may hold open, and closes it.
func (p *pump) close() {
	t := time.NewTimer(pumpGrace)
	defer t.Stop()
	select {
	case <-p.done:
	case <-t.C:
		p.flush()
	}
	p.r.Close()
	<-p.done
}
