package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
	"millrace/pkg/api/apiconnect"
	"millrace/pkg/security"
)

// fakeMaster answers what the tests call.
type fakeMaster struct {
	apiconnect.UnimplementedMillraceServiceHandler
	apiconnect.UnimplementedWorkerServiceHandler
	apiconnect.UnimplementedJoinServiceHandler

	name   string
	calls  atomic.Int32
	fail   func(call int32) error // of the n-th call, from 1; nil = none
	leader string                 // sessions are sent there

	mu       sync.Mutex
	requests []string // ids of submits
}

func (m *fakeMaster) err() error {
	n := m.calls.Add(1)
	if m.fail == nil {
		return nil
	}
	return m.fail(n)
}

func (m *fakeMaster) GetSite(context.Context, *connect.Request[api.GetSiteRequest]) (*connect.Response[api.Site], error) {
	if err := m.err(); err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.Site{Id: m.name}), nil
}

func (m *fakeMaster) SubmitJob(_ context.Context, r *connect.Request[api.SubmitJobRequest]) (*connect.Response[api.Job], error) {
	m.mu.Lock()
	m.requests = append(m.requests, r.Msg.Spec.RequestId)
	m.mu.Unlock()
	if err := m.err(); err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.Job{Id: "s-1"}), nil
}

func (m *fakeMaster) RevokeJoinToken(context.Context, *connect.Request[api.RevokeJoinTokenRequest]) (*connect.Response[api.RevokeJoinTokenResponse], error) {
	if err := m.err(); err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.RevokeJoinTokenResponse{}), nil
}

func (m *fakeMaster) RotateCA(context.Context, *connect.Request[api.RotateCARequest]) (*connect.Response[api.CAState], error) {
	if err := m.err(); err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.CAState{}), nil
}

func (m *fakeMaster) WatchJob(_ context.Context, r *connect.Request[api.GetJobRequest], s *connect.ServerStream[api.Job]) error {
	n := m.calls.Add(1)
	if err := s.Send(&api.Job{Id: "s-1", Cluster: "j-1", State: "RUNNING", BytesDone: int64(n), Name: r.Msg.Job}); err != nil {
		return err
	}
	if m.fail != nil {
		if err := m.fail(n); err != nil {
			return err
		}
	}
	return s.Send(&api.Job{Id: "s-1", Cluster: "j-1", State: "COMPLETED"})
}

func (m *fakeMaster) Session(_ context.Context, s *connect.BidiStream[api.WorkerMessage, api.MasterMessage]) error {
	if m.leader != "" {
		err := connect.NewError(connect.CodeFailedPrecondition, errors.New("not the leader"))
		err.Meta().Set(LeaderHeader, m.leader)
		return err
	}
	if err := m.err(); err != nil {
		return err
	}
	if _, err := s.Receive(); err != nil {
		return err
	}
	return s.Send(&api.MasterMessage{Message: &api.MasterMessage_Welcome{Welcome: &api.SessionWelcome{Cluster: m.name}}})
}

func (m *fakeMaster) Join(_ context.Context, r *connect.Request[api.JoinRequest]) (*connect.Response[api.JoinResponse], error) {
	return connect.NewResponse(&api.JoinResponse{Site: r.Msg.Token}), nil
}

type pki struct{ *security.CA }

func newPKI(t *testing.T) pki {
	t.Helper()
	ca, err := security.NewCA("ours")
	require.NoError(t, err)
	return pki{ca}
}

func (p pki) issue(t *testing.T, role security.Role, id string) security.Credential {
	t.Helper()
	key, csr, err := security.NewKey()
	require.NoError(t, err)
	cert, _, err := p.Sign(csr, security.Identity{Site: "ours", Role: role, ID: id}, nil, time.Now(), time.Hour)
	require.NoError(t, err)
	return security.Credential{CertPEM: cert, KeyPEM: key, CAPEM: p.CertPEM()}
}

