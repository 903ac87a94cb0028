package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	"millrace/pkg/api"
	"millrace/pkg/api/apiconnect"
	"millrace/pkg/client"
	"millrace/pkg/security"
)

// fakeMaster answers as a master does, from what a test put into it.
type fakeMaster struct {
	apiconnect.UnimplementedMillraceServiceHandler
	mu        sync.Mutex // guards tokens
	submitted *api.SubmitJobRequest
	jobs      []*api.Job // successive states that WatchJob sends; the last one is GetJob's
	refuse    error      // of SubmitJob
	nodes     []*api.Node
	tokens    []*api.CreateJoinTokenRequest
	uploaded  map[string][]byte
	listed    []*api.JoinToken
	cluster   *api.Cluster
	cancelErr error
	hang      bool // WatchJob goes on for ever after the first state
	brief     string
	makeToken func() (*api.JoinToken, error) // nil: one that is none
	binaries  *api.ListBinariesResponse
	lists     int // how often it was asked for a list

	drained  *api.DrainNodeRequest
	drains   []*api.NodeDrain // successive answers about a drain; the last one goes on
	drainErr []error          // of the first of GetDrain
	removed  *api.RemoveNodeRequest

	clusters clusterCalls
}

func (f *fakeMaster) GetSite(context.Context, *connect.Request[api.GetSiteRequest]) (*connect.Response[api.Site], error) {
	return connect.NewResponse(&api.Site{Id: "site", SystemPrefix: "s3://millrace-system/"}), nil
}

func (f *fakeMaster) SubmitJob(_ context.Context, r *connect.Request[api.SubmitJobRequest]) (*connect.Response[api.Job], error) {
	f.submitted = r.Msg
	if f.refuse != nil {
		return nil, f.refuse
	}
	return connect.NewResponse(f.jobs[0]), nil
}

func (f *fakeMaster) find(name string) (*api.Job, error) {
	j := f.jobs[len(f.jobs)-1]
	if name != j.GetId() && name != "last" && name != j.GetName() {
		return nil, problem(connect.CodeNotFound, "no job "+name, "millrace job list", 4)
	}
	return j, nil
}

func (f *fakeMaster) GetJob(_ context.Context, r *connect.Request[api.GetJobRequest]) (*connect.Response[api.Job], error) {
	j, err := f.find(r.Msg.GetJob())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(j), nil
}

func (f *fakeMaster) ExplainJob(_ context.Context, r *connect.Request[api.GetJobRequest]) (*connect.Response[api.JobExplanation], error) {
	j, err := f.find(r.Msg.GetJob())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.JobExplanation{Job: j, Cause: "the mapper ended with exit code 3", Details: []string{"the same every time, on 2 nodes"},
		Next: "millrace job logs " + j.GetId() + " --attempt " + j.GetFailure().GetAttempt(), Failure: j.GetFailure()}), nil
}

func (f *fakeMaster) ListJobs(_ context.Context, r *connect.Request[api.ListJobsRequest]) (*connect.Response[api.ListJobsResponse], error) {
	list := f.jobs
	if before := int(r.Msg.GetBefore()); before > 0 {
		list = list[len(list)-before:]
	}
	resp := &api.ListJobsResponse{Jobs: list, Brief: f.brief}
	if limit := int(r.Msg.GetLimit()); limit > 0 && limit < len(list) {
		resp.Jobs, resp.More = list[:limit], uint64(len(list)-limit)
	}
	f.lists++
	return connect.NewResponse(resp), nil
}

func (f *fakeMaster) WatchJob(ctx context.Context, r *connect.Request[api.GetJobRequest], s *connect.ServerStream[api.Job]) error {
	if _, err := f.find(r.Msg.GetJob()); err != nil {
		return err
	}
	for _, j := range f.jobs {
		if err := s.Send(j); err != nil {
			return err
		}
		if f.hang {
			<-ctx.Done()
			return ctx.Err()
		}
	}
	return nil
}

