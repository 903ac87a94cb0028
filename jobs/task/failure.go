package task

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"millrace/jobs/input"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// ErrKilled is the cause of a context that ends an attempt by order.
var ErrKilled = errors.New("killed")

// ProgramError is a failure of the user's code: an error, a panic, or a command
// that ended badly.
type ProgramError struct {
	Message    string
	ExitCode   int    // of a command
	Signal     string // that ended a command
	StderrTail string // last lines, or the end of a panic's stack
	Err        error  // what the code returned, if it did

	panicked bool
}

func (e *ProgramError) Error() string {
	if e.Err != nil {
		return e.Message + ": " + e.Err.Error()
	}
	return e.Message
}

func (e *ProgramError) Unwrap() error { return e.Err }

// programError makes an error of the user's code a *ProgramError, what unless it is one.
func programError(what string, err error) error {
	var p *ProgramError
	if errors.As(err, &p) {
		return err
	}
	return &ProgramError{Message: what, Err: err}
}

// segmentError says that a map's segment is not what the map had written.
type segmentError struct {
	segment *api.ChildSegment
	err     error
}

func (e *segmentError) Error() string {
	return fmt.Sprintf("segment of map %d (attempt %s): %v", e.segment.Map, e.segment.MapAttempt, e.err)
}

func (e *segmentError) Unwrap() error { return e.err }

// maxTail and maxMessage bound what a failure brings into the log, in bytes.
const (
	maxTail    = 1 << 10
	maxMessage = 512
)

// tail gives the last max bytes of s, from the start of a line where that is near.
func tail(s string, max int) string {
	if len(s) <= max {
		return strings.ToValidUTF8(s, "\uFFFD")
	}
	s = s[len(s)-max:]
	if i := strings.IndexByte(s, '\n'); i >= 0 && i < len(s)/2 {
		s = s[i+1:]
	}
	return strings.ToValidUTF8(s, "")
}

// nodesFault says that a full disk or a store out of reach is the cause, wherever it was
// met: a program that passes such an error on, or trips over it, has done nothing wrong.
func nodesFault(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, objectstore.ErrUnreachable)
}

// namingStore adds which store it was to an error of one that does not answer.
func namingStore(err error, store *api.ObjectStore) error {
	if store.GetEndpoint() == "" || !errors.Is(err, objectstore.ErrUnreachable) {
		return err
	}
	return fmt.Errorf("object store %s: %w", store.GetEndpoint(), err)
}

// failure names the cause of an attempt's end. The place is that of the record
// being processed, where there is one.
func failure(ctx context.Context, err error, url string, offset int64) *api.Failure {
	f := &api.Failure{Kind: api.FailureKind_FAILURE_KIND_NODE, Message: err.Error()}
	var (
		program *ProgramError
		segment *segmentError
		read    *input.ReadError
	)
	switch {
	case errors.As(err, &segment):
		f.Kind = api.FailureKind_FAILURE_KIND_SEGMENT
		f.SegmentMap, f.SegmentAttempt = segment.segment.Map, segment.segment.MapAttempt
	case ctx.Err() != nil:
		f.Kind = api.FailureKind_FAILURE_KIND_KILLED
		f.Message = context.Cause(ctx).Error()
	case nodesFault(err):
		if errors.As(err, &read) {
			f.Input, f.Offset = read.URL, read.Offset
		}
	case errors.As(err, &program):
		f.Kind = api.FailureKind_FAILURE_KIND_PROGRAM
		f.ExitCode, f.Signal = int32(program.ExitCode), program.Signal
		f.StderrTail = tail(program.StderrTail, maxTail)
		f.Input, f.Offset = url, offset
	case errors.As(err, &read):
		f.Input, f.Offset = read.URL, read.Offset
		if !errors.Is(err, objectstore.ErrDenied) {
			f.Kind = api.FailureKind_FAILURE_KIND_PROGRAM // the input itself: damaged, changed, too long a record
		}
	}
	if len(f.Message) > maxMessage {
		f.Message = f.Message[:maxMessage-3] + "..."
	}
	f.Message = strings.ToValidUTF8(f.Message, "\uFFFD")
	return f
}
