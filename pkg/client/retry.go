package client

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	mathrand "math/rand/v2"
	"net"
	"strings"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"millrace/pkg/api"
	"millrace/pkg/api/apiconnect"
)

const (
	backoffFirst = 25 * time.Millisecond
	backoffMost  = time.Second
)

// retrier repeats unary calls while no master, or no leader, is available.
type retrier struct {
	channel  *channel
	log      *zap.Logger
	retryFor time.Duration
	// refusedFor is retryFor while all servers refuse the connection and none has been reached yet.
	refusedFor time.Duration
	waiting    func() // Config's
}

// repeatable says for a request whether doing it twice is as good as once. All
// that is not named here is repeated only if it was surely not done.
func repeatable(procedure string, message any) bool {
	switch procedure {
	case apiconnect.MillraceServiceRotateCAProcedure:
		q, ok := message.(*api.RotateCARequest)
		return ok && !q.GetFinish() // which makes a step each time
	case apiconnect.MillraceServiceGetSiteProcedure,
		apiconnect.MillraceServiceMissingFilesProcedure,
		apiconnect.MillraceServiceSubmitJobProcedure, // by its request id
		apiconnect.MillraceServiceGetJobProcedure,
		apiconnect.MillraceServiceExplainJobProcedure,
		apiconnect.MillraceServiceListJobsProcedure,
		apiconnect.MillraceServiceCancelJobProcedure,
		apiconnect.MillraceServiceListTasksProcedure,
		apiconnect.MillraceServiceListNodesProcedure,
		apiconnect.MillraceServiceGetClusterProcedure,
		apiconnect.MillraceServiceListClustersProcedure,
		apiconnect.MillraceServiceResizeClusterProcedure,
		apiconnect.MillraceServiceSetClusterProcedure,
		apiconnect.MillraceServiceTerminateClusterProcedure,
		apiconnect.MillraceServiceListEventsProcedure,
		apiconnect.MillraceServiceListBinariesProcedure,
		apiconnect.MillraceServiceCreateClusterProcedure, // by its request id, as are the next three
		apiconnect.MillraceServiceCreateJoinTokenProcedure,
		apiconnect.MillraceServiceCreateUserProcedure,
		apiconnect.MillraceServiceCreateLoginCodeProcedure,
		apiconnect.MillraceServiceListUsersProcedure,
		apiconnect.MillraceServiceRenewLoginProcedure,
		apiconnect.MillraceServiceSetSiteProcedure,
		apiconnect.MillraceServiceListJoinTokensProcedure,
		apiconnect.MillraceServiceAddMasterProcedure,
		apiconnect.MillraceServiceRemoveMasterProcedure,
		apiconnect.MillraceServiceDrainNodeProcedure,
		apiconnect.MillraceServiceGetDrainProcedure,
		apiconnect.MillraceServiceResumeNodeProcedure,
		apiconnect.MillraceServiceRemoveNodeProcedure,
		apiconnect.MillraceServiceUploadFileProcedure, // by its SHA-256
		apiconnect.MillraceServiceJobLogsProcedure,
		apiconnect.MillraceServiceNodeLogsProcedure,
		apiconnect.MillraceServiceBackupProcedure,
		apiconnect.WorkerServiceMembersProcedure,
		apiconnect.FilesServiceStatFileProcedure,
		apiconnect.FilesServiceListFolderProcedure,
		apiconnect.FilesServiceFileUsageProcedure,
		apiconnect.FilesServiceLocateFileProcedure,
		apiconnect.FilesServiceCreateFileProcedure, // by its lease
		apiconnect.FilesServiceAddBlockProcedure,   // by the block before
		apiconnect.FilesServiceRestampBlockProcedure,
		apiconnect.FilesServiceCompleteFileProcedure,
		apiconnect.FilesServiceAbandonFileProcedure,
		apiconnect.FilesServiceRenewLeasesProcedure,
		apiconnect.FilesServiceMakeFolderProcedure,
		apiconnect.FilesServiceSetReplicationProcedure,
		apiconnect.FilesServiceReportBadReplicaProcedure,
		apiconnect.FilesServiceCheckFilesProcedure:
		return true
	}
	return false
}

// requestID is where a request keeps the id by which it can be repeated; nil if it has none.
func requestID(message any) *string {
	switch m := message.(type) {
	case *api.SubmitJobRequest:
		if m.GetSpec() != nil {
			return &m.Spec.RequestId
		}
	case *api.CreateClusterRequest:
		return &m.RequestId
	case *api.CreateJoinTokenRequest:
		return &m.RequestId
	case *api.CreateUserRequest:
		return &m.RequestId
	case *api.CreateLoginCodeRequest:
		return &m.RequestId
	}
	return nil
}

func (r *retrier) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if id := requestID(req.Any()); id != nil && *id == "" {
			*id = rand.Text()
		}
		t := newTrouble()
		for {
			generation := r.channel.present()
			resp, err := next(ctx, req)
			err = r.channel.outvoted(err)
			if err == nil || !r.again(ctx, req.Spec().Procedure, req.Any(), err) || !r.wait(ctx, t, req.Spec().Procedure, generation, err) {
				return resp, err // when time is up, what was wrong says more than that
			}
		}
	}
}