func (f *fakeMaster) CancelJob(_ context.Context, r *connect.Request[api.CancelJobRequest]) (*connect.Response[api.Job], error) {
	j, err := f.find(r.Msg.GetJob())
	if err == nil {
		err = f.cancelErr
	}
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(j), nil
}

func (f *fakeMaster) ListJoinTokens(context.Context, *connect.Request[api.ListJoinTokensRequest]) (*connect.Response[api.ListJoinTokensResponse], error) {
	return connect.NewResponse(&api.ListJoinTokensResponse{Tokens: f.listed}), nil
}

func (f *fakeMaster) RevokeJoinToken(_ context.Context, r *connect.Request[api.RevokeJoinTokenRequest]) (*connect.Response[api.RevokeJoinTokenResponse], error) {
	return nil, problem(connect.CodeNotFound, "join token "+r.Msg.GetId()+": not found", "", 4)
}

func (f *fakeMaster) ListNodes(context.Context, *connect.Request[api.ListNodesRequest]) (*connect.Response[api.ListNodesResponse], error) {
	return connect.NewResponse(&api.ListNodesResponse{Nodes: f.nodes}), nil
}

func (f *fakeMaster) CreateJoinToken(_ context.Context, r *connect.Request[api.CreateJoinTokenRequest]) (*connect.Response[api.JoinToken], error) {
	f.mu.Lock()
	f.tokens = append(f.tokens, r.Msg)
	f.mu.Unlock()
	if f.makeToken != nil {
		token, err := f.makeToken()
		return connect.NewResponse(token), err
	}
	return connect.NewResponse(&api.JoinToken{Id: "t1", Token: "mr1.t1.secret.hash", Role: r.Msg.GetRole(), UsesLeft: -1}), nil
}

func (f *fakeMaster) MissingFiles(_ context.Context, r *connect.Request[api.MissingFilesRequest]) (*connect.Response[api.MissingFilesResponse], error) {
	return connect.NewResponse(&api.MissingFilesResponse{Sha256: r.Msg.GetSha256()}), nil
}

func (f *fakeMaster) UploadFile(_ context.Context, s *connect.ClientStream[api.UploadFileRequest]) (*connect.Response[api.UploadFileResponse], error) {
	sum, data := "", []byte(nil)
	for s.Receive() {
		if s.Msg().GetSha256() != "" {
			sum = s.Msg().GetSha256()
		}
		data = append(data, s.Msg().GetData()...)
	}
	if s.Err() != nil {
		return nil, s.Err()
	}
	if f.uploaded == nil {
		f.uploaded = map[string][]byte{}
	}
	f.uploaded[sum] = data
	return connect.NewResponse(&api.UploadFileResponse{}), nil
}

// problem is an error with the detail that masters send.
func problem(code connect.Code, message, next string, exit int32) error {
	e := connect.NewError(code, errors.New(message))
	d, err := connect.NewErrorDetail(&api.Problems{Errors: strings.Split(message, "\n"), Next: next, ExitCode: exit})
	if err != nil {
		panic(err) // a test's own mistake
	}
	e.AddDetail(d)
	return e
}

// session is a home folder whose current context leads to a fake master.
type session struct {
	t    *testing.T
	home string
	vars map[string]string
	in   string
}

func newSession(t *testing.T) *session {
	return &session{t: t, home: t.TempDir(), vars: map[string]string{}}
}

