// Package bootstrap runs a cluster's bootstrap actions on a node: scripts, in order, before the node's first task there. It writes
// down how far it is, so that what has run to its end is not run again after a restart, and keeps what the scripts
// said. It does not know what becomes of a node on which one fails.
package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"millrace/pkg/shortage"
	"millrace/worker/command"
)

const (
	defaultTimeout = 30 * time.Minute
	maxOutput      = 16 << 20 // of one action; what lies between its beginning and its end is left out
)

// Action is one script.
type Action struct {
	Name    string // for people; "" = the last part of the URL
	URL     string // s3://bucket/key
	Args    []string
	SHA256  string // of the script, hex
	Timeout time.Duration
}

// Set is the actions of a cluster.
type Set struct {
	Digest  string // tells them from all others
	Actions []Action
	Env     []string // of the scripts, all of it but what names the action
}

// States of a node's actions.
const (
	Running = "RUNNING"
	Done    = "DONE"
	Failed  = "FAILED"
)

// Status is how far a node's actions are.
type Status struct {
	Digest string `json:"digest"` // of the actions, as the leader names them
	State  string `json:"state,omitempty"`
	Action int    `json:"action,omitempty"` // from 1: that runs, or has failed
	Of     int    `json:"of,omitempty"`
	Name   string `json:"name,omitempty"`
	Reason string `json:"reason,omitempty"` // why it has failed, with the last that it said, in one line
}

// Problem is why the node takes no tasks; "" = nothing of this keeps it from that.
func (s Status) Problem() string {
	switch s.State {
	case Running:
		return fmt.Sprintf("runs bootstrap action %d of %d (%s)", s.Action, s.Of, s.Name)
	case Failed:
		return fmt.Sprintf("bootstrap action %d of %d (%s) failed: %s", s.Action, s.Of, s.Name, s.Reason)
	}
	return ""
}

// Config sets up a Runner.
type Config struct {
	Dir string // made when there is something to keep
	// Source gives the store that scripts lie in; an error while it is not known yet.
	Source func() (Source, error)
	// Keep brings the output of an action to where it stays when the node is gone.
	Keep func(ctx context.Context, name string, output *os.File, size int64) error
	Log  *zap.Logger
}

// Runner runs the actions of one node, one set at a time. Safe for concurrent use, but for Run.
type Runner struct {
	cfg       Config
	maxOutput int
	retry     time.Duration // before a store that does not answer is asked again, at first

	mu      sync.Mutex
	status  Status
	outputs []*output
	changed chan struct{} // closed and replaced when there is a further output, or there will be none
	over    bool
}

// New starts nothing.
func New(c Config) *Runner {
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return &Runner{cfg: c, maxOutput: maxOutput, retry: firstRetry, changed: make(chan struct{}), over: true}
}

