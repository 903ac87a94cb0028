package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
	"millrace/pkg/client"
)

// changingSite is a site whose first leader goes away under the first call, and whose second one answers.
type changingSite struct {
	fakeMaster
	begins    bool // the first leader goes away in the midst of its answer, not before
	undone    bool // it says that it has done nothing
	logs      []*api.JobLogsRequest
	cancelled []string // jobs
	calls     int      // of the rest
}

// goes is the error of the first leader; nil from the second one.
func (f *changingSite) goes(call int) error {
	if call > 1 {
		return nil
	}
	err := connect.NewError(connect.CodeUnavailable, errors.New("this master is not the leader"))
	if f.undone {
		err.Meta().Set(client.NotDoneHeader, "yes")
	}
	return err
}

func (f *changingSite) JobLogs(_ context.Context, r *connect.Request[api.JobLogsRequest], s *connect.ServerStream[api.JobLogsResponse]) error {
	f.logs = append(f.logs, r.Msg)
	gone := f.goes(len(f.logs))
	if gone != nil && !f.begins {
		return gone
	}
	if err := s.Send(&api.JobLogsResponse{Attempt: "s-ABCDEFGHIJKLM-m-00001-2-7"}); err != nil {
		return err
	}
	pieces := []string{"one\n", "two\nthr", "ee\n"}
	if gone != nil {
		pieces = []string{"one\ntw"}
	}
	for _, data := range pieces {
		if err := s.Send(&api.JobLogsResponse{Data: []byte(data)}); err != nil {
			return err
		}
	}
	return gone
}

func (f *changingSite) CancelJob(_ context.Context, r *connect.Request[api.CancelJobRequest]) (*connect.Response[api.Job], error) {
	f.cancelled = append(f.cancelled, r.Msg.GetJob())
	if gone := f.goes(len(f.cancelled)); gone != nil {
		another := running() // which is the last one now
		another.Id = "s-NOPQRSTUVWXYZ"
		f.jobs = append(f.jobs, another)
		return nil, gone
	}
	return connect.NewResponse(&api.Job{Id: r.Msg.GetJob(), State: "CANCEL_PENDING"}), nil
}

// answer sends two halves, of which the first leader sends one at most.
func (f *changingSite) answer(first, second func() error) error {
	f.calls++
	gone := f.goes(f.calls)
	if gone != nil && !f.begins {
		return gone
	}
	if err := first(); err != nil || gone != nil {
		return errors.Join(err, gone)
	}
	return second()
}

func (f *changingSite) NodeLogs(_ context.Context, _ *connect.Request[api.NodeLogsRequest], s *connect.ServerStream[api.NodeLogsResponse]) error {
	return f.answer(func() error { return s.Send(&api.NodeLogsResponse{Data: []byte("one\n")}) },
		func() error { return s.Send(&api.NodeLogsResponse{Data: []byte("two\n")}) })
}

func (f *changingSite) Backup(_ context.Context, _ *connect.Request[api.BackupRequest], s *connect.ServerStream[api.BackupResponse]) error {
	return f.answer(func() error { return s.Send(&api.BackupResponse{Data: []byte("one\n")}) },
		func() error { return s.Send(&api.BackupResponse{Data: []byte("two\n")}) })
}

func (f *changingSite) ExecNode(_ context.Context, _ *connect.Request[api.ExecNodeRequest], s *connect.ServerStream[api.ExecNodeResponse]) error {
	return f.answer(func() error { return nil }, func() error { return s.Send(execPieces(&api.ExecEnd{})[2]) })
}

func (f *changingSite) UploadFile(ctx context.Context, s *connect.ClientStream[api.UploadFileRequest]) (*connect.Response[api.UploadFileResponse], error) {
	f.calls++
	if gone := f.goes(f.calls); gone != nil {
		s.Receive()
		return nil, gone
	}
	return f.fakeMaster.UploadFile(ctx, s)
}

