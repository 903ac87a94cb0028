package task

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"millrace/jobs/input"
	"millrace/pkg/api"
	"millrace/pkg/objectcopy"
	"millrace/pkg/objectstore"
	"millrace/pkg/shortage"
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

// scarce says that the node has run out of something, or that its disk is no good. A full disk is the
// node's trouble wherever it was met: a program that passes such an error on has done nothing wrong.
// Of everything else a program may run out by its own doing.
func scarce(err error) bool {
	var program *ProgramError
	switch shortage.Of(err) {
	case shortage.None:
		return false
	case shortage.Disk:
		return true
	}
	return !errors.As(err, &program) && !errors.Is(err, objectstore.ErrUnreachable)
}

// namingStore adds which store it was to an error of one that does not answer.
func namingStore(err error, store *api.ObjectStore) error {
	if store.GetEndpoint() == "" || !errors.Is(err, objectstore.ErrUnreachable) {
		return err
	}
	if e := new(objectstore.Error); errors.As(err, &e) && strings.HasPrefix(e.URL, objectstore.HDFS) {
		return err // not that one
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
		differs *objectcopy.DiffersError
	)
	switch {
	case errors.As(err, &segment):
		f.Kind = api.FailureKind_FAILURE_KIND_SEGMENT
		f.SegmentMap, f.SegmentAttempt = segment.segment.Map, segment.segment.MapAttempt
	case ctx.Err() != nil:
		f.Kind = api.FailureKind_FAILURE_KIND_KILLED
		f.Message = context.Cause(ctx).Error()
	case scarce(err):
		f.Kind, f.Message = api.FailureKind_FAILURE_KIND_RESOURCE, shortage.Explained(err).Error()
		f.Disk = shortage.Of(err) == shortage.Disk
	case errors.Is(err, objectstore.ErrUnreachable): // whatever a program has made of it
		f.Kind = api.FailureKind_FAILURE_KIND_RESOURCE
		if errors.As(err, &read) {
			f.Input, f.Offset = read.URL, read.Offset
		}
	case errors.Is(err, objectstore.ErrNoSuchUpload): // expired, or dropped by a lifecycle rule
		f.Kind, f.Message = api.FailureKind_FAILURE_KIND_STORE, "the object store has lost the unfinished upload: "+err.Error()
	case errors.As(err, &differs): // and will, wherever it is tried
		f.Kind, f.Input = api.FailureKind_FAILURE_KIND_INPUT, differs.From.String()
	case errors.As(err, &program):
		f.Kind = api.FailureKind_FAILURE_KIND_PROGRAM
		f.ExitCode, f.Signal = int32(program.ExitCode), program.Signal
		f.Message = shortage.Explained(err).Error()
		f.StderrTail = tail(program.StderrTail, maxTail)
		f.Input, f.Offset = url, offset
	case errors.As(err, &read):
		f.Input, f.Offset = read.URL, read.Offset
		switch {
		case read.Lasting():
			f.Kind = api.FailureKind_FAILURE_KIND_INPUT
		case !errors.Is(err, objectstore.ErrDenied):
			f.Kind = api.FailureKind_FAILURE_KIND_PROGRAM
		}
	}
	if len(f.Message) > maxMessage {
		f.Message = f.Message[:maxMessage-3] + "..."
	}
	f.Message = strings.ToValidUTF8(f.Message, "\uFFFD")
	return f
}
