package fsm

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"millrace/master/state"
)

// What a caller may decide on, beside the errors of state, which pass unchanged.
var (
	// ErrNotLeader: this master is not the leader, or is not any more.
	ErrNotLeader = errors.New("this master is not the leader")
	// ErrUnclear: the command may be in the log, or may come into it yet. It says
	// so beside another error. Commands can be repeated safely.
	ErrUnclear = errors.New("the command's outcome is not known")
	// ErrBusy: the log did not take the command in time. It was not logged.
	ErrBusy = errors.New("the log does not take commands now")
	// ErrDisk is for the log's disk to say that it did not take what was to be written: the leader steps down.
	ErrDisk = errors.New("the log's disk")
	// ErrClosed: the Log has been closed. The command was not logged.
	ErrClosed = errors.New("log is closed")
)

// Raft is what a Log needs of *raft.Raft.
type Raft interface {
	Apply(entry []byte, timeout time.Duration) raft.ApplyFuture
	Barrier(timeout time.Duration) raft.Future
	VerifyLeader() raft.Future
}

// While the leadership is being handed over Raft takes no commands. It gives up after an election's time-out, and leads on: that is
// no loss of the leadership, which would end all that the leader has under way.
const (
	handOverWithin = 5 * time.Second
	handOverPoll   = 10 * time.Millisecond
)

// enqueueTimeout bounds the wait for room in Raft's queue, if the context has no earlier deadline.
const enqueueTimeout = 5 * time.Second

// Log puts commands into the Raft log, on the leader.
type Log struct {
	raft Raft
	cfg  LogConfig

	mu      sync.Mutex
	closed  bool
	waiting sync.WaitGroup
}

// LogConfig is what a Log has to know beside Raft.
type LogConfig struct {
	Uses    func() int             // the protocol that the site uses: every master reads its entries
	Stalled func() <-chan struct{} // closed when Raft waits for its disk, and answers nothing; nil: never
}

// NewLog returns a Log over a Raft node.
func NewLog(r Raft, c LogConfig) *Log {
	if c.Stalled == nil {
		c.Stalled = func() <-chan struct{} { return nil }
	}
	return &Log{raft: r, cfg: c}
}

// Apply logs a command, waits until it is committed and applied here, and returns
// what state made of it, errors included. When ctx ends first the command may be
// applied nevertheless: the error then is ErrUnclear beside ctx's.
func (l *Log) Apply(ctx context.Context, c state.Command) (any, error) {
	if err := l.gate(c); err != nil {
		return nil, err
	}
	return l.apply(ctx, c)
}

// Insist is Apply that tries again as long as the log does not take the command in time (ErrBusy): for a leader's own work, which
// nobody else repeats.
func (l *Log) Insist(ctx context.Context, c state.Command) (any, error) {
	for {
		result, err := l.Apply(ctx, c)
		if !errors.Is(err, ErrBusy) || ctx.Err() != nil {
			return result, err
		}
	}
}

func (l *Log) apply(ctx context.Context, c state.Command) (any, error) {
	data, err := Encode(c)
	if err != nil {
		return nil, err
	}
	var applied raft.ApplyFuture
	err = l.wait(ctx, c.CommandName(), func() raft.Future {
		applied = l.raft.Apply(data, timeout(ctx))
		return applied
	})
	if err != nil {
		return nil, err
	}
	r, ok := applied.Response().(Result)
	if !ok {
		return nil, fmt.Errorf("%s: log answered %T", c.CommandName(), applied.Response())
	}
	return r.Value, r.Err
}

// Barrier waits until everything logged before it is applied here: a new leader
// calls it before it reads.
func (l *Log) Barrier(ctx context.Context) error {
	return l.wait(ctx, "barrier", func() raft.Future { return l.raft.Barrier(timeout(ctx)) })
}

// VerifyLeader asks a majority whether this master still leads: what is read after
// it is as new as the call.
func (l *Log) VerifyLeader(ctx context.Context) error {
	return l.wait(ctx, "verify leader", func() raft.Future { return l.raft.VerifyLeader() })
}

// Close refuses further commands and waits for those under way; Raft ends them when
// it loses leadership or is shut down.
func (l *Log) Close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.waiting.Wait()
	return nil
}

// wait starts an operation and waits for its end or ctx's; again, while the leadership is being handed over.
func (l *Log) wait(ctx context.Context, what string, start func() raft.Future) error {
	late := time.Now().Add(handOverWithin)
	for {
		err := l.once(ctx, what, start)
		if !errors.Is(err, raft.ErrLeadershipTransferInProgress) || time.Now().After(late) {
			return err
		}
		select {
		case <-time.After(handOverPoll):
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return err // which says more, and that nothing was logged
		}
	}
}

func (l *Log) once(ctx context.Context, what string, start func() raft.Future) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return fmt.Errorf("%s: %w", what, ErrClosed)
	}
	stalled := l.cfg.Stalled()
	select {
	case <-stalled:
		l.mu.Unlock()
		return fmt.Errorf("%s: %w: %w", what, ErrNotLeader, ErrDisk)
	default:
	}
	l.waiting.Add(1)
	l.mu.Unlock()
	done := make(chan error, 1)
	go func() {
		defer l.waiting.Done()
		done <- start().Error()
	}()
	select {
	case err := <-done:
		return translate(what, err)
	case <-stalled:
		return translate(what, ErrDisk)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w: %w", what, ErrUnclear, ctx.Err())
	}
}

func timeout(ctx context.Context) time.Duration {
	t := enqueueTimeout
	if deadline, ok := ctx.Deadline(); ok {
		t = min(t, max(time.Until(deadline), time.Millisecond)) // 0 would wait for ever
	}
	return t
}

// translate makes of Raft's errors what a caller can decide on.
func translate(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader):
		return fmt.Errorf("%s: %w", what, ErrNotLeader)
	case errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return fmt.Errorf("%s: %w: %w", what, ErrNotLeader, err)
	case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrRaftShutdown), errors.Is(err, ErrDisk):
		return fmt.Errorf("%s: %w, %w: %w", what, ErrNotLeader, ErrUnclear, err)
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return fmt.Errorf("%s: %w", what, ErrBusy)
	}
	return fmt.Errorf("%s: %w: %w", what, ErrUnclear, err)
}