func (p pki) serve(t *testing.T, m *fakeMaster) (url string) {
	t.Helper()
	return p.serveAs(t, m, security.RoleMaster).URL
}

// master is all that a master serves.
type master interface {
	apiconnect.MillraceServiceHandler
	apiconnect.WorkerServiceHandler
	apiconnect.JoinServiceHandler
}

func (p pki) serveAs(t *testing.T, m master, role security.Role) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	_, api := apiconnect.NewMillraceServiceHandler(m)
	_, worker := apiconnect.NewWorkerServiceHandler(m)
	_, join := apiconnect.NewJoinServiceHandler(m)
	s.Config.Handler = muxOf(map[string]handler{
		apiconnect.MillraceServiceName: api, apiconnect.WorkerServiceName: worker, apiconnect.JoinServiceName: join,
	})
	s.EnableHTTP2 = true
	var err error
	s.TLS, err = p.issue(t, role, "i-0000000000000000a").ServerTLS(false)
	require.NoError(t, err)
	s.StartTLS()
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

func (p pki) client(t *testing.T, retryFor time.Duration, servers ...string) *Client {
	t.Helper()
	c, err := New(Config{Servers: servers, Credential: p.issue(t, security.RoleUser, "alice"), RetryFor: retryFor, UserAgent: "test/1"})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// deadAddress is a port where nobody listens.
func deadAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return "https://" + l.Addr().String()
}

func unavailable(until int32) func(int32) error {
	return func(n int32) error {
		if n <= until {
			return connect.NewError(connect.CodeUnavailable, errors.New("no leader yet"))
		}
		return nil
	}
}

func TestTheNextServerIsTried(t *testing.T) {
	p := newPKI(t)
	c := p.client(t, -1, deadAddress(t), p.serve(t, &fakeMaster{name: "second"}))
	for range 2 {
		site, err := c.API().GetSite(t.Context(), connect.NewRequest(&api.GetSiteRequest{}))
		require.NoError(t, err)
		require.Equal(t, "second", site.Msg.Id)
	}
}

func TestANodeThatIsNoMasterIsPassedOver(t *testing.T) {
	p := newPKI(t)
	worker := p.serveAs(t, &fakeMaster{name: "a worker"}, security.RoleWorker)
	c := p.client(t, -1, worker.URL, p.serve(t, &fakeMaster{name: "master"}))
	site, err := c.API().GetSite(t.Context(), connect.NewRequest(&api.GetSiteRequest{}))
	require.NoError(t, err)
	require.Equal(t, "master", site.Msg.Id)
}

func TestUnavailableIsRepeatedElsewhere(t *testing.T) {
	p := newPKI(t)
	stuck, well := &fakeMaster{name: "stuck", fail: unavailable(1 << 30)}, &fakeMaster{name: "well"}
	c := p.client(t, 5*time.Second, p.serve(t, stuck), p.serve(t, well))
	site, err := c.API().GetSite(t.Context(), connect.NewRequest(&api.GetSiteRequest{}))
	require.NoError(t, err)
	require.Equal(t, "well", site.Msg.Id)
	require.EqualValues(t, 1, stuck.calls.Load())
}

func TestASubmitIsRepeatedUnderOneRequestID(t *testing.T) {
	p := newPKI(t)
	m := &fakeMaster{fail: unavailable(2)}
	c := p.client(t, 5*time.Second, p.serve(t, m))
	req := &api.SubmitJobRequest{Spec: &api.JobSpec{}}
	_, err := c.API().SubmitJob(t.Context(), connect.NewRequest(req))
	require.NoError(t, err)
	require.Len(t, m.requests, 3)
	require.NotEmpty(t, m.requests[0])
	require.Equal(t, m.requests[0], m.requests[1])
	require.Equal(t, m.requests[0], m.requests[2])
}

