package state

// ready says whether a commit can begin or end: all tasks are done, and what the maps wrote is what the reduces read.
func (j *twinJob) ready() error {
	_, written := j.written()
	switch {
	case j.state != JobRunning || done(j.maps) < len(j.maps) || done(j.reduces) < len(j.reduces):
		return ErrNotReady
	case len(j.reduces) > 0 && written != j.fetched():
		return ErrLedger
	}
	return nil
}

func (w *twin) beginCommit(c BeginCommit) error {
	j, err := w.open(c.Job)
	if err != nil {
		return err
	}
	if err := j.ready(); err != nil {
		return err
	}
	if j.phase != PhaseCommitting {
		j.phase, j.CommitAt = PhaseCommitting, c.At
	}
	return nil
}

func (w *twin) redoParts(c RedoParts) (redone []int, err error) {
	j, err := w.open(c.Job)
	if err != nil {
		return nil, err
	}
	if j.phase != PhaseCommitting {
		return nil, ErrNotReady
	}
	output := j.reduces
	if len(output) == 0 {
		output = j.maps
	}
	for _, i := range c.Tasks {
		if i < 0 || i >= len(output) {
			return nil, ErrInvalid
		}
	}
	for _, i := range c.Tasks {
		if output[i].attempt == "" {
			continue
		}
		j.undo(output[i])
		if len(j.reduces) == 0 {
			output[i].known = false
		}
		redone = append(redone, i)
	}
	return redone, nil
}

func (w *twin) completeJob(c CompleteJob) error {
	if j := w.jobs[c.Job]; j != nil && j.state == JobCompleted {
		return nil
	}
	j, err := w.open(c.Job)
	if err != nil {
		return err
	}
	if j.phase != PhaseCommitting {
		return ErrNotReady
	}
	if err := j.ready(); err != nil {
		return err
	}
	j.finish(JobCompleted, c.Retries)
	j.EndedAt, j.Notes = c.At, append(append([]string(nil), j.Notes...), c.Notes...)
	j.OutputRecords, j.OutputBytes, j.Parts, j.CommitMs = c.OutputRecords, c.OutputBytes, c.Parts, c.CommitMs
	return nil
}

// failJob: from the commit on, only by force; the first cause stays.
func (w *twin) failJob(c FailJob) error {
	j := w.jobs[c.Job]
	switch {
	case j == nil:
		return ErrNotFound
	case j.ending == JobFailed:
		return nil
	case j.over() || j.ending != "" || j.phase == PhaseCommitting && !c.Force:
		return ErrTooLate
	}
	j.ending, j.Reason, j.Failure = JobFailed, c.Reason, c.Failure
	return nil
}

// cancelJob: from the commit on, never.
func (w *twin) cancelJob(c CancelJob) error {
	j := w.jobs[c.Job]
	switch {
	case j == nil:
		return ErrNotFound
	case j.state == JobCancelPending || j.state == JobCancelled:
		return nil
	case j.over() || j.ending != "" || j.phase == PhaseCommitting:
		return ErrTooLate
	}
	j.state, j.ending, j.Reason = JobCancelPending, JobCancelled, c.Reason
	return nil
}

func (w *twin) endJob(c EndJob) error {
	j := w.jobs[c.Job]
	switch {
	case j == nil:
		return ErrNotFound
	case j.state == JobFailed || j.state == JobCancelled:
		return nil
	case j.over():
		return ErrTooLate
	case j.ending == "":
		return ErrNotReady
	}
	j.finish(j.ending, c.Retries)
	j.EndedAt = c.At
	switch {
	case c.Left != "" && j.Reason != "":
		j.Reason += "; " + c.Left
	case c.Left != "":
		j.Reason = c.Left
	}
	return nil
}

// finish gives a job its end: its counters are those of the attempts that won.
func (j *twinJob) finish(state string, retries StoreRetries) {
	j.state, j.phase, j.ending, j.uploads = state, "", "", nil
	j.StoreTrouble = retries.Last
	maps, reduces := int64(done(j.maps)), int64(done(j.reduces))
	for _, c := range []Counter{
		{"millrace", "mapInputRecords", 5 * maps}, {"millrace", "reduceOutputRecords", 2 * reduces},
		{"millrace", "storeRetries", retries.Requests}, {"mine", "words", 3 * reduces},
	} {
		if c.Value > 0 {
			j.Counters = append(j.Counters, c)
		}
	}
}

// record is the job as the store must have it.
func (j *twinJob) record() *Job {
	r := j.Job
	r.State, r.Phase, r.Ending = j.state, j.phase, j.ending
	r.Maps, r.MapsDone, r.Reduces, r.ReducesDone = len(j.maps), done(j.maps), len(j.reduces), done(j.reduces)
	r.MapDigest, r.MapLedger = j.written()
	r.Fetched = j.fetched()
	r.Failed, r.Killed, r.Lost, r.Speculative = j.failed, j.killed, j.extra, j.spec
	r.BytesDone = int64(100 * done(j.maps))
	if len(j.reduces) > 0 && done(j.reduces) == len(j.reduces) {
		r.ReducesEndedAt = at(5) // as all reduces of the histories
	}
	if j.reset {
		r.ReduceRound = 1
	}
	return &r
}
