package tracker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/master/state"
	"millrace/pkg/objectstore"
)

// Jobs whose own stores never answer do not keep the others from being planned.
func TestStoresThatAreAwayHoldUpTheirJobsAlone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.join("i-a", state.RoleCore, 2)
		w.mem.Fault = func(op, _, key string) error {
			if strings.HasPrefix(key, "away") {
				return fmt.Errorf("%s: %w", op, objectstore.ErrUnreachable)
			}
			return nil
		}
		w.lead()
		for i := range 3 * cap(w.leader.planners) {
			id := fmt.Sprintf("s-%013d", i)
			w.must(state.SubmitJob{Job: state.Job{ID: id, Cluster: "j-1", Input: []string{"s3://data/away/"},
				Output: fmt.Sprintf("s3://data/other/%d/", i), SubmittedAt: time.Now()}})
			w.leader.Submitted(id)
		}
		time.Sleep(time.Minute)
		w.submit(2, 1, nil)
		w.await()
		w.committed()
		require.Len(t, w.log.View().OpenJobs(), 3*cap(w.leader.planners), "they try on")
		require.LessOrEqual(t, w.job().PlannedAt.Sub(w.job().SubmittedAt), 2*longestPause)
	})
}
