package cli

import (
	"fmt"
	"io"
	"strings"

	"connectrpc.com/connect"

	"millrace/cmd/cli/view"
	"millrace/pkg/api"
)

type whyView struct {
	ID      string        `json:"id"`
	State   string        `json:"state"`
	Cause   string        `json:"cause"`   // the first one
	Details []string      `json:"details"` // what follows from it, or holds the job up besides
	Reason  string        `json:"reason"`
	Failure *view.Failure `json:"failure"` // of the first attempt that failed
	Next    string        `json:"next"`
}

func jobWhy(c *call) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	resp, err := conn.api().ExplainJob(c.Context.Context, connect.NewRequest(&api.GetJobRequest{Job: c.args[0], Cluster: conn.cluster}))
	if err != nil {
		return err
	}
	e := resp.Msg
	j := view.OfJob(e.GetJob())
	v := whyView{ID: j.ID, State: j.State, Cause: clean(e.GetCause()), Details: []string{}, Reason: j.Reason, Failure: view.OfFailure(e.GetFailure()), Next: e.GetNext()}
	for _, d := range e.GetDetails() {
		v.Details = append(v.Details, clean(d))
	}
	return c.print(v, func(w io.Writer) {
		state := j.State
		if j.Phase != "" && !ended(j.State) {
			state += " (" + j.Phase + ")"
		}
		fmt.Fprintf(w, "job %s is %s: %s\n", j.ID, state, v.Cause)
		for _, l := range failureLines(v.Failure, e.GetCause()) {
			fmt.Fprintln(w, l)
		}
		for _, d := range v.Details {
			fmt.Fprintln(w, d)
		}
		if v.Failure != nil && v.Failure.StderrTail != "" {
			fmt.Fprintln(w, "its last words:")
			for line := range strings.SplitSeq(strings.TrimRight(v.Failure.StderrTail, "\n"), "\n") {
				fmt.Fprintf(w, "  %s\n", clean(line))
			}
		}
		if v.Next != "" {
			fmt.Fprintf(c.env.Stderr, "next: %s\n", v.Next)
		}
	})
}
