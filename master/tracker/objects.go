package tracker

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"millrace/pkg/objectstore"
)

// objects is the way of object stores: uploads are completed one by one, and _SUCCESS, which comes last, is the commit.
type objects struct {
	*Tracker
	j *job
}

// commit does the store's side. Every step can be done again.
func (t objects) commit(ctx context.Context, w commitWork) (*Success, []int, error) {
	j := t.j
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
	if impossible(err) {
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
	err := retry(ctx, t.noting(ctx, j), final, func(ctx context.Context) error {
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

// clean aborts the job's uploads and deletes the parts a forced end of a commit
// has left.
func (t objects) clean(ctx context.Context, w cleanWork) error {
	j := t.j
	err := t.gather(len(w.uploads), func(i int) error { return t.abort(ctx, j, w.uploads[i]) })
	if w.uncertain {
		keys := make([]string, len(w.parts))
		for i, p := range w.parts {
			keys[i] = p.key
		}
		err = errors.Join(err, t.sweep(ctx, j, keys, nil))
	}
	if w.committing {
		err = errors.Join(err, t.deleteOurs(ctx, j, j.prefix+successName, map[string]string{metaJob: j.id}))
		err = errors.Join(err, t.gather(len(w.parts), func(i int) error {
			return t.deleteOurs(ctx, j, w.parts[i].key, metadata(j.id, w.parts[i].task))
		}))
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// deleteOurs deletes an object if it carries the metadata, and nothing that comes in its place.
func (t *Tracker) deleteOurs(ctx context.Context, j *job, key string, meta map[string]string) error {
	ours, head, err := t.ours(ctx, j, key, meta)
	if err != nil || !ours {
		return err
	}
	final := func(err error) bool { return hopeless(err) || errors.Is(err, objectstore.ErrPrecondition) }
	err = retry(ctx, t.noting(ctx, j), final, func(ctx context.Context) error {
		return j.store.DeleteIf(ctx, j.bucket, key, head.ETag)
	})
	if errors.Is(err, objectstore.ErrPrecondition) {
		return t.deleteOurs(ctx, j, key, meta) // it is another one by now
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	return nil
}
