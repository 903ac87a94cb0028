// Package history keeps the jobs that have ended, in the site's system prefix: the state of
// the masters has room for the newest of them, and a stub (state.PastJob) of the others. It owns the form and the places of
// what is written there, and the Keeper, which moves jobs there and deletes them when their time is over.
//
// Of each job there is a record (all that the state had of it) and, of some that moved together, a page (their jobs without tasks),
// so that a list of ten thousand jobs is a hundred requests. Both are written before the one log entry by which
// the jobs leave the state, and never change: whatever breaks off is done again from its beginning.
package history

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"millrace/master/state"
	"millrace/pkg/objectstore"
)

// ErrGone is wrapped by the error that says that a record or a page is not there, though the store is.
var ErrGone = errors.New("it is not there any more")

// Place is where a site's history lies.
type Place struct {
	Store  objectstore.Store
	Bucket string
	Prefix string // the site's own within the bucket, with the slash at its end, or ""
}

// Record is all that the state had of a job when it had ended, its store's sealed keys excepted.
type Record struct {
	Job           *state.Job
	Maps, Reduces []*state.Task // those of which something was logged, in the order of their indexes
}

// Tasks are the job's tasks of one kind.
func (r *Record) Tasks(kind string) []*state.Task {
	if kind == state.Map {
		return r.Maps
	}
	return r.Reduces
}

// RecordOf is the record of a job that is still in the state.
func RecordOf(v *state.View, j *state.Job) *Record {
	return &Record{Job: j, Maps: v.Tasks(j.ID, state.Map), Reduces: v.Tasks(j.ID, state.Reduce)}
}

const (
	folder = "history/"
	pages  = folder + "pages/"
	suffix = ".json.zst"
)

func (p Place) recordKey(job string) string { return p.Prefix + folder + job + suffix }
func (p Place) pageKey(page string) string  { return p.Prefix + pages + page + suffix }

func (p Place) url(key string) string {
	return objectstore.URL{Bucket: p.Bucket, Key: key}.String()
}

// Record reads a job's record.
func (p Place) Record(ctx context.Context, job string) (*Record, error) {
	r := &Record{}
	err := p.read(ctx, p.recordKey(job), func(l line) bool {
		switch {
		case l.Job != nil:
			r.Job = l.Job
		case l.Task.ID.Kind == state.Map:
			r.Maps = append(r.Maps, l.Task)
		default:
			r.Reduces = append(r.Reduces, l.Task)
		}
		return true
	})
	if err == nil && (r.Job == nil || r.Job.ID != job) {
		err = fmt.Errorf("%w: it is not of job %s", errDamaged, job)
	}
	if err != nil {
		return nil, fmt.Errorf("record of job %s in the history, %s: %w", job, p.url(p.recordKey(job)), err)
	}
	return r, nil
}

// Job reads the job of a record, and none of its tasks.
func (p Place) Job(ctx context.Context, job string) (*state.Job, error) {
	var found *state.Job
	err := p.read(ctx, p.recordKey(job), func(l line) bool {
		found = l.Job
		return false
	})
	if err == nil && (found == nil || found.ID != job) {
		err = fmt.Errorf("%w: it is not of job %s", errDamaged, job)
	}
	if err != nil {
		return nil, fmt.Errorf("record of job %s in the history, %s: %w", job, p.url(p.recordKey(job)), err)
	}
	return found, nil
}

// Page reads the jobs of a page, by id. They have no Spec.
func (p Place) Page(ctx context.Context, page string) (map[string]*state.Job, error) {
	jobs := map[string]*state.Job{}
	err := p.read(ctx, p.pageKey(page), func(l line) bool {
		if l.Job != nil {
			jobs[l.Job.ID] = l.Job
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("page of the history, %s: %w", p.url(p.pageKey(page)), err)
	}
	return jobs, nil
}

func (p Place) read(ctx context.Context, key string, each func(line) bool) error {
	body, err := p.Store.Get(ctx, p.Bucket, key, 0, -1, "")
	if errors.Is(err, objectstore.ErrNotExist) {
		return ErrGone
	}
	if err != nil {
		return err
	}
	defer body.Close()
	return decode(body, each)
}

// putRecord writes a job's record. The same job gives the same bytes.
func (p Place) putRecord(ctx context.Context, r *Record) error {
	job := *r.Job
	job.SealedStore = nil // keys stay where they are needed
	var data bytes.Buffer
	if err := encode(&data, func(yield func(line) bool) {
		if !yield(line{Job: &job}) {
			return
		}
		for _, tasks := range [][]*state.Task{r.Maps, r.Reduces} {
			for _, t := range tasks {
				if !yield(line{Task: t}) {
					return
				}
			}
		}
	}); err != nil {
		return fmt.Errorf("record of job %s: %w", job.ID, err)
	}
	return p.put(ctx, p.recordKey(job.ID), data.Bytes())
}

// putPage writes the page of some jobs and gives its name. That comes from what is in it, so that no other page
// ever takes its place, however late a request is carried out.
func (p Place) putPage(ctx context.Context, jobs []*state.Job) (string, error) {
	var data bytes.Buffer
	if err := encode(&data, func(yield func(line) bool) {
		for _, j := range jobs {
			job := *j
			job.Spec, job.SealedStore = nil, nil
			if !yield(line{Job: &job}) {
				return
			}
		}
	}); err != nil {
		return "", fmt.Errorf("page of the history: %w", err)
	}
	sum := sha256.Sum256(data.Bytes())
	name := hex.EncodeToString(sum[:10])
	return name, p.put(ctx, p.pageKey(name), data.Bytes())
}

func (p Place) put(ctx context.Context, key string, data []byte) error {
	_, err := p.Store.Put(ctx, p.Bucket, key, bytes.NewReader(data), int64(len(data)), objectstore.PutOptions{ContentType: "application/zstd"})
	if err != nil {
		return fmt.Errorf("write %s: %w", p.url(key), err)
	}
	return nil
}
