package state

import (
	"fmt"
	"slices"
	"time"
)

func (t *txn) beginCommit(c BeginCommit) (*Job, error) {
	j, err := t.job(c.Job)
	if err != nil {
		return nil, err
	}
	if j.Ended() || j.Ending != "" {
		return nil, tooLate(j)
	}
	if err := committable(j); err != nil {
		return nil, err
	}
	if j.Phase == PhaseCommitting {
		return j, nil
	}
	j.Phase, j.CommitAt = PhaseCommitting, c.At
	return j, t.putJob(j)
}

// committable says whether all output is there and all that was written was read.
func committable(j *Job) error {
	switch {
	case j.State != JobRunning:
		return fmt.Errorf("job %s is %s: %w", j.ID, j.State, ErrNotReady)
	case j.MapsDone < j.Maps, j.ReducesDone < j.Reduces:
		return fmt.Errorf("job %s has %d of %d maps, %d of %d reduces: %w", j.ID, j.MapsDone, j.Maps, j.ReducesDone, j.Reduces, ErrNotReady)
	case !j.MapOnly() && j.MapLedger != j.Fetched:
		return fmt.Errorf("job %s: %w", j.ID, &LedgerError{Written: j.MapLedger, Fetched: j.Fetched})
	}
	return nil
}

func (t *txn) redoParts(c RedoParts) ([]int, error) {
	j, err := t.job(c.Job)
	if err != nil {
		return nil, err
	}
	switch {
	case j.Ended() || j.Ending != "":
		return nil, tooLate(j)
	case j.Phase != PhaseCommitting:
		return nil, fmt.Errorf("job %s is not committing: %w", j.ID, ErrNotReady)
	}
	var redone []int
	for _, index := range c.Tasks {
		id := TaskID{j.OutputKind(), index}
		if !j.has(id) {
			return nil, fmt.Errorf("%w: job %s has no task %s %d", ErrInvalid, j.ID, id.Kind, index)
		}
		task := t.task(j.ID, id)
		if !task.Done {
			continue
		}
		j.discount(task)
		task.endWin(j, "the store lost its upload")
		if err := t.Insert(tableTask, task); err != nil {
			return nil, err
		}
		redone = append(redone, index)
	}
	return redone, t.putJob(j)
}

// discount takes a completed output task out of the job's sums.
func (j *Job) discount(task *Task) {
	if task.ID.Kind == Map {
		j.MapsDone--
		j.BytesDone -= task.Win.InputBytes
		j.MapLedger = j.MapLedger.Sub(task.Win.Ledger)
		j.MapDigest -= task.Win.SetTerm
		return
	}
	j.ReducesDone--
	j.Fetched = j.Fetched.Sub(task.Win.Ledger)
	j.ReducesEndedAt = time.Time{}
}

func (t *txn) completeJob(c CompleteJob) (*Job, error) {
	j, err := t.job(c.Job)
	if err != nil {
		return nil, err
	}
	switch {
	case j.State == JobCompleted:
		return j, nil
	case j.Ended() || j.Ending != "":
		return nil, tooLate(j)
	case j.Phase != PhaseCommitting:
		return nil, fmt.Errorf("job %s is not committing: %w", j.ID, ErrNotReady)
	}
	if err := committable(j); err != nil {
		return nil, err
	}
	j.State, j.EndedAt, j.Notes = JobCompleted, c.At, slices.Concat(j.Notes, c.Notes)
	j.OutputRecords, j.OutputBytes, j.Parts, j.CommitMs = c.OutputRecords, c.OutputBytes, c.Parts, c.CommitMs
	return j, t.closeJob(j, c.Retries)
}
