package attempt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"millrace/jobs"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
	"millrace/pkg/shortage"
)

// Run runs one attempt and says how it ended; it always gives a result. When ctx
// ends, the attempt is killed with all it started and fails as KILLED, with
// ctx's cause as message. out is where its standard error went, closed.
func (p *Pool) Run(ctx context.Context, a Attempt) (result *api.AttemptResult, out *Log) {
	out = p.cfg.Logs.create(a.Lease.Job, a.Lease.Attempt)
	defer out.Close()
	gone := sync.OnceFunc(func() {
		if a.Gone != nil {
			a.Gone()
		}
	})
	if ctx.Err() != nil {
		gone()
		return killed(ctx), out
	}
	if !p.enter() {
		gone()
		return startFailure(errClosed, false), out
	}
	defer p.wg.Done()
	for {
		c, fresh, err := p.get(a)
		if err != nil {
			gone()
			return startFailure(err, a.Executable != ""), out
		}
		if err := p.cfg.User.give(a.Lease.WorkDir, c.gid); err != nil {
			p.retire(c, gone)
			return startFailure(fmt.Errorf("give the attempt its directory: %w", err), false), out
		}
		c.job = a.Lease.Job
		r := &run{c: c, a: a, silence: p.cfg.Silence, begun: cpuTime(c.pid()), out: out, guard: p.guard}
		c.pump.to(out)
		result, reusable := r.run(ctx)
		if result == nil { // it had died before it took the lease
			p.retire(c, nil)
			if !fresh {
				continue
			}
			result = r.died()
		}
		p.settle(c, out, result)
		if reusable && result.Failure == nil {
			p.release(c, a, gone)
		} else {
			p.retire(c, gone)
		}
		return result, out
	}
}

// settle moves the child's last words to the attempt's log and failure. They may still be in the pipe
// though the child is gone: one that has sent its result may end before anybody here has read them.
func (p *Pool) settle(c *child, out *Log, result *api.AttemptResult) {
	c.pump.flush()
	c.pump.to(nil)
	if f := result.Failure; f != nil && f.StderrTail == "" {
		f.StderrTail = out.Tail()
	}
}

// release lets the child take further attempts, after what this one left running is gone.
func (p *Pool) release(c *child, a Attempt, gone func()) {
	if a.Lease.Program.GetKind() == api.ProgramKind_PROGRAM_KIND_BUILTIN {
		p.keep(c) // first, so that the next lease finds it
		gone()
		return
	}
	p.wg.Go(func() { // Run has entered: Close cannot have come to its wait
		c.endOthers()
		gone()
		p.keep(c)
	})
}

// enter makes Close wait; false once it has begun.
func (p *Pool) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || !p.open {
		return false
	}
	p.wg.Add(1)
	return true
}

// run is one attempt on one child.
type run struct {
	c       *child
	a       Attempt
	silence time.Duration
	begun   time.Duration // the child's CPU time at the start
	out     *Log
	guard   *guard
	fed     atomic.Bool // all segments are there
}

// run gives nil if the child ended before it could take the lease.
func (r *run) run(ctx context.Context) (result *api.AttemptResult, reusable bool) {
	select {
	case <-r.c.ready:
	case <-ctx.Done():
		r.c.destroy(0)
		return killed(ctx), false
	}
	if r.c.helloErr != nil {
		if r.c.wait(retireGrace) {
			result = r.died()
			if !r.c.user { // our own executable: nothing that the job has done
				result.Failure.Kind = api.FailureKind_FAILURE_KIND_NODE
			}
			return result, false
		}
		r.c.destroy(0)
		return r.failed("the program is no match for this worker: " + r.c.helloErr.Error()), false
	}
	if r.c.protocol < filesProtocol && onFiles(r.a.Lease) {
		return r.failed(fmt.Sprintf("the program is built with a version of the SDK (attempt protocol %d) that cannot reach clusters' files (hdfs://): build it again, with the workers' version",
			r.c.protocol)), false
	}
	err := r.c.send(&api.ToChild{Message: &api.ToChild_Lease{Lease: r.a.Lease}})
	if err != nil {
		return nil, false
	}
	stop := r.feed()
	defer stop()
	if r.a.Lease.Program.GetKind() == api.ProgramKind_PROGRAM_KIND_BUILTIN {
		return r.follow(ctx, nil) // it does what we have made it do
	}
	w, release := r.guard.watch(r.c, r.a)
	defer release()
	result, reusable = r.follow(ctx, w)
	if why := w.missed(); why != "" {
		switch f := result.GetFailure(); {
		case f == nil:
			return r.failed(why), false // what it would have done with more is not in its output
		case f.Kind == api.FailureKind_FAILURE_KIND_PROGRAM && !strings.HasPrefix(f.Message, why): // a shell that cannot fork gives up
			f.Message = why + ": " + f.Message
		}
	}
	if f := result.GetFailure(); f.GetKind() == api.FailureKind_FAILURE_KIND_PROGRAM && !strings.HasPrefix(f.Message, DiskFilled) {
		if why := r.guard.filled(w); why != "" { // it has noticed by itself
			f.Message = why + ": " + f.Message
		}
	}
	return result, reusable
}

