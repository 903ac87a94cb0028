package tracker

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"millrace/master/state"
)

const (
	successName = "_SUCCESS"
	maxRedo     = 3 // how often one part is made again before the job fails
	deleteBatch = 1000
)

// beginCommit logs that all output is there and the ledger balances: from
// there only forward.
func (t *Tracker) beginCommit(j *job) {
	if j.busy != "" || j.creating > 0 {
		return
	}
	j.busy = "begin commit"
	t.propose(j.id, state.BeginCommit{Job: j.id, At: t.cfg.Now()}, func(_ any, err error) {
		j.busy = ""
		t.commitAnswer(j, err)
		j.recheck = err != nil
	})
}

// commitAnswer goes on after an entry of a commit.
func (t *Tracker) commitAnswer(j *job, err error) {
	switch {
	case err == nil:
		t.touch(j)
	case errors.Is(err, state.ErrLedger):
		t.failJob(j, err.Error(), nil, true)
	default:
		j.log.Warn("commit refused", zap.Error(err))
		t.later(j)
	}
}

// committer makes the output of one job visible, or sees that nothing of it is: each kind of store has its own way. It
// is asked beside the loop. All of it can be done again, by this leader or another.
type committer interface {
	// commit makes the output visible, whole, with _SUCCESS. Redo names parts that the store has lost. An error is one
	// that fails the job.
	commit(ctx context.Context, w commitWork) (s *Success, redo []int, err error)
	// clean takes away all that the job has in the store. An error says what the store refuses for good to let go;
	// all else is gone.
	clean(ctx context.Context, w cleanWork) error
}

// commitWork is all that a commit needs to know: from the log alone.
type commitWork struct {
	rec       *state.Job
	parts     []commitPart
	losers    []upload
	overwrite bool
	uncertain bool
	resumed   bool
	left      *few // unfinished uploads that the store does not let go
}

// commitPart is one winner's upload.
type commitPart struct {
	task state.TaskID
	key  string
	win  *state.Completion
}

// errRedo: the store does not have what the attempt said it had uploaded.
var errRedo = errors.New("the store has lost the upload")

// commit makes the output visible. It may be repeated, by this leader or another.
func (t *Tracker) commit(j *job) {
	if j.busy != "" || j.creating > 0 {
		return
	}
	for _, a := range j.live {
		t.kill(a, "not needed any more")
	}
	w := t.commitWork(j)
	j.resumed = true
	t.step(j, "commit", func(ctx context.Context) func() {
		success, redo, err := j.committer.commit(ctx, w)
		return func() { t.committed(j, w, success, redo, err) }
	})
}

func (t *Tracker) commitWork(j *job) commitWork {
	w := commitWork{rec: j.rec, overwrite: j.rec.Overwrite, uncertain: j.uncertain, resumed: j.resumed, left: &few{}}
	winners := map[string]bool{}
	for _, k := range j.outputs() {
		w.parts = append(w.parts, commitPart{task: k.id, key: j.partKey(k.id.Index), win: k.win})
		winners[k.win.UploadID] = true
	}
	for _, u := range t.cfg.View().Uploads(j.id) {
		if !winners[u.ID] {
			w.losers = append(w.losers, upload{id: u.ID, key: u.Key})
		}
	}
	w.losers = append(w.losers, j.unlogged...)
	return w
}

// committed logs how a commit went.
func (t *Tracker) committed(j *job, w commitWork, success *Success, redo []int, err error) {
	switch {
	case errors.Is(err, context.Canceled):
	case err != nil:
		t.failJob(j, fmt.Sprintf("commit: %v", err), nil, true)
	case len(redo) > 0:
		t.redo(j, redo)
	default:
		c := state.CompleteJob{
			Job: j.id, At: t.cfg.Now(), OutputRecords: success.Records, OutputBytes: success.copied, Parts: len(success.Parts),
			CommitMs: t.cfg.Now().Sub(w.rec.CommitAt).Milliseconds(), Retries: j.ownRetries(),
		}
		for _, p := range success.Parts {
			c.OutputBytes += p.Size
		}
		if left := w.left.err(); left != nil {
			c.Notes = []string{"unfinished uploads stay in the store and take room there: " + oneLine(left)}
		}
		j.busy = "complete"
		t.endLosers(j)
		t.propose(j.id, c, func(_ any, err error) {
			j.busy = ""
			t.commitAnswer(j, err)
		})
	}
}

// endLosers logs the end of the attempts that the commit has killed and that are not over yet: the job does not wait for
// a node that is slow or silent, and its record is closed with the next entry. An end that is on its way into the
// log already comes before, and is logged once.
func (t *Tracker) endLosers(j *job) {
	for _, a := range j.live {
		t.proposeEnd(state.EndTask{
			Job: j.id, Task: a.task.id, CountsAs: state.CountsKilled, Ended: t.unreported(a, cmp.Or(a.killing, state.RefusedOtherWon)), Speculative: a.second,
		}, func(state.EndTaskResult) {})
	}
}

// redo has parts made again that the store has lost.
func (t *Tracker) redo(j *job, redo []int) {
	for _, i := range redo {
		if j.redone[i]++; j.redone[i] > maxRedo {
			t.failJob(j, fmt.Sprintf("commit: the store lost the output of task %d again and again", i), nil, true)
			return
		}
	}
	j.log.Warn("the store has lost output, which is made again", zap.Ints("parts", redo))
	j.busy = "redo"
	t.propose(j.id, state.RedoParts{Job: j.id, Tasks: redo}, func(_ any, err error) {
		j.busy = ""
		if err != nil {
			j.log.Warn("redo refused", zap.Error(err))
		}
		for _, k := range j.outputs() {
			t.reread(j, k)
			t.await(j, k)
		}
		j.checkSegments, j.recheck = true, true
		t.touch(j)
	})
}
