package objectstore

import (
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

type transport func(*http.Request) (*http.Response, error)

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

func TestWhoWaitsForAnAnswerIsTold(t *testing.T) {
	for takes, want := range map[time.Duration]int{WaitingAfter - time.Second: 0, WaitingAfter + time.Second: 1} {
		synctest.Test(t, func(t *testing.T) {
			told := 0 // the request does not return before it is counted
			w := &watched{stall: time.Minute, firstByte: time.Minute, waiting: func() { told++ },
				base: transport(func(*http.Request) (*http.Response, error) {
					time.Sleep(takes)
					return nil, errors.New("no answer")
				})}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://store/", nil)
			require.NoError(t, err)
			_, err = w.RoundTrip(r) //nolint:bodyclose // there is none
			require.EqualError(t, err, "no answer")
			require.Equal(t, want, told, takes)
		})
	}
}
