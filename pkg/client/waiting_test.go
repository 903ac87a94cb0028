package client

import (
	"context"
	"crypto/tls"
	"errors"
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