// serve starts the fake master and makes the context dev.
func (s *session) serve(f apiconnect.MillraceServiceHandler) *session {
	s.t.Helper()
	ca, err := security.NewCA("site")
	require.NoError(s.t, err)
	credential := func(id security.Identity, ips ...string) security.Credential {
		key, csr, err := security.NewKey()
		require.NoError(s.t, err)
		cert, _, err := ca.Sign(csr, id, ips, time.Now(), time.Hour)
		require.NoError(s.t, err)
		return security.Credential{CertPEM: cert, KeyPEM: key, CAPEM: ca.CertPEM()}
	}
	_, handler := apiconnect.NewMillraceServiceHandler(f)
	srv := httptest.NewUnstartedServer(handler)
	srv.TLS, err = credential(security.Identity{Site: "site", Role: security.RoleMaster, ID: "i-0123456789abcdef0"}, "127.0.0.1").ServerTLS(true)
	require.NoError(s.t, err)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	s.t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	user := credential(security.Identity{Site: "site", Role: security.RoleUser, ID: "admin"})
	home := s.home + "/.millrace"
	require.NoError(s.t, client.SaveContext(home, &client.Context{Name: "dev", Servers: []string{srv.URL}, CA: string(user.CAPEM), Certificate: string(user.CertPEM), Key: string(user.KeyPEM),
		S3: &client.S3{Endpoint: "http://127.0.0.1:9", AccessKey: "ak", SecretKey: "it's secret"}}))
	require.NoError(s.t, client.UseContext(home, "dev"))
	return s
}

type output struct {
	out, err string
	code     int
}

func (s *session) run(args ...string) output {
	s.t.Helper()
	return s.runContext(context.Background(), args...)
}

func (s *session) runContext(ctx context.Context, args ...string) output {
	s.t.Helper()
	var out, errs bytes.Buffer
	code := Run(ctx, args, Env{Stdin: strings.NewReader(s.in), Stdout: &out, Stderr: &errs, Getenv: func(k string) string { return s.vars[k] }, Home: s.home})
	return output{out.String(), errs.String(), code}
}

// json decodes the one document on standard output.
func (o output) json(t *testing.T) (v any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(o.out))
	require.NoError(t, d.Decode(&v), o.out+o.err)
	require.False(t, d.More(), "more than one document: %s", o.out)
	return v
}

func at(s string) *timestamppb.Timestamp {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		panic(err) // a test's own mistake
	}
	return timestamppb.New(t)
}

// completed is a job with every field set.
func completed() *api.Job {
	return &api.Job{
		Id: "s-ABCDEFGHIJKLM", Cluster: "j-ABCDEFGHIJKLM", Name: "words", Program: "wordcount", State: "COMPLETED", User: "admin",
		Input: []string{"s3://input/"}, Output: "s3://output/words/", SubmittedAt: at("2026-01-02T03:04:05.006+01:00"), StartedAt: at("2026-01-02T02:04:05.1Z"),
		PlannedAt: at("2026-01-02T02:04:05.2Z"), MapsEndedAt: at("2026-01-02T02:04:06Z"), ReducesEndedAt: at("2026-01-02T02:04:07Z"), EndedAt: at("2026-01-02T02:04:07.5Z"),
		CommitMs: 500, Maps: &api.TaskCounts{Total: 3, Completed: 3}, Reduces: &api.TaskCounts{Total: 2, Completed: 2}, AttemptsFailed: 1, AttemptsSpeculative: 4,
		BytesDone: 10, BytesTotal: 10, Counters: []*api.Counter{{Group: "millrace", Name: "mapInputRecords", Value: 7}, {Group: "Mine", Name: "odd", Value: 1}},
		OutputRecords: 5, OutputBytes: 40, Parts: 2,
	}
}

// onFiles is a completed job with its output in a block store.
func onFiles() *api.Job {
	j := completed()
	j.Output = "hdfs:///words/"
	return j
}

func failed() *api.Job {
	j := completed()
	j.State, j.Reason = "FAILED", "task m-00001 failed 4 times"
	j.Failure = &api.JobFailure{Task: "m-00001", Attempt: "s-ABCDEFGHIJKLM-m-00001-2-7", Node: "i-00000000000000001", ExitCode: 3, Input: "s3://input/a", Offset: 42, StderrTail: "boom\x1b[31m\n", Message: "the mapper ended with exit code 3"}
	return j
}

func running() *api.Job {
	j := completed()
	j.State, j.Phase, j.ReducesEndedAt, j.EndedAt = "RUNNING", "MAPPING", nil, nil
	return j
}
