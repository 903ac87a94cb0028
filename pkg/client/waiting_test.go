package client

import (
	"context"
	"crypto/tls"
	"errors"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"millrace/pkg/api"
	"millrace/pkg/api/apiconnect"
)

// Whoever waits for a leader hears of it once, not at every try, and not of a usual change of leaders.
func TestWaitingIsSaid(t *testing.T) {
	for takes, want := range map[time.Duration]int{2 * time.Second: 0, 9 * time.Second: 1} {
		synctest.Test(t, func(t *testing.T) {
			began, told := time.Now(), 0
			r := &retrier{channel: newChannel(&tls.Config{}, []string{"127.0.0.1:1"}), log: zap.NewNop(), retryFor: time.Minute, refusedFor: time.Minute,
				waiting: func() { told++ }}
			_, err := r.WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) {
				if time.Since(began) < takes {
					return nil, connect.NewError(connect.CodeUnavailable, errors.New("no leader"))
				}
				return connect.NewResponse(&api.Job{}), nil
			})(t.Context(), submit{connect.NewRequest(&api.SubmitJobRequest{})})
			require.NoError(t, err)
			require.Equal(t, want, told, takes)
		})
	}
}

// submit is a request for a procedure that may be repeated.
type submit struct {
	*connect.Request[api.SubmitJobRequest]
}

func (submit) Spec() connect.Spec {
	return connect.Spec{Procedure: apiconnect.MillraceServiceSubmitJobProcedure}
}

// What may be repeated of what a stream is for, and what may not.
func TestWhatIsRepeatedOfAStream(t *testing.T) {
	undone := connect.NewError(connect.CodeUnavailable, errors.New("no leader"))
	undone.Meta().Set(NotDoneHeader, "yes")
	unavailable := connect.NewError(connect.CodeUnavailable, errors.New("the leader is gone"))
	for name, c := range map[string]struct {
		procedure string
		err       error
		want      int // tries
	}{
		"a log":                             {apiconnect.MillraceServiceJobLogsProcedure, unavailable, 2},
		"a program that was not started":    {apiconnect.MillraceServiceExecNodeProcedure, undone, 2},
		"a program that may be running":     {apiconnect.MillraceServiceExecNodeProcedure, unavailable, 1},
		"what does not pass":                {apiconnect.MillraceServiceJobLogsProcedure, connect.NewError(connect.CodeNotFound, errors.New("no such job")), 1},
		"a disk that is full on this side":  {apiconnect.MillraceServiceBackupProcedure, &os.PathError{Op: "write", Path: "b", Err: syscall.ENOSPC}, 1},
		"an upload that broke off half way": {apiconnect.MillraceServiceUploadFileProcedure, unavailable, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			cl, tries := silentClient(), 0
			err := cl.Repeat(t.Context(), c.procedure, func() (bool, error) {
				if tries++; tries == 1 {
					return false, c.err
				}
				return true, nil
			})
			require.Equal(t, c.want, tries, name)
			require.Equal(t, c.want == 1, err != nil, name)
		})
	}
}

// How long a stream went well before it broke is not held against it; nor is it repeated for ever.
func TestAStreamThatWentWellForLongIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl, tries := silentClient(), 0
		err := cl.Repeat(t.Context(), apiconnect.MillraceServiceJobLogsProcedure, func() (bool, error) {
			tries++
			if tries <= 3 {
				time.Sleep(time.Hour)
			}
			return tries <= 3, connect.NewError(connect.CodeUnavailable, errors.New("the leader is gone"))
		})
		require.Equal(t, connect.CodeUnavailable, connect.CodeOf(err))
		require.Greater(t, tries, 4)
	})
}

// Who does not want to wait any longer hears that, and not of the master.
func TestAStreamThatWaitsIsInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		err := silentClient().Repeat(ctx, apiconnect.MillraceServiceJobLogsProcedure, func() (bool, error) {
			cancel()
			return false, connect.NewError(connect.CodeUnavailable, errors.New("the leader is gone"))
		})
		require.ErrorIs(t, err, context.Canceled)
	})
}

// silentClient repeats for 10 s.
func silentClient() *Client {
	ch := newChannel(&tls.Config{}, []string{"127.0.0.1:1"})
	return &Client{api: ch, retry: &retrier{channel: ch, log: zap.NewNop(), retryFor: 10 * time.Second, refusedFor: 10 * time.Second}}
}
