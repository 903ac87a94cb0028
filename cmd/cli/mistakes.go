package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"millrace/pkg/api"
	"millrace/pkg/client"
)

// mistakes gathers what is wrong with one command, so that all of it is said at once: each
// mistake once, each piece of advice once.
type mistakes struct{ lines, nexts []string }

func (m *mistakes) wrong(next, format string, args ...any) {
	m.say(next, fmt.Sprintf(format, args...))
}

func (m *mistakes) say(next string, lines ...string) {
	for _, l := range lines {
		if !slices.Contains(m.lines, l) {
			m.lines = append(m.lines, l)
		}
	}
	if next != "" && !slices.Contains(m.nexts, next) {
		m.nexts = append(m.nexts, next)
	}
}

// take takes a mistake of usage in; any other error is handed back.
func (m *mistakes) take(err error) error {
	var f *fault
	if errors.As(err, &f) && f.code == exitUsage {
		m.say(f.next, f.lines...)
		return nil
	}
	return err
}

func (m *mistakes) any() bool { return len(m.lines) > 0 }

// fault is all of it, nil if there is nothing.
func (m *mistakes) fault() error {
	if !m.any() {
		return nil
	}
	return &fault{lines: m.lines, next: strings.Join(m.nexts, "; "), code: exitUsage}
}

// linesOf lists the lines of an error (errors.Join writes one each).
func linesOf(prefix string, err error) []string {
	var out []string
	for line := range strings.SplitSeq(strings.TrimSpace(err.Error()), "\n") {
		out = append(out, prefix+line)
	}
	return out
}

// placesWithin bounds how long a command that is refused in any case waits for the cluster's word on its places.
const placesWithin = 10 * time.Second

// askPlaces adds the mistakes that only the cluster can know of: inputs that match nothing, an output
// that is taken. Without a cluster that answers at once there are just the others.
func (m *mistakes) askPlaces(ctx context.Context, c *call, spec *api.JobSpec) {
	var err error
	if spec.Store, err = c.jobStore(); err != nil {
		m.take(err) // else the store is asked about nothing
		return
	}
	conn, err := c.dial(-1)
	if err != nil {
		m.take(err)
		return
	}
	defer conn.close()
	if spec.Cluster == "" {
		spec.Cluster = conn.cluster
	}
	ctx, cancel := context.WithTimeout(ctx, placesWithin)
	defer cancel()
	_, err = conn.api().SubmitJob(ctx, connect.NewRequest(&api.SubmitJobRequest{Spec: spec, PlacesOnly: true}))
	switch connect.CodeOf(err) {
	case connect.CodeInvalidArgument, connect.CodeFailedPrecondition:
		p := client.Problems(err)
		m.say(p.GetNext(), p.GetErrors()...)
	}
}