func TestWhatMayNotBeDoneTwiceIsNotRepeated(t *testing.T) {
	p := newPKI(t)
	m := &fakeMaster{fail: unavailable(1)}
	c := p.client(t, 5*time.Second, p.serve(t, m))
	_, err := c.API().RevokeJoinToken(t.Context(), connect.NewRequest(&api.RevokeJoinTokenRequest{}))
	require.Equal(t, connect.CodeUnavailable, connect.CodeOf(err))
	require.EqualValues(t, 1, m.calls.Load())
}

// Where there is no leader nothing was done: the next call is not the second.
func TestWhatWasNotDoneIsRepeated(t *testing.T) {
	p := newPKI(t)
	m := &fakeMaster{fail: notDoneYet(1)}
	c := p.client(t, 5*time.Second, p.serve(t, m))
	_, err := c.API().RevokeJoinToken(t.Context(), connect.NewRequest(&api.RevokeJoinTokenRequest{}))
	require.NoError(t, err)
	require.EqualValues(t, 2, m.calls.Load())
}

func notDoneYet(until int32) func(int32) error {
	return func(n int32) error {
		err := unavailable(until)(n)
		if refused, ok := err.(*connect.Error); ok {
			refused.Meta().Set(NotDoneHeader, "yes")
		}
		return err
	}
}

// To begin a change of the CA twice is to begin it once; --finish makes one more step each time.
func TestAChangeOfTheCAIsRepeatedUnlessItIsFinished(t *testing.T) {
	p := newPKI(t)
	for finish, calls := range map[bool]int32{false: 2, true: 1} {
		m := &fakeMaster{fail: unavailable(1)}
		c := p.client(t, 5*time.Second, p.serve(t, m))
		_, err := c.API().RotateCA(t.Context(), connect.NewRequest(&api.RotateCARequest{Finish: finish}))
		require.Equal(t, finish, err != nil)
		require.Equal(t, calls, m.calls.Load())
	}
}

func TestOtherErrorsAreNotRepeated(t *testing.T) {
	p := newPKI(t)
	m := &fakeMaster{fail: func(int32) error { return connect.NewError(connect.CodeNotFound, errors.New("no")) }}
	c := p.client(t, 5*time.Second, p.serve(t, m))
	_, err := c.API().GetSite(t.Context(), connect.NewRequest(&api.GetSiteRequest{}))
	require.Equal(t, connect.CodeNotFound, connect.CodeOf(err))
	require.EqualValues(t, 1, m.calls.Load())
}

func TestRepeatingEndsWithItsTimeAndWithTheContext(t *testing.T) {
	p := newPKI(t)
	dead := deadAddress(t)
	begin := time.Now()
	_, err := p.client(t, 200*time.Millisecond, dead).API().GetSite(t.Context(), connect.NewRequest(&api.GetSiteRequest{}))
	require.Equal(t, connect.CodeUnavailable, connect.CodeOf(err))
	require.Less(t, time.Since(begin), time.Minute)
	problems := Problems(err)
	require.EqualValues(t, ExitUnreachable, problems.ExitCode)
	require.Equal(t, []string{"no master answers at " + dead + ": connection refused"}, problems.Errors)

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin = time.Now()
	_, err = p.client(t, time.Hour, dead).API().GetSite(ctx, connect.NewRequest(&api.GetSiteRequest{}))
	require.Error(t, err)
	require.Less(t, time.Since(begin), time.Minute)
}

// Nothing that listens at all is told soon, unless it did listen before: then it is about to be started again.
func TestServersThatRefuseAreGivenUpSooner(t *testing.T) {
	p := newPKI(t)
	c, err := New(Config{Servers: []string{deadAddress(t), deadAddress(t)}, Credential: p.issue(t, security.RoleUser, "alice"), RetryFor: time.Hour, RefusedFor: 50 * time.Millisecond})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	_, err = c.API().GetSite(t.Context(), connect.NewRequest(&api.GetSiteRequest{}))
	require.Len(t, Problems(err).Errors, 2)
	require.True(t, Unreached(err))

	s := p.serveAs(t, &fakeMaster{}, security.RoleMaster)
	require.NoError(t, c.SetServers([]string{s.URL}))
	_, err = c.API().GetSite(t.Context(), connect.NewRequest(&api.GetSiteRequest{}))
	require.NoError(t, err)
	s.CloseClientConnections()
	s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err = c.API().GetSite(ctx, connect.NewRequest(&api.GetSiteRequest{}))
	require.Error(t, ctx.Err(), "it was repeated until the context ended")
	require.False(t, Unreached(err))
}

