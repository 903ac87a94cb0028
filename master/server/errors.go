package server

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"millrace/jobs/input"
	"millrace/master/session"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/client"
	"millrace/pkg/objectstore"
	"millrace/pkg/protocol"
	"millrace/pkg/security"
)

// problem is an error made for people: a line per mistake, and what to do.
type problem struct {
	code connect.Code
	errs []string
	next string
	exit int32
}

func (p *problem) Error() string {
	if len(p.errs) == 1 {
		return p.errs[0]
	}
	return fmt.Sprintf("%d mistakes: %s; …", len(p.errs), p.errs[0])
}

// usage is a request that cannot be carried out as it is: nothing was started.
func usage(next string, errs ...string) *problem {
	return &problem{code: connect.CodeInvalidArgument, errs: errs, next: next, exit: client.ExitUsage}
}

// notFound is for what the command itself names.
func notFound(next, format string, args ...any) *problem {
	return &problem{code: connect.CodeNotFound, errs: []string{fmt.Sprintf(format, args...)}, next: next, exit: client.ExitNotFound}
}

// failure is for a request that is right but comes at the wrong moment.
func failure(next, format string, args ...any) *problem {
	return &problem{code: connect.CodeFailedPrecondition, errs: []string{fmt.Sprintf(format, args...)}, next: next, exit: client.ExitFailed}
}

// rule says what a sentinel error becomes.
type rule struct {
	is   error
	code connect.Code
	exit int32
	next string
}

// What to do about a store that is away or refuses.
const (
	unreachableNext = "check that the object store runs and that the masters can reach it; it is safe to repeat the command"
	deniedNext      = "check the object store's keys and what they allow"
)

// rules are tried in order. An unreachable or unwilling store is not CodeUnavailable, by
// which clients would repeat the call to a master in vain.
var rules = []rule{
	{ErrNotLeader, connect.CodeUnavailable, client.ExitUnreachable, "it is safe to repeat the command"},
	{ErrUpgrading, connect.CodeFailedPrecondition, client.ExitFailed, "upgrade the older masters: millrace master list"},
	{ErrUnsettled, connect.CodeFailedPrecondition, client.ExitFailed, "millrace master list"},
	{state.ErrToken, connect.CodeUnauthenticated, client.ExitUnreachable, "make a new one: millrace join-token create"},
	{security.ErrMalformedToken, connect.CodeInvalidArgument, client.ExitUsage, "copy the whole token, or make a new one: millrace join-token create"},
	{security.ErrMalformedCode, connect.CodeInvalidArgument, client.ExitUsage, "copy the whole code, or ask an administrator for a new one: millrace user code NAME"},
	{security.ErrIdentity, connect.CodeInvalidArgument, client.ExitUsage, ""},
	{state.ErrTooLate, connect.CodeFailedPrecondition, client.ExitFailed, ""},
	{state.ErrNotReady, connect.CodeFailedPrecondition, client.ExitFailed, ""},
	{state.ErrProtected, connect.CodeFailedPrecondition, client.ExitFailed, "millrace cluster set --termination-protected=false"},
	{state.ErrLedger, connect.CodeDataLoss, client.ExitFailed, ""},
	{state.ErrNotFound, connect.CodeNotFound, client.ExitNotFound, ""},
	{state.ErrExists, connect.CodeAlreadyExists, client.ExitFailed, ""},
	{objectstore.ErrUnreachable, connect.CodeFailedPrecondition, client.ExitUnreachable, unreachableNext},
	{objectstore.ErrDenied, connect.CodeFailedPrecondition, client.ExitUnreachable, deniedNext},
	{objectstore.ErrNoSuchBucket, connect.CodeInvalidArgument, client.ExitUsage, ""},
	{objectstore.ErrNotExist, connect.CodeNotFound, client.ExitNotFound, ""},
	{session.ErrStaleTerm, connect.CodeUnavailable, client.ExitUnreachable, ""},
	{session.ErrClosed, connect.CodeUnavailable, client.ExitUnreachable, ""},
	{session.ErrLeaseOver, connect.CodeUnavailable, client.ExitUnreachable, ""},
	{session.ErrOverflow, connect.CodeUnavailable, client.ExitUnreachable, ""},
	{session.ErrDuplicate, connect.CodeAlreadyExists, client.ExitFailed, ""},
	{session.ErrMisplaced, connect.CodeAborted, client.ExitFailed, ""},
	{session.ErrReplaced, connect.CodeAborted, client.ExitFailed, ""},
	{session.ErrUnknownNode, connect.CodeUnauthenticated, client.ExitUnreachable, "join with a token"},
	{session.ErrTerminated, connect.CodeUnauthenticated, client.ExitUnreachable, ""},
	{session.ErrProtocol, connect.CodeInvalidArgument, client.ExitFailed, ""},
	{context.Canceled, connect.CodeCanceled, client.ExitInterrupted, ""},
	{context.DeadlineExceeded, connect.CodeDeadlineExceeded, client.ExitTimeout, ""},
}