// Whether the leader goes away before or while it sends a log, people see the log once and whole.
func TestJobLogsGoOnAtTheNextLeader(t *testing.T) {
	for _, begins := range []bool{false, true} {
		f := &changingSite{fakeMaster: fakeMaster{jobs: []*api.Job{failed()}}, begins: begins}
		s := newSession(t).serve(f)
		require.Equal(t, output{out: "one\ntwo\nthree\n", err: "attempt s-ABCDEFGHIJKLM-m-00001-2-7\n"}, s.run("job", "logs", "last", "-f"))
		require.Len(t, f.logs, 2)
		require.Equal(t, "s-ABCDEFGHIJKLM", f.logs[1].Job)
		require.Equal(t, begins, f.logs[1].Attempt != "", "what was shown at first stays the one")
		f.logs = nil
		require.Equal(t, map[string]any{"attempt": "s-ABCDEFGHIJKLM-m-00001-2-7", "log": "one\ntwo\nthree\n"}, s.run("job", "logs", "last", "--json").json(t))
	}
}

// "last" is one job, though another one is submitted while the call is repeated.
func TestACancelThatIsRepeatedIsOfOneJob(t *testing.T) {
	f := &changingSite{fakeMaster: fakeMaster{jobs: []*api.Job{running()}}}
	s := newSession(t).serve(f)
	require.Equal(t, output{out: "s-ABCDEFGHIJKLM CANCEL_PENDING\n"}, s.run("job", "cancel", "last"))
	require.Equal(t, []string{"s-ABCDEFGHIJKLM", "s-ABCDEFGHIJKLM"}, f.cancelled)
}

// A node has only the last of its log: nobody could tell where it goes on.
func TestNodeLogsWaitForALeader(t *testing.T) {
	require.Equal(t, output{out: "one\ntwo\n"}, newSession(t).serve(&changingSite{}).run("node", "logs", "core-1"))
	o := newSession(t).serve(&changingSite{begins: true}).run("node", "logs", "core-1")
	require.Equal(t, exitUnreachable, o.code)
	require.Equal(t, "one\n", o.out)
}

func TestABackupIsTakenAnew(t *testing.T) {
	for _, begins := range []bool{false, true} {
		file := filepath.Join(t.TempDir(), "backup")
		o := newSession(t).serve(&changingSite{begins: begins}).run("master", "backup", file)
		require.Equal(t, exitOK, o.code, o.err)
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, "one\ntwo\n", string(data))
	}
	require.Equal(t, output{out: "one\ntwo\n"}, newSession(t).serve(&changingSite{}).run("master", "backup", "-"))
	o := newSession(t).serve(&changingSite{begins: true}).run("master", "backup", "-")
	require.Equal(t, exitUnreachable, o.code)
	require.Equal(t, "one\n", o.out)
}

// A program is run once, or not at all.
func TestNodeExecIsRepeatedIfNothingWasStarted(t *testing.T) {
	f := &changingSite{undone: true}
	require.Equal(t, output{}, newSession(t).serve(f).run("node", "exec", "core-1", "--", "true"))
	require.Equal(t, 2, f.calls)
	f = &changingSite{}
	require.Equal(t, exitUnreachable, newSession(t).serve(f).run("node", "exec", "core-1", "--", "true").code)
	require.Equal(t, 1, f.calls)
}

func TestAFileIsUploadedAnew(t *testing.T) {
	f := &changingSite{fakeMaster: fakeMaster{jobs: []*api.Job{running()}}}
	file := filepath.Join(t.TempDir(), "words.txt")
	require.NoError(t, os.WriteFile(file, []byte("shipped"), 0o600))
	o := newSession(t).serve(f).run("job", "submit", "--mapper", "cat", "--file", file, "--input", "s3://input/", "--output", "s3://output/")
	require.Equal(t, exitOK, o.code, o.err)
	require.Equal(t, 2, f.calls)
	for _, data := range f.uploaded {
		require.Equal(t, "shipped", string(data))
	}
	require.Len(t, f.uploaded, 1)
}
