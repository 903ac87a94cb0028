package tracker

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"millrace/master/state"
	"millrace/pkg/objectstore"
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
		success, redo, err := t.runCommit(ctx, j, w)
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
			Job: j.id, At: t.cfg.Now(), OutputRecords: success.Records, Parts: len(success.Parts),
			CommitMs: t.cfg.Now().Sub(w.rec.CommitAt).Milliseconds(), Retries: j.ownRetries(),
		}
		for _, p := range success.Parts {
			c.OutputBytes += p.Size
		}
		if left := w.left.err(); left != nil {
			c.Notes = []string{"unfinished uploads stay in the store and take room there: " + oneLine(left)}
		}
		j.busy = "complete"
		t.propose(j.id, c, func(_ any, err error) {
			j.busy = ""
			t.commitAnswer(j, err)
		})
	}
}

// redo has parts made again that the store has lost.
func (t *Tracker) redo(j *job, redo []int) {
	for _, i := range redo {
		if j.redone[i]++; j.redone[i] > maxRedo {
			t.failJob(j, fmt.Sprintf("commit: the object store lost the upload of part %d again and again", i), nil, true)
			return
		}
	}
	j.log.Warn("the object store has lost uploads, these parts are made again", zap.Ints("parts", redo))
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

// runCommit does the store's side. Every step can be done again. Redo names parts
// that the store does not have.
func (t *Tracker) runCommit(ctx context.Context, j *job, w commitWork) (*Success, []int, error) {
	done := j.prefix + successName
	if w.overwrite || w.resumed {
		if s, err := t.clear(ctx, j, w, done); s != nil || err != nil {
			return s, nil, err
		}
	}
	parts := make([]SuccessPart, len(w.parts))
	lost := make([]bool, len(w.parts))
	err := t.each(ctx, len(w.parts)+len(w.losers), func(ctx context.Context, i int) (err error) {
		if i >= len(w.parts) {
			return w.spared(j, t.abort(ctx, j, w.losers[i-len(w.parts)]))
		}
		parts[i], err = t.finish(ctx, j, w.parts[i])
		if errors.Is(err, errRedo) {
			j.log.Warn("part is not in the store", zap.Error(err))
			lost[i] = true
			return nil
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if w.uncertain {
		if err := w.spared(j, t.sweepStrays(ctx, j, w, lost)); err != nil {
			return nil, nil, err
		}
	}
	var redo []int
	for i, l := range lost {
		if l {
			redo = append(redo, w.parts[i].task.Index)
		}
	}
	if len(redo) > 0 {
		return nil, redo, nil
	}
	if w.overwrite {
		if err := t.deleteOld(ctx, j, w, done); err != nil {
			return nil, nil, err
		}
	}
	success, err := t.putSuccess(ctx, j, w, done, summary(w, parts))
	return success, nil, err
}

// spared lets a commit go on where the key may write but not abort or list
// uploads: what is left costs room, not truth, and the job says so.
func (w commitWork) spared(j *job, err error) error {
	if hopeless(err) {
		w.left.add(err)
		j.log.Warn("an unfinished upload stays in the store", zap.Error(err))
		return nil
	}
	return err
}

func (t *Tracker) sweepStrays(ctx context.Context, j *job, w commitWork, lost []bool) error {
	keys, keep := make([]string, len(w.parts)), map[string]bool{}
	for i, p := range w.parts {
		keys[i] = p.key
		if !lost[i] {
			keep[p.win.UploadID] = true
		}
	}
	return t.sweep(ctx, j, keys, keep)
}

// finish completes one upload, or finds that it was completed before. Whatever the store
// has answered, the object itself tells: versitygw says yes to the repetition of a Complete
// that was cut short, though nothing came of it. errRedo if the object is not there and
// cannot come later: the upload is gone by then, so that no request of another leader
// completes it after all.
func (t *Tracker) finish(ctx context.Context, j *job, p commitPart) (SuccessPart, error) {
	final := func(err error) bool {
		return hopeless(err) || errors.Is(err, objectstore.ErrNoSuchUpload) || errors.Is(err, objectstore.ErrInvalid)
	}
	err := retry(ctx, t.noting(j), final, func(ctx context.Context) error {
		parts, err := j.store.ListParts(ctx, j.bucket, p.key, p.win.UploadID)
		if err != nil {
			return err
		}
		if err := matches(p, parts); err != nil {
			return err
		}
		_, err = j.store.CompleteUpload(ctx, j.bucket, p.key, p.win.UploadID, parts)
		return err // if that is no clear answer, ListParts tells next time whether it is done
	})
	switch {
	case errors.Is(err, objectstore.ErrNoSuchUpload):
		return t.finished(ctx, j, p)
	case err == nil:
		part, err := t.finished(ctx, j, p)
		if !errors.Is(err, errRedo) {
			return part, err
		}
		j.log.Warn("the store said that it completed an upload, and has not", zap.Error(err))
	case errors.Is(err, objectstore.ErrInvalid):
		j.log.Warn("the store does not complete an upload", zap.Error(err))
	default:
		return SuccessPart{}, err
	}
	if err := t.abort(ctx, j, upload{id: p.win.UploadID, key: p.key}); err != nil {
		return SuccessPart{}, err
	}
	return t.finished(ctx, j, p)
}

// finished is the part as the store has it; errRedo if it has none, or another object.
func (t *Tracker) finished(ctx context.Context, j *job, p commitPart) (SuccessPart, error) {
	ours, head, err := t.ours(ctx, j, p.key, metadata(j.id, p.task))
	if err != nil {
		return SuccessPart{}, err
	}
	if !ours || head.Size != p.win.Bytes {
		return SuccessPart{}, fmt.Errorf("complete %s: %w: the object there is not the one that was uploaded", p.key, errRedo)
	}
	return SuccessPart{Key: p.key, Size: head.Size, ETag: head.ETag, Records: p.win.Records}, nil
}

// matches compares what the store has of an upload with what the attempt said.
func matches(p commitPart, parts []objectstore.Part) error {
	var size int64
	for _, part := range parts {
		size += part.Size
	}
	if len(parts) != p.win.Parts || size != p.win.Bytes || len(parts) == 0 {
		return fmt.Errorf("complete %s: %w: it has %d parts of %d bytes, the attempt uploaded %d of %d",
			p.key, objectstore.ErrInvalid, len(parts), size, p.win.Parts, p.win.Bytes)
	}
	return nil
}
