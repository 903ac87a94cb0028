package client

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"millrace/pkg/api"
	"millrace/pkg/protocol"
	"millrace/pkg/security"
)

// Exit codes of the command line.
const (
	ExitFailed      = 1
	ExitUsage       = 2
	ExitUnreachable = 3
	ExitNotFound    = 4
	ExitTimeout     = 124
	ExitInterrupted = 130
)

// Problems says what an error of a call means for people: a line per mistake,
// what to do next, and the exit code. What the master said (an api.Problems detail) goes
// first; the rest is told from the error itself. It is never nil for an error, nil for none.
func Problems(err error) *api.Problems {
	if err == nil {
		return nil
	}
	var ce *connect.Error
	if errors.As(err, &ce) {
		for _, d := range ce.Details() {
			if v, decodeErr := d.Value(); decodeErr == nil {
				if p, ok := v.(*api.Problems); ok && len(p.GetErrors()) > 0 {
					return p
				}
			}
		}
	}
	var skew *protocol.Skew
	if errors.As(err, &skew) {
		return &api.Problems{Errors: []string{skew.Error()}, Next: skew.Next(), ExitCode: ExitUnreachable}
	}
	if p := connectionProblems(err); p != nil {
		return p
	}
	if ce != nil {
		return codeProblems(ce)
	}
	p := &api.Problems{Errors: []string{err.Error()}, ExitCode: ExitFailed}
	switch {
	case errors.Is(err, context.Canceled):
		p.ExitCode = ExitInterrupted
	case errors.Is(err, context.DeadlineExceeded):
		p.ExitCode = ExitTimeout
	case errors.Is(err, security.ErrMalformedToken):
		p.ExitCode = ExitUsage
	case errors.Is(err, ErrNoContext):
		p.ExitCode = ExitUnreachable
		p.Next = "start a cluster with `millrace dev`, or name a master with --server URL"
	}
	return p
}

// connectionProblems is for errors that came from no master.
func connectionProblems(err error) *api.Problems {
	if Untrusted(err) {
		return trustProblems(err)
	}
	var dial *dialError
	if !errors.As(err, &dial) {
		return nil
	}
	p := &api.Problems{
		Next:     "check that a master runs there (millrace dev starts a local cluster) and that --server, MILLRACE_SERVER or the context name it",
		ExitCode: ExitUnreachable,
	}
	for i, e := range dial.errs {
		p.Errors = append(p.Errors, fmt.Sprintf("no master answers at https://%s: %s", dial.servers[i], rootCause(e)))
	}
	return p
}

func codeProblems(ce *connect.Error) *api.Problems {
	p := &api.Problems{Errors: []string{ce.Message()}, ExitCode: ExitFailed}
	switch ce.Code() {
	case connect.CodeUnavailable:
		p.ExitCode = ExitUnreachable
		p.Next = "it is safe to repeat the command; millrace cluster show says how the masters are"
	case connect.CodeUnauthenticated, connect.CodePermissionDenied:
		p.ExitCode = ExitUnreachable
		p.Next = "check the credential of the context: millrace context show"
	case connect.CodeNotFound:
		p.ExitCode = ExitNotFound
	case connect.CodeInvalidArgument:
		p.ExitCode = ExitUsage
	case connect.CodeDeadlineExceeded:
		p.ExitCode = ExitTimeout
	case connect.CodeCanceled:
		p.ExitCode = ExitInterrupted
	case connect.CodeUnimplemented:
		p.Next = "the master is of another version: compare millrace version on both sides"
	}
	return p
}

// rootMessage is the message from the sentinel on, without the layers above it.
func rootMessage(err, sentinel error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil || !errors.Is(next, sentinel) || next == sentinel {
			return err.Error()
		}
		err = next
	}
}

// rootCause is the innermost error's message.
func rootCause(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err.Error()
		}
		err = next
	}
}
