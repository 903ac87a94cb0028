package tracker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"millrace/pkg/objectstore"
)

// Publisher makes hidden files of clusters' block stores visible: those of a group, a job, all in one step. Buckets
// begin with hdfs://. Its errors are those of package objectstore.
type Publisher interface {
	// Hidden lists the uploads of a group.
	Hidden(ctx context.Context, bucket, group string) ([]Hidden, error)
	// Abort ends uploads of a group, all of them if none is named; those that are not there are no error.
	Abort(ctx context.Context, bucket, group string, ids ...string) error
	// Publish shows all uploads of a group: count of them, sealed, or ErrInvalid. With replace all else below the prefix
	// goes in the same step; without it there must be nothing, or ErrExists.
	Publish(ctx context.Context, bucket, group, prefix string, count int, replace bool, at time.Time) error
}

// Hidden is an upload of a group.
type Hidden struct {
	ID, Key string
	Size    int64 // bytes
	Sealed  bool
	ETag    string // that it has when it can be seen
}

// files is the way of block stores: attempts write and seal hidden files, the leader adds _SUCCESS, and one entry of the
// log shows them all. What is asked of the name space goes through the log, in order: nothing of it comes late.
type files struct {
	*Tracker
	j *job
	p Publisher
}

// commit shows the output. Every try looks at what is there by then, and so finds what an earlier one has done.
func (t files) commit(ctx context.Context, w commitWork) (s *Success, redo []int, err error) {
	again, invalid := w.resumed, 0
	final := func(err error) bool {
		if errors.Is(err, objectstore.ErrInvalid) {
			invalid++ // an upload that came in between is one of the next look's
		}
		return hopeless(err) || errors.Is(err, objectstore.ErrExists) || invalid >= maxInvalid
	}
	err = retry(ctx, t.noting(ctx, t.j), final, func(ctx context.Context) (err error) {
		s, redo, err = t.try(ctx, w, again)
		again = true
		return err
	})
	if errors.Is(err, objectstore.ErrExists) {
		err = fmt.Errorf("output %s is not empty any more: somebody else writes there; with another output the job can be run again: %w", w.rec.Output, err)
	}
	return s, redo, err
}

func (t files) try(ctx context.Context, w commitWork, again bool) (*Success, []int, error) {
	hidden, err := t.p.Hidden(ctx, t.j.bucket, t.j.id)
	if err != nil {
		return nil, nil, fmt.Errorf("look at the uploads: %w", err)
	}
	parts, lost, others := t.compare(w, hidden)
	if again && len(lost) == len(w.parts) {
		if s, _, err := t.published(ctx); s != nil || err != nil {
			return s, nil, err
		}
	}
	if len(others) > 0 {
		if err := t.p.Abort(ctx, t.j.bucket, t.j.id, others...); err != nil {
			return nil, nil, fmt.Errorf("abort what is not needed: %w", err)
		}
	}
	if len(lost) > 0 {
		return nil, lost, nil
	}
	s := summary(w, parts)
	if err := t.writeSuccess(ctx, s); err != nil {
		return nil, nil, err
	}
	err = t.p.Publish(ctx, t.j.bucket, t.j.id, t.j.prefix, len(parts)+1, w.overwrite, w.rec.CommitAt)
	return s, nil, err
}

// compare finds the winners' files among the hidden ones. Lost are the indices of tasks whose file is not there, or not as the
// attempt said; others all that is to be aborted.
func (t files) compare(w commitWork, hidden []Hidden) (parts []SuccessPart, lost []int, others []string) {
	byID := map[string]Hidden{}
	for _, h := range hidden {
		byID[h.ID] = h
	}
	for _, p := range w.parts {
		h, there := byID[p.win.UploadID]
		if !there || !h.Sealed || h.Size != p.win.Bytes || h.Key != p.key {
			t.j.log.Warn("part is not in the block store as it was written", zap.String("part", p.key), zap.Bool("there", there),
				zap.Bool("sealed", h.Sealed), zap.Int64("bytes", h.Size), zap.Int64("written", p.win.Bytes))
			lost = append(lost, p.task.Index)
			continue
		}
		parts = append(parts, SuccessPart{Key: p.key, Size: h.Size, ETag: h.ETag, Records: p.win.Records})
		delete(byID, h.ID)
	}
	for _, h := range hidden {
		if _, left := byID[h.ID]; left {
			others = append(others, h.ID)
		}
	}
	return parts, lost, others
}

// published is the _SUCCESS that is to be seen, if it is this job's: a commit got as far as that, and was not logged.
func (t files) published(ctx context.Context) (s *Success, etag string, err error) {
	key := t.j.prefix + successName
	head, err := t.j.store.Head(ctx, t.j.bucket, key)
	if errors.Is(err, objectstore.ErrNotExist) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	switch s, err = t.readSuccess(ctx, t.j, key, head.ETag); {
	case errors.Is(err, errNoSuccess) || err == nil && s.Job != t.j.id:
		return nil, "", nil // another's
	case err != nil:
		return nil, "", err
	}
	return s, head.ETag, nil
}

// successPart is how much of _SUCCESS is sent at a time, in bytes.
const successPart = 4 << 20

// writeSuccess adds _SUCCESS to the hidden files.
func (t files) writeSuccess(ctx context.Context, s *Success) error {
	key := t.j.prefix + successName
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	sealer, ok := t.j.store.(objectstore.Sealer)
	if !ok {
		return fmt.Errorf("write %s: %w: the store seals nothing", key, objectstore.ErrInvalid)
	}
	id, err := t.j.store.CreateUpload(ctx, t.j.bucket, key, map[string]string{metaJob: t.j.id, metaTask: successName})
	for number := 1; err == nil && (number == 1 || len(data) > 0); number++ {
		part := data[:min(len(data), successPart)]
		data = data[len(part):]
		_, err = t.j.store.UploadPart(ctx, t.j.bucket, key, id, number, part)
	}
	if err == nil {
		err = sealer.SealUpload(ctx, t.j.bucket, key, id)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	return nil
}

// clean aborts all that is hidden. A commit that failed after all may have been carried out: what it showed goes.
func (t files) clean(ctx context.Context, w cleanWork) error {
	err := retry(ctx, t.noting(ctx, t.j), impossible, func(ctx context.Context) error {
		return t.p.Abort(ctx, t.j.bucket, t.j.id)
	})
	if w.committing {
		err = errors.Join(err, retry(ctx, t.noting(ctx, t.j), impossible, t.unpublish))
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// unpublish deletes the job's _SUCCESS, and then the parts that it names: those very files.
func (t files) unpublish(ctx context.Context) error {
	s, etag, err := t.published(ctx)
	if s == nil || err != nil {
		return err
	}
	gone := append([]SuccessPart{{Key: t.j.prefix + successName, ETag: etag}}, s.Parts...)
	for i := len(gone) - 1; i >= 0; i-- { // _SUCCESS last: whoever goes on finds by it what is left
		p := gone[i]
		if err := t.j.store.DeleteIf(ctx, t.j.bucket, p.Key, p.ETag); err != nil && !errors.Is(err, objectstore.ErrPrecondition) {
			return fmt.Errorf("delete %s: %w", p.Key, err)
		}
	}
	return nil
}