func TestHowLongACallIsRepeated(t *testing.T) {
	r := &retrier{retryFor: 6 * time.Second, refusedFor: 3 * time.Second}
	refusal, late := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}
	for name, c := range map[string]struct {
		err  error
		want time.Duration
	}{
		"all refuse, none was ever reached": {&dialError{errs: []error{refusal, refusal}, unreached: true}, r.refusedFor},
		"all refuse, one was reached":       {&dialError{errs: []error{refusal, refusal}}, r.retryFor},
		"one does not answer":               {&dialError{errs: []error{refusal, late}, unreached: true}, r.retryFor},
		"no leader":                         {errors.New("no leader"), r.retryFor},
	} {
		require.Equal(t, c.want, r.patience(connect.NewError(connect.CodeUnavailable, c.err)), name)
	}
}

func TestSessionGoesToTheLeader(t *testing.T) {
	p := newPKI(t)
	leader := p.serve(t, &fakeMaster{name: "leader"})
	c := p.client(t, -1, p.serve(t, &fakeMaster{name: "follower", leader: leader}))
	_, err := sessionWelcome(t, c)
	require.Equal(t, connect.CodeFailedPrecondition, connect.CodeOf(err))
	welcome, err := sessionWelcome(t, c)
	require.NoError(t, err)
	require.Equal(t, "leader", welcome)
}

// frozenMaster takes sessions and says nothing.
type frozenMaster struct {
	fakeMaster
	taken chan struct{}
}

func (m *frozenMaster) Session(ctx context.Context, _ *connect.BidiStream[api.WorkerMessage, api.MasterMessage]) error {
	if m.calls.Add(1) > 1 {
		return connect.NewError(connect.CodeAborted, errors.New("the one that was given up is asked again"))
	}
	close(m.taken)
	<-ctx.Done()
	return ctx.Err()
}

// A master that is frozen keeps its connections: a session that is given up for its silence is not followed by another one there.
func TestASilentMasterIsPassedOver(t *testing.T) {
	p := newPKI(t)
	frozen := &frozenMaster{taken: make(chan struct{})}
	c := p.client(t, -1, p.serveAs(t, frozen, security.RoleMaster).URL, p.serve(t, &fakeMaster{name: "leader"}))
	ctx, cancel := context.WithCancelCause(t.Context())
	silent, err := c.Session(ctx)
	require.NoError(t, err)
	require.NoError(t, silent.Send(&api.WorkerMessage{}))
	<-frozen.taken
	cancel(fmt.Errorf("%w for 3s", ErrSilent))
	_, err = silent.Receive()
	require.Error(t, err)
	welcome, err := sessionWelcome(t, c)
	require.NoError(t, err)
	require.Equal(t, "leader", welcome)
}

func sessionWelcome(t *testing.T, c *Client) (string, error) {
	t.Helper()
	s, err := c.Session(t.Context())
	require.NoError(t, err)
	_ = s.Send(&api.WorkerMessage{}) // a refusal is told by Receive
	m, err := s.Receive()
	if err != nil {
		return "", err
	}
	return m.GetWelcome().Cluster, nil
}

func TestWatchGoesOnAfterABreak(t *testing.T) {
	p := newPKI(t)
	m := &fakeMaster{fail: unavailable(2)}
	c := p.client(t, -1, p.serve(t, m))
	var states, refs []string
	for job, err := range c.Watch(t.Context(), &api.GetJobRequest{Job: "last"}, 5*time.Second) {
		require.NoError(t, err)
		states = append(states, job.State)
		refs = append(refs, job.Name)
	}
	require.Equal(t, []string{"RUNNING", "RUNNING", "RUNNING", "COMPLETED"}, states)
	require.Equal(t, []string{"last", "s-1", "s-1"}, refs[:3], "what was last at first stays the one")
}