// toConnect is the one place where errors become codes and details.
func toConnect(err error) error {
	if err == nil {
		return nil
	}
	var (
		skew *protocol.Skew
		done *connect.Error
		p    *problem
		none *input.NoMatchError
		held *state.OutputReservedError
	)
	switch {
	case errors.As(err, &p):
		return withDetail(p.code, err, &api.Problems{Errors: p.errs, Next: p.next, ExitCode: p.exit})
	case errors.As(err, &done):
		return done
	case errors.As(err, &skew):
		return withDetail(connect.CodeFailedPrecondition, err, &api.Problems{Errors: []string{skew.Error()}, Next: skew.Next(), ExitCode: client.ExitUnreachable})
	case errors.As(err, &held): // another submit was faster
		return withDetail(connect.CodeFailedPrecondition, err, &api.Problems{Errors: []string{held.Error()}, Next: reservedNext(held.Job), ExitCode: client.ExitUsage})
	case errors.As(err, &none):
		return withDetail(connect.CodeInvalidArgument, err, &api.Problems{Errors: []string{none.Error()}, ExitCode: client.ExitUsage})
	}
	for _, r := range rules {
		if errors.Is(err, r.is) {
			next := r.next
			if own := objectstore.Advice(err); own != "" {
				next = own
			}
			return withDetail(r.code, err, &api.Problems{Errors: []string{err.Error()}, Next: next, ExitCode: r.exit})
		}
	}
	return withDetail(connect.CodeInternal, err, &api.Problems{Errors: []string{err.Error()}, ExitCode: client.ExitFailed})
}

func withDetail(code connect.Code, err error, p *api.Problems) error {
	ce := connect.NewError(code, err)
	if d, detailErr := connect.NewErrorDetail(p); detailErr == nil {
		ce.AddDetail(d)
	}
	return ce
}

func connectMessage(err error) string {
	var ce *connect.Error
	if errors.As(err, &ce) {
		return ce.Message()
	}
	return err.Error()
}

// errorInterceptor turns the handlers' errors into what callers get, and
// logs those that are our own fault: the caller alone cannot mend them.
type errorInterceptor struct {
	log     *zap.Logger
	deposed func(ctx context.Context, err error) error // says more of an error that is ErrNotLeader
}

func (e *errorInterceptor) turn(ctx context.Context, procedure string, err error) error {
	err = toConnect(e.deposed(ctx, err))
	if err != nil && connect.CodeOf(err) == connect.CodeInternal {
		e.log.Error("call failed", zap.String("procedure", procedure), zap.Error(err))
	}
	return err
}

func (e *errorInterceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		resp, err := next(ctx, req)
		if err != nil {
			return nil, e.turn(ctx, req.Spec().Procedure, err)
		}
		return resp, nil
	}
}

func (e *errorInterceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (e *errorInterceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return e.turn(ctx, conn.Spec().Procedure, next(ctx, conn))
	}
}