// filesProtocol is the attempt protocol from which on a child reaches clusters' files.
const filesProtocol = 2

// onFiles says whether a lease reads or writes a cluster's files.
func onFiles(l *api.ChildLease) bool {
	return objectstore.IsHDFS(l.GetOutput().GetBucket()) ||
		slices.ContainsFunc(l.GetSplit().GetPieces(), func(p *api.Piece) bool { return objectstore.IsHDFS(p.Bucket) })
}

// feed passes segments on until stopped.
func (r *run) feed() (stop func()) {
	if r.a.Segments == nil {
		r.fed.Store(true)
		return func() {}
	}
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-quit:
				return
			case <-r.c.exited:
				return
			case list, ok := <-r.a.Segments:
				if !ok {
					r.fed.Store(true)
					return
				}
				m := &api.ChildSegments{Attempt: r.a.Lease.Attempt, Segments: list}
				if r.c.send(&api.ToChild{Message: &api.ToChild_Segments{Segments: m}}) != nil {
					return // follow sees the child's end
				}
			}
		}
	})
	return func() { close(quit); wg.Wait() }
}

// follow takes the child's messages until the attempt's end. A ward says why that has to come before; nil: there is none.
func (r *run) follow(ctx context.Context, w *ward) (*api.AttemptResult, bool) {
	silent := time.NewTimer(r.silence)
	defer silent.Stop()
	var over <-chan string
	missed := func() string { return "" }
	if w != nil {
		over, missed = w.over, w.missed
	}
	watch := hang{limit: jobs.TaskTimeout(r.a.Lease.GetProgram()), now: time.Now, io: func() int64 { return ioOf(r.c.pid()) }}
	for {
		select {
		case m, ok := <-r.c.msgs:
			if !ok {
				why := missed() // while what it has started is still counted
				late := time.NewTimer(exitWithin)
				defer late.Stop()
				select {
				case <-r.c.exited:
				case <-late.C:
				case why := <-over:
					r.c.destroy(0)
					return r.failed(why), false
				case <-ctx.Done():
					r.cancel()
					return r.account(killed(ctx)), false
				}
				res := r.died()
				if why != "" { // with no room for one more thread a program dies of that
					res.Failure.Message = why + ": " + res.Failure.Message
				}
				return res, false
			}
			silent.Reset(r.silence)
			if pr := m.GetProgress(); pr != nil && pr.Attempt == r.a.Lease.Attempt {
				pr.StoreTrouble = cut(pr.StoreTrouble, maxTrouble)
				if r.a.Progress != nil {
					r.a.Progress(pr)
				}
				if watch.over(pr, r.out.Size(), !r.fed.Load()) {
					r.cancel()
					return r.failed(watch.message()), false
				}
			}
			if res := m.GetResult(); res != nil && res.Attempt == r.a.Lease.Attempt {
				return r.account(unordered(bounded(res.Result))), res.Reusable
			}
		case why := <-over:
			r.c.destroy(0)
			return r.failed(why), false
		case <-silent.C:
			r.c.destroy(0)
			return r.failed(fmt.Sprintf("the child process said nothing for %v and was killed", r.silence)), false
		case <-ctx.Done():
			r.cancel()
			return r.account(killed(ctx)), false
		}
	}
}

