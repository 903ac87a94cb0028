package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"millrace/jobs"
	"millrace/master/state"
	"millrace/pkg/bytesize"
	"millrace/pkg/client"
	"millrace/pkg/objectstore"

	"connectrpc.com/connect"
)

// mistake is one thing wrong with a job, and what to do about it.
type mistake struct{ text, next string }

// findings are what the checks of a job came to: what is wrong with it, and what
// could not be found out because the store is away or refuses the key, here or at the nodes.
type findings struct{ mistakes, troubles []mistake }

func (f *findings) wrong(next, format string, args ...any) {
	f.mistakes = append(f.mistakes, mistake{fmt.Sprintf(format, args...), next})
}

// refusal makes one problem of them, nil if there are none. A job with mistakes cannot run however
// often it is submitted; one that only met with trouble may be submitted again as it is.
func (f *findings) refusal() error {
	exit, code := int32(client.ExitUsage), connect.CodeInvalidArgument
	switch {
	case len(f.mistakes)+len(f.troubles) == 0:
		return nil
	case len(f.mistakes) == 0:
		exit, code = client.ExitUnreachable, connect.CodeFailedPrecondition
	}
	p := &problem{code: code, exit: exit}
	var nexts []string
	for _, m := range slices.Concat(f.mistakes, f.troubles) {
		if !slices.Contains(p.errs, m.text) {
			p.errs = append(p.errs, m.text)
		}
		if m.next != "" && !slices.Contains(nexts, m.next) {
			nexts = append(nexts, m.next)
		}
	}
	p.next = strings.Join(nexts, "; ")
	return p
}

// memory makes sure that one of a cluster's nodes has as much as an attempt is to have, if nodes are there.
func (f *findings) memory(bytes, most int64) {
	if most > 0 && bytes > most {
		f.wrong("choose a smaller --memory, or add a node that has as much: millrace node list",
			"memory %s: no node of the cluster has so much for an attempt; the largest has %s", bytesize.Format(bytes), bytesize.Format(most))
	}
}

// largest is the memory of the largest of a cluster's nodes, 0 while none is there. Nodes that are still to come to a new leader are waited
// for, unless one that is there has as much as is wanted.
func (s *Server) largest(ctx context.Context, v *state.View, l *Leader, cluster string, wanted int64) int64 {
	most := func() (bytes int64) {
		for _, n := range l.Sessions.Nodes() {
			if n.Cluster == cluster {
				bytes = max(bytes, n.Memory)
			}
		}
		return bytes
	}
	if most() < wanted {
		s.awaitNodes(ctx, v, l, cluster)
	}
	return most()
}

// reserved looks for a job that will write to the output. The log has the last word on this.
func (f *findings) reserved(v *state.View, output string, id jobs.Clusters) {
	if j := v.Reserved(jobs.Anchored(output, id)); j != nil {
		f.wrong(reservedNext(j.ID), "%s", &state.OutputReservedError{Job: j.ID, Output: output})
	}
}

func reservedNext(job string) string {
	return "choose another output, or wait for that job: millrace job wait " + job
}

// placeError is an error of the store about one of a job's places.
type placeError struct {
	place string // "input s3://…"
	err   error
}

func (e *placeError) Error() string { return e.place + ": " + e.err.Error() }
func (e *placeError) Unwrap() error { return e.err }

// isStoreTrouble says that a check could not be made, as against that it found a mistake.
func isStoreTrouble(err error) bool {
	return errors.Is(err, objectstore.ErrUnreachable) || errors.Is(err, objectstore.ErrDenied) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// trouble notes why a check could not be made. ctx is the checks'.
func (f *findings) trouble(ctx context.Context, endpoint string, err error) {
	if err == nil {
		return
	}
	var place *placeError
	if errors.As(err, &place) && strings.Contains(place.place, " "+objectstore.HDFS) {
		f.troubles = append(f.troubles, mistake{fmt.Sprintf("%s: %s", place.place, objectstore.Cause(err)), filesNext})
		return
	}
	what := "object store " + endpoint
	var refused *objectstore.Error
	answered := errors.As(err, &refused) && refused.Code != ""
	switch {
	case errors.Is(err, context.DeadlineExceeded) && errors.Is(ctx.Err(), context.DeadlineExceeded):
		f.troubles = append(f.troubles, mistake{fmt.Sprintf("%s: %s: no answer within %s", what, objectstore.ErrUnreachable, checkWithin), unreachableNext})
	case errors.Is(err, objectstore.ErrDenied):
		if place != nil && (!answered || refused.Code == "AccessDenied") { // else it is the key, whatever is asked for
			what += ": " + place.place
		}
		f.troubles = append(f.troubles, mistake{fmt.Sprintf("%s: %s", what, because(objectstore.ErrDenied, err)), deniedNext})
	case errors.Is(err, objectstore.ErrUnreachable):
		f.troubles = append(f.troubles, mistake{fmt.Sprintf("%s: %s", what, because(objectstore.ErrUnreachable, err)), unreachableNext})
	default:
		f.troubles = append(f.troubles, mistake{fmt.Sprintf("%s: %s", what, err), unreachableNext})
	}
}

const filesNext = "check that core nodes of the cluster run: millrace node list; it is safe to repeat the command"

// because is a kind of error with its cause, if that says more.
func because(kind, err error) string {
	if cause := objectstore.Cause(err); cause != kind.Error() {
		return kind.Error() + ": " + cause
	}
	return kind.Error()
}
