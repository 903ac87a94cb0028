package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"millrace/pkg/api"
	"millrace/pkg/client"
	"millrace/pkg/protocol"
)

const (
	heartbeatEvery = 500 * time.Millisecond
	welcomeWithin  = 3 * time.Second
	firstReconnect = 50 * time.Millisecond
	lastReconnect  = time.Second
)

// stream is one session with a master. Send and CloseRequest are one goroutine's,
// Receive another's.
type stream interface {
	Send(*api.WorkerMessage) error
	Receive() (*api.MasterMessage, error)
	CloseRequest() error
	CloseResponse() error // breaks the stream off; any goroutine's
}

// dialer opens sessions with the leader, as far as it is known.
type dialer func(ctx context.Context) (stream, error)

var (
	errOldTerm   = errors.New("the master's term is over")
	errNoWelcome = errors.New("the master did not begin with Welcome")
	errGoodbye   = errors.New("the worker ends")
	errMoved     = errors.New("the node has another place")
)

// ErrRemoved says that the node was taken out of its site for good: there is nothing more to do.
var ErrRemoved = errors.New("the node was removed from its site")

// sessions holds a session with the leader until ctx ends, whatever happens to it; unless the node was removed.
// The last one is ended in good order.
func (w *Worker) sessions(ctx context.Context) error {
	retry := firstReconnect
	last := ""
	for ctx.Err() == nil {
		welcomed, err := w.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errMoved) {
			return nil
		}
		if client.Removed(err) {
			w.slots.killAll(ErrRemoved)
			return fmt.Errorf("%w: %w", ErrRemoved, err)
		}
		if welcomed {
			retry = firstReconnect
		}
		if text := err.Error(); welcomed || text != last { // once, not twenty times a second
			switch p := client.Problems(err); {
			case connect.CodeOf(err) == connect.CodeFailedPrecondition && p.GetNext() != "":
				w.log.Warn("the master refuses a session", zap.Error(err), zap.String("next", p.GetNext()))
			case client.Untrusted(err):
				w.log.Warn("this node and the masters do not trust each other", zap.Strings("why", p.GetErrors()), zap.String("next", p.GetNext()))
			default:
				w.log.Info("no session with the leader", zap.Error(err))
			}
			last = text
		}
		// Half of it is chance: all workers lose a leader at the same moment.
		if !sleep(ctx, retry/2+rand.N(retry/2)) {
			return nil
		}
		retry = min(2*retry, lastReconnect)
	}
	return nil
}

// session is one session from its opening to its end.
func (w *Worker) session(ctx context.Context) (welcomed bool, err error) {
	run, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	st, err := w.dial(run)
	if err != nil {
		return false, err
	}
	w.health.during(cancel)
	defer w.health.during(nil)
	out := newOutbox()
	w.slots.connect(out, w.hello(), w.reduces.problems())
	defer w.slots.disconnect(out)

	heard := &atomic.Int64{} // Unix ns
	heard.Store(time.Now().UnixNano())
	patience := &atomic.Int64{} // ns
	patience.Store(int64(welcomeWithin))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() { w.write(ctx, run, cancel, st, out) })
	wg.Go(func() { w.watch(run, cancel, heard, patience) })
	wg.Go(func() {
		// The end of its context alone does not wake a stream of HTTP/2 whose
		// request body waits for more.
		<-run.Done()
		_ = st.CloseResponse() // what ended it is known
	})

	err = w.read(st, heard, func(m *api.SessionWelcome) error {
		if err := w.welcome(m); err != nil {
			return err
		}
		welcomed = true
		wg.Go(func() { w.blocks.report(run, out) })
		if m.LeaseMs > 0 {
			patience.Store(m.LeaseMs * int64(time.Millisecond))
		}
		return nil
	})
	if cause := context.Cause(run); cause != nil {
		err = cause
	}
	return welcomed, err
}

// write sends what is queued, and heartbeats. When the node ends it says goodbye.
func (w *Worker) write(ctx, run context.Context, cancel context.CancelCauseFunc, st stream, out *outbox) {
	beat := time.NewTicker(heartbeatEvery)
	defer beat.Stop()
	left := false // it was said in this session
	for {
		for _, m := range out.take() {
			if err := st.Send(m); err != nil {
				// Why is for Receive to say; if it does not within a moment, this is it.
				if errors.Is(err, io.EOF) && sleep(run, time.Second) || !errors.Is(err, io.EOF) {
					cancel(fmt.Errorf("send: %w", err))
				}
				return
			}
		}
		select {
		case <-out.wake:
		case <-beat.C:
			w.slots.heartbeat(w.diskFree(), w.problem())
			if !left && w.leaving.Load() {
				left = true
				w.slots.say(&api.WorkerMessage{Message: &api.WorkerMessage_Leave{Leave: &api.Leave{}}})
			}
		case <-run.Done():
			return
		case <-ctx.Done():
			// The leader takes the end of our side for a goodbye and ends its own.
			if err := st.CloseRequest(); err != nil || sleep(run, time.Second) {
				cancel(errGoodbye)
			}
			return
		}
	}
}

