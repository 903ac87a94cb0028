package attempt

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
)

// A program that speaks the protocol by itself keeps to none of the SDK's limits.
func TestWhatAChildSaysIsBounded(t *testing.T) {
	require.Nil(t, bounded(nil))
	many := &api.AttemptResult{}
	for range 100 {
		many.Counters = append(many.Counters, &api.Counter{Group: "g", Name: strings.Repeat("n", 100), Value: 1})
	}
	r := bounded(many)
	require.Empty(t, r.Counters)
	require.Equal(t, "the names of its counters take 10100 bytes, of 4096 that they may", r.Failure.GetMessage())
	require.Equal(t, api.FailureKind_FAILURE_KIND_PROGRAM, r.Failure.GetKind())

	long := strings.Repeat("ä", 10_000)
	r = bounded(&api.AttemptResult{StoreTrouble: long, Counters: []*api.Counter{{Group: "g", Name: "n", Value: 1}},
		Failure: &api.Failure{Input: long, StderrTail: "x" + long, Signal: long, SegmentAttempt: long}})
	require.Len(t, r.Counters, 1)
	require.Len(t, r.StoreTrouble, maxTrouble)
	require.Len(t, r.Failure.Input, maxInputName)
	require.Len(t, r.Failure.StderrTail, tailBytes-1, "no half of a character")
	require.Len(t, r.Failure.Signal, maxID)
	require.Len(t, r.Failure.SegmentAttempt, maxID)
}