// unordered makes a failure that counts of a kill that nobody here has ordered: somebody
// else's SIGTERM, which may come to every attempt of the task.
func unordered(res *api.AttemptResult) *api.AttemptResult {
	if f := res.GetFailure(); f.GetKind() == api.FailureKind_FAILURE_KIND_KILLED {
		f.Kind, f.Signal = api.FailureKind_FAILURE_KIND_PROGRAM, unix.SignalName(unix.SIGTERM)
		f.ExitCode = int32(128 + int(unix.SIGTERM))
		f.Message = "the child process was ended by SIGTERM, which this node had not sent"
	}
	return res
}

// cancel asks the child to end the attempt, and ends the child.
func (r *run) cancel() {
	r.c.note()
	asked := &api.ToChild_Cancel{Cancel: &api.ChildCancel{Attempt: r.a.Lease.Attempt}}
	if r.c.send(&api.ToChild{Message: asked}) == nil {
		late := time.NewTimer(cancelWithin)
		defer late.Stop()
		for waiting := true; waiting; {
			select {
			case m, ok := <-r.c.msgs:
				waiting = ok && m.GetResult() == nil
			case <-late.C:
				waiting = false
			}
		}
	}
	r.c.tree.signal(unix.SIGTERM, nil, 0)
	r.c.wait(termWithin)
	r.c.destroy(0)
}

// died says how a child ended that owes a result.
func (r *run) died() *api.AttemptResult {
	if !r.c.wait(retireGrace) {
		r.c.destroy(0)
		return r.failed("the child process closed its socket in the middle of the attempt")
	}
	r.c.destroy(0) // what it started goes, too, and its last words are all there
	res := r.failed("")
	f := res.Failure
	if r.c.state == nil {
		f.Message = "the child process ended and nobody knows how"
		return res
	}
	if status, ok := r.c.state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		f.Signal = unix.SignalName(status.Signal())
		f.ExitCode = int32(128 + int(status.Signal()))
		f.Message = "the child process was ended by " + f.Signal
		if f.Signal == "SIGKILL" {
			f.Message += " (out of memory?)"
		}
		return res
	}
	f.ExitCode = int32(r.c.state.ExitCode())
	f.Message = fmt.Sprintf("the child process exited with code %d before the attempt's end", f.ExitCode)
	return res
}

func (r *run) failed(message string) *api.AttemptResult {
	return r.account(&api.AttemptResult{Failure: &api.Failure{Kind: api.FailureKind_FAILURE_KIND_PROGRAM, Message: message}})
}

// account fills in the CPU time if the child has not.
func (r *run) account(res *api.AttemptResult) *api.AttemptResult {
	if res == nil {
		res = &api.AttemptResult{Failure: &api.Failure{Kind: api.FailureKind_FAILURE_KIND_PROGRAM, Message: "the child process sent an empty result"}}
	}
	if res.CpuMs != 0 {
		return res
	}
	var now time.Duration
	select {
	case <-r.c.exited:
		if r.c.state != nil {
			now = r.c.state.UserTime() + r.c.state.SystemTime()
		}
	default:
		now = cpuTime(r.c.pid())
	}
	if now > r.begun {
		res.CpuMs = (now - r.begun).Milliseconds()
	}
	return res
}

func killed(ctx context.Context) *api.AttemptResult {
	return &api.AttemptResult{Failure: &api.Failure{
		Kind: api.FailureKind_FAILURE_KIND_KILLED, Message: context.Cause(ctx).Error()}}
}

// startFailure says whose fault it is that a child cannot be started.
func startFailure(err error, user bool) *api.AttemptResult {
	kind := api.FailureKind_FAILURE_KIND_NODE
	switch {
	case shortage.Of(err) != shortage.None:
		return &api.AttemptResult{Failure: &api.Failure{Kind: api.FailureKind_FAILURE_KIND_RESOURCE,
			Message: shortage.Explained(err).Error(), Disk: shortage.Of(err) == shortage.Disk}}
	case errors.Is(err, errClosed):
		kind = api.FailureKind_FAILURE_KIND_KILLED
	case user && (errors.Is(err, syscall.ENOEXEC) || errors.Is(err, syscall.ENOENT)):
		// Another machine's binary, or one whose loader is not here.
		kind = api.FailureKind_FAILURE_KIND_PROGRAM
	}
	return &api.AttemptResult{Failure: &api.Failure{Kind: kind, Message: err.Error()}}
}