// Open reads what a former life has written down.
func (r *Runner) Open() error {
	var s Status
	if err := readMarks(r.path(marksFile), &s); err != nil {
		return fmt.Errorf("bootstrap actions: %w", err)
	}
	outputs, err := findOutputs(r.cfg.Dir)
	if err != nil {
		return fmt.Errorf("bootstrap actions: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status, r.outputs = s, outputs
	return nil
}

func (r *Runner) path(elem ...string) string {
	return filepath.Join(append([]string{r.cfg.Dir}, elem...)...)
}

// Status is how far the actions are that were run last. What was cut short is no state.
func (r *Runner) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// Run runs the actions that have not run yet, and tells each change. It returns when they are done, or one has failed, or ctx
// ends: then the next Run goes on with the one that was cut short, from its beginning.
func (r *Runner) Run(ctx context.Context, set Set, tell func(Status)) {
	digest, actions := set.Digest, set.Actions
	say := func(s Status) {
		s.Digest, s.Of = digest, len(actions)
		r.mu.Lock()
		r.status = s
		r.mu.Unlock()
		tell(s)
	}
	if s := r.Status(); s.Digest == digest && (s.State == Done || s.State == Failed) {
		tell(s)
		return
	}
	next, err := r.begin(digest)
	defer r.end()
	for ; next < len(actions) && err == nil; next++ {
		a := actions[next].named()
		say(Status{State: Running, Action: next + 1, Name: a.Name})
		if err = r.action(ctx, next, set, a); err == nil {
			err = r.mark(Status{Digest: digest, Action: next + 1})
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			break
		}
	}
	last := Status{State: Done}
	if err != nil {
		last = Status{State: Failed, Reason: shortage.Explained(err).Error()}
		if i := min(next, len(actions)-1); i >= 0 { // all may have run before
			last.Action, last.Name = i+1, actions[i].named().Name
		}
	}
	last.Digest, last.Of = digest, len(actions)
	if err := r.mark(last); err != nil { // a full disk: the next start runs the last one once more, or none
		r.cfg.Log.Warn("write down how bootstrap actions ended", zap.Error(err))
	}
	say(last)
}

// begin says which action is the next one to be run: after those that were run to their end, if they are the same ones.
func (r *Runner) begin(digest string) (next int, err error) {
	var s Status
	if err := readMarks(r.path(marksFile), &s); err != nil {
		return 0, err
	}
	if err := endLeftovers(r.path(runningFile)); err != nil {
		return 0, err
	}
	if s.Digest == digest {
		next = s.Action // how many have ended well
	} else if err := clearFolder(r.cfg.Dir); err != nil {
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over, r.outputs = false, r.outputs[:min(next, len(r.outputs))]
	return next, os.MkdirAll(r.cfg.Dir, 0o700)
}

// end says that there will be no further output.
func (r *Runner) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *Runner) mark(s Status) error { return writeMarks(r.path(marksFile), s) }

// action runs one to its end. What it says goes where it stays before the end is told: the node may not live long after it.
func (r *Runner) action(ctx context.Context, i int, set Set, a Action) (err error) {
	out, err := r.output(i, len(set.Actions), a)
	if err != nil {
		return err
	}
	err = r.run(ctx, i, set.Env, a, out)
	if ctx.Err() != nil {
		return errors.Join(ctx.Err(), out.close(""))
	}
	last := out.tail()
	note := "done"
	if err != nil {
		note = err.Error()
	}
	if closeErr := out.close(note); closeErr != nil {
		r.cfg.Log.Warn("keep the output of a bootstrap action", zap.String("action", a.Name), zap.Error(closeErr))
	}
	r.keep(ctx, out)
	if err != nil {
		return withTail(err, last)
	}
	return nil
}

// run fetches the script and runs it in a folder of its own.
func (r *Runner) run(ctx context.Context, i int, env []string, a Action, out *output) error {
	limit, cancel := context.WithTimeoutCause(ctx, a.Timeout, fmt.Errorf("%w: %s", command.ErrLimit, a.Timeout))
	defer cancel()
	dir := r.path(fmt.Sprintf("%d", i+1))
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, "work"), 0o700); err != nil {
		return err
	}
	script, err := r.fetch(limit, a)
	if err != nil {
		return err
	}
	path, args, err := place(filepath.Join(dir, "script-"+fileName(a.Name)), script, a)
	if err != nil {
		return err
	}
	token, err := markRunning(r.path(runningFile))
	if err != nil {
		return err
	}
	env = append(env[:len(env):len(env)], runVariable+"="+token, fmt.Sprintf("MILLRACE_BOOTSTRAP_ACTION=%d", i+1))
	end := command.Run(limit, command.Command{Path: path, Args: args, Dir: filepath.Join(dir, "work"), Env: env, Stdout: out, Stderr: out})
	if ctx.Err() != nil {
		return ctx.Err() // it goes on with the next start, which finds the file
	}
	err = os.Remove(r.path(runningFile))
	switch {
	case end.Failed() && end.Err != nil:
		return notStarted(end.Err, script)
	case end.Failed():
		return errors.New(end.String())
	}
	return err
}

// keep brings an action's output to where it stays.
func (r *Runner) keep(ctx context.Context, out *output) {
	ctx, cancel := context.WithTimeout(ctx, keepWithin)
	defer cancel()
	f, err := os.Open(out.path)
	if err == nil {
		err = r.cfg.Keep(ctx, filepath.Base(out.path), f, out.size())
		f.Close()
	}
	if err != nil && ctx.Err() == nil {
		r.cfg.Log.Warn("store the output of a bootstrap action", zap.String("file", out.path), zap.Error(err))
	}
}

func (a Action) named() Action {
	if a.Name == "" {
		a.Name = a.URL[strings.LastIndexByte(a.URL, '/')+1:]
	}
	if a.Timeout <= 0 {
		a.Timeout = defaultTimeout
	}
	return a
}