// Repeat does what a stream is opened for, and does it anew while that ends with an error of the call that may pass, as other calls are
// repeated by themselves: of a procedure that may not be done twice only if nothing was done. A try that says that it got further than
// those before had found a leader, as had one that lasted: how long it is tried counts from its end, as it does from the end of the first.
func (c *Client) Repeat(ctx context.Context, procedure string, try func() (came bool, err error)) error {
	var t *trouble
	for {
		generation, begun := c.api.present(), time.Now()
		came, err := try()
		if came || t == nil || time.Since(begun) > c.retry.retryFor {
			t = newTrouble()
		}
		var ofCall *connect.Error // not of what the caller does with what comes
		if !errors.As(err, &ofCall) || !c.retry.again(ctx, procedure, nil, err) {
			return err
		}
		if !c.retry.wait(ctx, t, procedure, generation, err) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
	}
}

// trouble is what the repetitions of a call go by.
type trouble struct {
	since   time.Time
	backoff time.Duration
	told    bool // that the call waits
}

func newTrouble() *trouble { return &trouble{since: time.Now(), backoff: backoffFirst} }

// wait waits until it is time to repeat a call that ended with an error, at the next server; false: no more.
func (r *retrier) wait(ctx context.Context, t *trouble, procedure string, generation uint64, err error) bool {
	r.channel.rotate(generation)
	wait := jitter(t.backoff)
	if time.Since(t.since)+wait > r.patience(err) {
		return false
	}
	if !t.told && r.waiting != nil && time.Since(t.since) > WaitingAfter {
		t.told = true
		r.waiting()
	}
	r.log.Debug("master unavailable: call is repeated",
		zap.String("procedure", procedure), zap.Duration("after", wait), zap.Error(err))
	select {
	case <-time.After(wait):
	case <-ctx.Done():
		return false
	}
	t.backoff = min(2*t.backoff, backoffMost)
	return true
}

// patience is how long a call is repeated that ends with this error.
func (r *retrier) patience(err error) time.Duration {
	if Unreached(err) && refused(err) {
		return r.refusedFor
	}
	return r.retryFor
}

func (r *retrier) again(ctx context.Context, procedure string, message any, err error) bool {
	return passing(ctx, err) && (repeatable(procedure, message) || notDone(err))
}

// notDone says whether an error is of a request that surely was not carried out: no server got it, or the one that did knew of no leader.
func notDone(err error) bool {
	var dial *dialError
	var refused *connect.Error
	return errors.As(err, &dial) || errors.As(err, &refused) && refused.Meta().Get(NotDoneHeader) != ""
}

// passing says whether an error may be gone when one asks again. A connection that breaks
// under a call, or while it is made, can come as "canceled" though the caller has cancelled nothing.
func passing(ctx context.Context, err error) bool {
	if errors.Is(err, ErrClosed) || Untrusted(err) {
		return false
	}
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable:
		return true
	case connect.CodeCanceled:
		return ctx.Err() == nil
	case connect.CodeInternal, connect.CodeUnknown:
		return ctx.Err() == nil && broken(err)
	}
	return false
}

// broken says whether an answer did not come to its end because the connection did not last, as
// when the master is killed. What the master itself answered is not of that kind.
func broken(err error) bool {
	if connect.IsWireError(err) {
		return false
	}
	var network net.Error
	text := err.Error() // net/http has no types for these; a follower that loses the leader in mid-answer resets the stream
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &network) ||
		strings.Contains(text, "http2: ") || strings.Contains(text, "stream error: stream ID ")
}

// jitter spreads callers over the second half of the wait.
func jitter(d time.Duration) time.Duration {
	return d/2 + mathrand.N(d/2+1)
}

func (r *retrier) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return &watchedConn{StreamingClientConn: next(ctx, spec), channel: r.channel, failed: func(generation uint64, err error) {
			if passing(ctx, err) {
				r.channel.rotate(generation)
			}
		}, generation: r.channel.present()}
	}
}

func (r *retrier) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// leaderFollower learns from a refused session where the next one has to go.
type leaderFollower struct{ channel *channel }

func (l *leaderFollower) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

func (l *leaderFollower) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return &watchedConn{StreamingClientConn: next(ctx, spec), channel: l.channel, failed: func(generation uint64, err error) {
			l.failed(ctx, generation, err)
		}, generation: l.channel.present()}
	}
}

func (l *leaderFollower) failed(ctx context.Context, generation uint64, err error) {
	if errors.Is(context.Cause(ctx), ErrSilent) {
		l.channel.rotate(generation)
		return
	}
	var refused *connect.Error
	if !errors.As(err, &refused) {
		return
	}
	if leader := refused.Meta().Get(LeaderHeader); leader != "" {
		if a, err := addressesOf([]string{leader}); err == nil {
			l.channel.redirect(a[0])
			return
		}
	}
	if refused.Code() == connect.CodeUnavailable || refused.Code() == connect.CodeFailedPrecondition || broken(err) {
		l.channel.rotate(generation)
	}
}

func (l *leaderFollower) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// watchedConn tells of the error that ends a stream.
type watchedConn struct {
	connect.StreamingClientConn
	channel    *channel
	failed     func(generation uint64, err error)
	generation uint64
}

func (w *watchedConn) Receive(msg any) error {
	err := w.StreamingClientConn.Receive(msg)
	if err != nil && !errors.Is(err, io.EOF) {
		w.failed(w.generation, err)
		err = w.channel.outvoted(err)
	}
	return err
}
