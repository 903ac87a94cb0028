package state

import "fmt"

func (t *txn) addUploads(c AddUploads) error {
	touched := map[string]bool{}
	for _, u := range c.Uploads {
		j, err := t.job(u.Job)
		if err != nil {
			return err
		}
		if j.Ended() || j.Ending != "" {
			return tooLate(j)
		}
		if u.ID == "" || !j.mayUpload(u.Task) {
			return fmt.Errorf("%w: upload %q for task %s %d of job %s", ErrInvalid, u.ID, u.Task.Kind, u.Task.Index, u.Job)
		}
		if old, ok := t.upload(u.Job, u.ID); ok && (old.Task != u.Task || old.Key != u.Key) {
			return fmt.Errorf("upload %s of job %s: %w", u.ID, u.Job, ErrExists)
		}
		if err := t.Insert(tableUpload, &u); err != nil {
			return err
		}
		if !touched[u.Job] {
			touched[u.Job] = true
			if err := t.putJob(j); err != nil {
				return err
			}
		}
	}
	return nil
}

// mayUpload says whether the task may write output. Uploads may be made ahead of
// the plan's entry, when the log does not know yet how many tasks there will be.
func (j *Job) mayUpload(id TaskID) bool {
	if j.Planned() {
		return id.Kind == j.OutputKind() && j.has(id)
	}
	return id.Index >= 0 && (id.Kind == Map || id.Kind == Reduce)
}

func (t *txn) dropUploads(c DropUploads) (*Job, error) {
	j, err := t.job(c.Job)
	if err != nil {
		return nil, err
	}
	for _, id := range c.IDs {
		u, ok := t.upload(c.Job, id)
		if !ok {
			continue
		}
		if err := t.Delete(tableUpload, u); err != nil {
			return nil, err
		}
	}
	return j, t.putJob(j)
}

func (t *txn) upload(job, id string) (*Upload, bool) {
	return first[Upload](t.Txn, tableUpload, byID, job, id)
}