// watch ends the session when nothing is heard for longer than a lease: TCP alone would
// take minutes.
func (w *Worker) watch(run context.Context, cancel context.CancelCauseFunc, heard, patience *atomic.Int64) {
	for {
		left := time.Until(time.Unix(0, heard.Load()).Add(time.Duration(patience.Load())))
		if left <= 0 {
			cancel(fmt.Errorf("%w for %v", client.ErrSilent, time.Duration(patience.Load())))
			return
		}
		if !sleep(run, left) {
			return
		}
	}
}

// read handles the master's messages until the stream ends.
func (w *Worker) read(st stream, heard *atomic.Int64, welcome func(*api.SessionWelcome) error) error {
	m, err := st.Receive()
	if err != nil {
		return err
	}
	if m.GetWelcome() == nil {
		return errNoWelcome
	}
	if err := welcome(m.GetWelcome()); err != nil {
		return err
	}
	for {
		heard.Store(time.Now().UnixNano())
		w.heard.Store(time.Now().UnixNano())
		if m, err = st.Receive(); err != nil {
			return err
		}
		w.handle(m)
	}
}

// handle takes one message of the leader's; it must not block for long.
func (w *Worker) handle(m *api.MasterMessage) {
	switch m := m.Message.(type) {
	case *api.MasterMessage_Lease:
		if err := w.slots.lease(m.Lease); err != nil {
			w.log.Error("refused a lease", zap.Error(err))
		}
	case *api.MasterMessage_Kill:
		w.slots.end(m.Kill.Attempt, m.Kill.Reason)
	case *api.MasterMessage_Revoke:
		w.slots.revoke(m.Revoke.Attempt)
	case *api.MasterMessage_Locations:
		w.reduces.update(m.Locations)
	case *api.MasterMessage_Ack:
		w.acknowledged(m.Ack)
	case *api.MasterMessage_Forget:
		w.forget(m.Forget.Job)
	case *api.MasterMessage_Probe:
		w.probe(m.Probe)
	case *api.MasterMessage_BlockOrders:
		w.blocks.obey(m.BlockOrders)
	case *api.MasterMessage_Pong:
		w.heardTrust(m.Pong.Trust)
		w.peers.heard(m.Pong.Members)
	case *api.MasterMessage_Assignment:
		w.assigned(m.Assignment.Cluster, m.Assignment.Role)
	}
}

// welcome takes up what the leader says of itself and of the site.
func (w *Worker) welcome(m *api.SessionWelcome) error {
	highest := w.term.Load()
	if m.Term < highest {
		return fmt.Errorf("%w: %d, after %d", errOldTerm, m.Term, highest)
	}
	if m.Term > highest {
		w.term.Store(m.Term)
		if err := w.keepTerm(); err != nil { // a full disk, most likely: it is kept when there is room
			w.log.Warn("keep the leader's term", zap.Error(err))
		}
	}
	if w.assigned(m.Cluster, m.Role) {
		return errMoved
	}
	w.blocks.lead(m.Term)
	if m.Store != nil {
		if err := w.site.set(m.Store, m.SystemPrefix); err != nil {
			return err
		}
		w.uploads.wake()
	}
	w.actions.welcome(m)
	w.log.Info("session with the leader", zap.Uint64("term", m.Term), zap.String("cluster", m.Cluster), zap.String("role", m.Role))
	return nil
}

func (w *Worker) hello() *api.WorkerHello {
	total, free, err := diskSpace(w.dir.Path())
	if err != nil {
		w.log.Warn("disk space", zap.Error(err))
	}
	return &api.WorkerHello{
		NodeId: w.id.ID, Version: w.cfg.Version, Protocol: int32(protocol.Own("").Speaks), Incarnation: w.lifeName(), HighestTerm: w.term.Load(),
		Address: w.address, Slots: int32(w.cfg.Slots), MemoryBytes: w.cfg.MemoryBytes,
		DiskBytes: total, DiskFreeBytes: free, Problem: w.problem(), Volume: volumeOf(w.dir.Path()), Pid: int64(w.pid), Segments: w.segments.Held(), Rack: w.cfg.Rack,
		Cluster: w.id.Cluster, Role: w.id.Role, Bootstrapped: w.actions.done(),
	}
}

// problem is why the node takes no tasks now; "" = it does.
func (w *Worker) problem() string {
	return cmp.Or(w.health.says(), w.actions.runner.Status().Problem())
}

// lifeName tells the present life from all others: what an earlier one ran is gone.
func (w *Worker) lifeName() string {
	if w.lived == 0 {
		return w.incarnation
	}
	return fmt.Sprintf("%s.%d", w.incarnation, w.lived)
}

func (w *Worker) diskFree() int64 {
	_, free, err := diskSpace(w.dir.Path())
	if err != nil {
		w.log.Debug("disk space", zap.Error(err))
	}
	return free
}