// A follower that forwards a stream resets it when the leader dies under it.
func TestAStreamThatIsResetIsBroken(t *testing.T) {
	reset := connect.NewError(connect.CodeInternal, errors.New("stream error: stream ID 1; INTERNAL_ERROR; received from peer"))
	require.True(t, passing(t.Context(), reset))
	require.False(t, passing(t.Context(), connect.NewError(connect.CodeInternal, errors.New("a defect"))))
}

func TestJoinUsesTheToken(t *testing.T) {
	ours, theirs := newPKI(t), newPKI(t)
	token, err := security.NewToken(ours.CertPEM())
	require.NoError(t, err)
	resp, err := Join(t.Context(), []string{deadAddress(t), ours.serve(t, &fakeMaster{})}, token.String(), &api.JoinRequest{})
	require.NoError(t, err)
	require.Equal(t, token.String(), resp.Site)

	_, err = Join(t.Context(), []string{theirs.serve(t, &fakeMaster{})}, token.String(), &api.JoinRequest{})
	require.ErrorIs(t, err, security.ErrUntrusted, "the secret is not told to a stranger")
	require.EqualValues(t, ExitUnreachable, Problems(err).ExitCode)
	_, err = Join(t.Context(), []string{"https://x:1"}, "mr1.x", &api.JoinRequest{})
	require.EqualValues(t, ExitUsage, Problems(err).ExitCode)
}

func TestServersAreChecked(t *testing.T) {
	p := newPKI(t)
	for _, servers := range [][]string{nil, {""}, {"http://h:1"}, {"https://h"}, {"https://h:1/path"}, {"h"}} {
		_, err := New(Config{Servers: servers, Credential: p.issue(t, security.RoleUser, "a")})
		require.Error(t, err, "%v", servers)
	}
	c := p.client(t, -1, "h:1", "https://h:2/")
	require.Error(t, c.SetServers(nil))
	url := p.serve(t, &fakeMaster{name: "new"})
	require.NoError(t, c.SetServers([]string{url}))
	site, err := c.API().GetSite(t.Context(), connect.NewRequest(&api.GetSiteRequest{}))
	require.NoError(t, err)
	require.Equal(t, "new", site.Msg.Id)
	require.NoError(t, c.Close())
	_, err = c.API().GetSite(t.Context(), connect.NewRequest(&api.GetSiteRequest{}))
	require.ErrorIs(t, err, ErrClosed)
	_, err = c.Session(t.Context())
	require.ErrorIs(t, err, ErrClosed)
}

func TestProblems(t *testing.T) {
	detailed := connect.NewError(connect.CodeInvalidArgument, errors.New("x"))
	detail, err := connect.NewErrorDetail(&api.Problems{Errors: []string{"a", "b"}, Next: "n", ExitCode: 2})
	require.NoError(t, err)
	detailed.AddDetail(detail)
	require.Equal(t, []string{"a", "b"}, Problems(detailed).Errors)
	require.Nil(t, Problems(nil))
	for code, exit := range map[connect.Code]int32{
		connect.CodeUnavailable: 3, connect.CodeUnauthenticated: 3, connect.CodePermissionDenied: 3, connect.CodeNotFound: 4,
		connect.CodeInvalidArgument: 2, connect.CodeDeadlineExceeded: 124, connect.CodeCanceled: 130, connect.CodeInternal: 1,
	} {
		require.Equal(t, exit, Problems(connect.NewError(code, errors.New("why"))).ExitCode, code.String())
	}
	require.EqualValues(t, 1, Problems(errors.New("x")).ExitCode)
	require.EqualValues(t, 3, Problems(ErrNoContext).ExitCode)
}
