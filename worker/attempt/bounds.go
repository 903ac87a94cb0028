package attempt

import (
	"fmt"
	"strings"

	"millrace/pkg/api"
)

// What a child says ends up in messages and in the masters' log: however long a program that speaks the protocol by itself makes it.
const (
	maxCounterNames = 4 << 10 // bytes of all counters' names together; the SDK allows its users 1 KiB
	maxInputName    = 4 << 10 // an object's key has 1 KiB at most
	maxTrouble      = 1 << 10
	maxID           = 256
)

// bounded makes a result fit for messages and the log. Counters that do not fit fail the attempt: half of them would be wrong.
func bounded(res *api.AttemptResult) *api.AttemptResult {
	if res == nil {
		return nil
	}
	res.StoreTrouble = cut(res.StoreTrouble, maxTrouble)
	if f := res.Failure; f != nil {
		f.Input, f.StderrTail = cut(f.Input, maxInputName), cut(f.StderrTail, tailBytes)
		f.Signal, f.SegmentAttempt = cut(f.Signal, maxID), cut(f.SegmentAttempt, maxID)
	}
	names := 0
	for _, c := range res.Counters {
		names += len(c.Group) + len(c.Name)
	}
	if names > maxCounterNames {
		res.Counters = nil
		if res.Failure == nil {
			res.Failure = &api.Failure{Kind: api.FailureKind_FAILURE_KIND_PROGRAM,
				Message: fmt.Sprintf("the names of its counters take %d bytes, of %d that they may", names, maxCounterNames)}
		}
	}
	return res
}

// cut shortens a text to n bytes, and leaves whole characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}
