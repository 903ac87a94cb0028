package task

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protodelim"

	"millrace/pkg/api"
	"millrace/pkg/objectstore"
	"millrace/pkg/protocol"
)

// The child's environment.
const (
	// FDEnv holds the number of the inherited socket; who has it is a child.
	FDEnv = "MILLRACE_ATTEMPT_FD"
	// TokenEnv holds the token that everything a child starts inherits.
	TokenEnv = "MILLRACE_NODE_ATTEMPT"
)

// Version is what a child says of itself: the version of the SDK inside.
const Version = "1"

const (
	maxProtocolMessage = 64 << 20 // bytes of one message from the worker: a plan's largest split is far below
	progressEvery      = 200 * time.Millisecond
	killGrace          = 500 * time.Millisecond // for a cancelled attempt to end by itself
)

// ServeConfig sets up a child.
type ServeConfig struct {
	// Resolve gives the code of a lease's program.
	Resolve func(*api.Program) (*Program, error)
	// Open reaches the lease's object store, within a budget and with a count of what is
	// repeated; nil is objectstore.NewS3.
	Open func(o *api.ObjectStore, budget *objectstore.Budget, retried *objectstore.Tally) (Store, error)
}

// IsChild says whether this process was started to run attempts.
func IsChild() bool { return os.Getenv(FDEnv) != "" }

// Serve is the life of a child: it runs attempts over the inherited socket until one fails,
// and returns the process's exit code. A cancelled ctx (SIGTERM, say) ends the present
// attempt and then the child. Should the socket close, Serve does not return: it
// kills all that the child has started, and the process with its group.
func Serve(ctx context.Context, c ServeConfig) int {
	conn, err := inherited()
	if err != nil {
		fmt.Fprintln(os.Stderr, "millrace attempt:", err)
		return 1
	}
	defer conn.Close()
	if c.Open == nil {
		c.Open = openS3
	}
	s := &session{ServeConfig: c, conn: conn, in: make(chan *api.ToChild), done: make(chan finished, 1), quit: make(chan struct{})}
	defer close(s.quit)
	err = s.serve(ctx)
	if errors.Is(err, errSocketClosed) {
		KillAll()
	}
	killAllStarted(os.Getenv(TokenEnv))
	if err != nil {
		fmt.Fprintln(os.Stderr, "millrace attempt:", err)
		return 1
	}
	return 0
}

// inherited takes over the socket, so that nothing the child starts has it.
func inherited() (net.Conn, error) {
	fd, err := strconv.Atoi(os.Getenv(FDEnv))
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("%s=%q is not a descriptor", FDEnv, os.Getenv(FDEnv))
	}
	if err := os.Unsetenv(FDEnv); err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "attempt socket")
	conn, err := net.FileConn(f) // a duplicate, closed on exec
	return conn, errors.Join(err, f.Close())
}

func openS3(o *api.ObjectStore, budget *objectstore.Budget, retried *objectstore.Tally) (Store, error) {
	return objectstore.NewS3(objectstore.Config{
		Endpoint: o.GetEndpoint(), Region: o.GetRegion(), AccessKey: o.GetAccessKey(),
		SecretKey: o.GetSecretKey(), SessionToken: o.GetSessionToken(), CAPEM: o.GetCaPem(),
		Retry: objectstore.Attempts(budget, retried),
	})
}

var (
	errSocketClosed = errors.New("the worker is gone")
	errTerminated   = fmt.Errorf("%w: the child was told to end", ErrKilled)
)

// session is the child's side of one socket. Its fields belong to the goroutine
// of serve; the reader and the attempt speak to it over channels.
type session struct {
	ServeConfig
	conn net.Conn
	in   chan *api.ToChild
	done chan finished
	quit chan struct{}

	opened  Store             // for the first lease; a child serves one job
	retried objectstore.Tally // of all of its attempts
	before  int64             // retried, when the present one began

	// The present attempt; lease is nil between attempts.
	lease    *api.ChildLease
	cancel   context.CancelCauseFunc
	segments *Segments
	progress *Progress
}

// finished is an attempt's end. clean is false if its goroutine ended without a result.
type finished struct {
	result *api.AttemptResult
	clean  bool
}

func (s *session) serve(ctx context.Context) error {
	if err := s.send(&api.FromChild{Message: &api.FromChild_Hello{Hello: &api.ChildHello{
		ProtocolMin: protocol.OldestAttempt, ProtocolMax: protocol.Attempt, SdkVersion: Version}}}); err != nil {
		return err
	}
	go s.read() // ends with the socket, which Serve closes
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	var late <-chan time.Time // when a cancelled attempt has had its grace
	terminated := ctx.Done()
	for {
		select {
		case m, ok := <-s.in:
			if !ok {
				return errSocketClosed
			}
			if err := s.handle(ctx, m); err != nil {
				return err
			}
			if m.GetCancel() != nil && s.lease != nil && late == nil {
				late = time.After(killGrace)
			}
		case <-terminated:
			terminated = nil
			if s.lease == nil {
				return nil
			}
			s.cancel(errTerminated)
			late = time.After(killGrace)
		case f := <-s.done:
			late = nil
			reusable := f.clean && f.result.Failure == nil && ctx.Err() == nil
			if err := s.finish(f.result, reusable); err != nil || !reusable {
				return err
			}
		case <-late:
			// The program does not listen; the process's end will end it.
			return s.finish(&api.AttemptResult{Failure: &api.Failure{
				Kind: api.FailureKind_FAILURE_KIND_KILLED, Message: ErrKilled.Error()}}, false)
		case <-tick.C:
			if err := s.report(); err != nil {
				return err
			}
		}
	}
}

// read brings the worker's messages to serve until the socket ends.
func (s *session) read() {
	defer close(s.in)
	r := bufio.NewReaderSize(s.conn, 64<<10)
	options := protodelim.UnmarshalOptions{MaxSize: maxProtocolMessage}
	for {
		m := &api.ToChild{}
		if err := options.UnmarshalFrom(r, m); err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				fmt.Fprintln(os.Stderr, "millrace attempt: read from the worker:", err)
			}
			return
		}
		select {
		case s.in <- m:
		case <-s.quit:
			return
		}
	}
}

func (s *session) send(m *api.FromChild) error {
	var b bytes.Buffer
	if _, err := protodelim.MarshalTo(&b, m); err != nil {
		return fmt.Errorf("encode a message to the worker: %w", err) // the socket is still good
	}
	if _, err := s.conn.Write(b.Bytes()); err != nil {
		return fmt.Errorf("%w: %w", errSocketClosed, err)
	}
	return nil
}

func (s *session) handle(ctx context.Context, m *api.ToChild) error {
	switch m := m.Message.(type) {
	case *api.ToChild_Welcome:
		if p := m.Welcome.Protocol; p < protocol.OldestAttempt || p > protocol.Attempt {
			return fmt.Errorf("the worker chose the attempt protocol %d; this program speaks %d to %d", p, protocol.OldestAttempt, protocol.Attempt)
		}
	case *api.ToChild_Lease:
		if s.lease != nil {
			return fmt.Errorf("lease %s came while %s runs", m.Lease.Attempt, s.lease.Attempt)
		}
		s.start(ctx, m.Lease)
	case *api.ToChild_Segments:
		if s.lease != nil && s.lease.Attempt == m.Segments.Attempt {
			s.segments.Deliver(m.Segments.Segments)
		}
	case *api.ToChild_Cancel:
		if s.lease != nil && s.lease.Attempt == m.Cancel.Attempt {
			s.cancel(ErrKilled)
		}
	}
	return nil
}

// start runs an attempt in a goroutine that always ends in s.done.
func (s *session) start(ctx context.Context, l *api.ChildLease) {
	run, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	s.lease, s.cancel, s.segments, s.progress = l, cancel, &Segments{}, &Progress{}
	s.before = s.retried.Count()
	c := Config{Lease: l, Segments: s.segments, Progress: s.progress}
	go func() {
		f := finished{result: &api.AttemptResult{Failure: &api.Failure{
			Kind: api.FailureKind_FAILURE_KIND_PROGRAM, Message: "the program ended its goroutine (runtime.Goexit)"}}}
		defer func() { s.done <- f }()
		f.result = s.attempt(run, c)
		f.clean = true
	}()
}

// attempt prepares the process for an attempt and runs it.
func (s *session) attempt(ctx context.Context, c Config) *api.AttemptResult {
	l := c.Lease
	err := prepare(l)
	if err == nil && s.opened == nil {
		var budget *objectstore.Budget // a worker of an older version bounds nothing
		if l.StoreRetriesPerSecond > 0 {
			budget = objectstore.NewBudget(l.StoreRetriesPerSecond)
		}
		if s.opened, err = s.Open(l.Store, budget, &s.retried); err == nil {
			s.opened = withFiles(s.opened, l.FilesSocket)
		}
	}
	if err == nil {
		c.Store = s.opened
		var setup error
		err = guard(func() error { c.Program, setup = s.Resolve(l.Program); return nil })
		if err == nil && setup != nil {
			err = programError("set up the program", setup)
		}
	}
	if err != nil {
		return &api.AttemptResult{Failure: failure(ctx, err, "", 0)}
	}
	result := Run(ctx, c)
	if n := s.retried.Count() - s.before; n > 0 {
		result.Counters = append(result.Counters, &api.Counter{Group: Group, Name: storeRetries, Value: n})
		result.StoreTrouble = s.retried.Last()
	}
	return result
}

// storeRetries counts an attempt's requests to the object store that were repeated.
const storeRetries = "storeRetries"

// prepare gives the process the lease's directory, environment and memory limit.
func prepare(l *api.ChildLease) error {
	if l.WorkDir != "" {
		if err := os.Chdir(l.WorkDir); err != nil {
			return fmt.Errorf("enter the work directory: %w", err)
		}
		if err := os.Setenv("TMPDIR", l.WorkDir); err != nil {
			return err
		}
	}
	for name, value := range l.Program.GetEnv() {
		if name == TokenEnv || name == FDEnv {
			continue
		}
		if err := os.Setenv(name, value); err != nil {
			return programError("set the environment variable "+strconv.Quote(name), err)
		}
	}
	if l.MemoryBytes > 0 {
		debug.SetMemoryLimit(l.MemoryBytes)
	}
	return nil
}

// report sends what was published last, and asks for more.
func (s *session) report() error {
	if s.lease == nil {
		return nil
	}
	bytes, records := s.progress.Done()
	s.progress.Ask()
	return s.send(&api.FromChild{Message: &api.FromChild_Progress{Progress: &api.ChildProgress{
		Attempt: s.lease.Attempt, BytesDone: bytes, RecordsDone: records,
		StoreRetries: s.retried.Count() - s.before, StoreTrouble: s.retried.Last(), Alive: s.progress.Alive()}}})
}

func (s *session) finish(r *api.AttemptResult, reusable bool) error {
	attempt := s.lease.Attempt
	s.cancel(nil)
	s.lease, s.cancel, s.segments, s.progress = nil, nil, nil, nil
	return s.send(&api.FromChild{Message: &api.FromChild_Result{Result: &api.ChildResult{
		Attempt: attempt, Result: r, Reusable: reusable}}})
}
