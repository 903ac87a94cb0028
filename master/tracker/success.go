package tracker

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"millrace/pkg/objectstore"
)

// Success is the content of _SUCCESS: the exact set of parts (CLI.md).
type Success struct {
	Job     string        `json:"job"`
	Cluster string        `json:"cluster"`
	Program string        `json:"program"`
	Parts   []SuccessPart `json:"parts"`
	Records int64         `json:"records"`
	Ledger  SuccessLedger `json:"ledger"`

	copied int64 // bytes of files that are no parts
}

// SuccessPart is one part of the output; Key is without the bucket.
type SuccessPart struct {
	Key     string `json:"key"`
	Size    int64  `json:"size"`
	ETag    string `json:"etag"`
	Records int64  `json:"records"`
}

// SuccessLedger says that what the maps wrote is what the reduces read.
type SuccessLedger struct {
	SegmentRecords int64  `json:"segmentRecords"`
	FetchedRecords int64  `json:"fetchedRecords"`
	Checksum       string `json:"checksum"`
}

// summary is what _SUCCESS will say.
func summary(w commitWork, parts []SuccessPart) *Success {
	s := &Success{
		Job: w.rec.ID, Cluster: w.rec.Cluster, Program: w.rec.Program, Parts: parts,
		Ledger: SuccessLedger{
			SegmentRecords: w.rec.MapLedger.Records, FetchedRecords: w.rec.Fetched.Records,
			Checksum: fmt.Sprintf("%016x", w.rec.MapLedger.Checksum),
		},
	}
	for _, p := range parts {
		s.Records += p.Records
	}
	return s
}

// clear sees to _SUCCESS before anything else is done. One of this job is given back: a
// commit that was not logged got as far as that, and it is not taken back. The one of an
// old set goes, with overwrite: its parts are about to. Only that very object is deleted:
// a request that the store carries out late must not take the new one away.
func (t *Tracker) clear(ctx context.Context, j *job, w commitWork, key string) (*Success, error) {
	var s *Success
	final := func(err error) bool { return hopeless(err) || errors.Is(err, errForeign) }
	err := retry(ctx, t.noting(ctx, j), final, func(ctx context.Context) error {
		head, err := j.store.Head(ctx, j.bucket, key)
		switch {
		case errors.Is(err, objectstore.ErrNotExist):
			return nil
		case err != nil:
			return err
		case head.Metadata[metaJob] == j.id:
			s, err = t.readSuccess(ctx, j, key, head.ETag)
			return err
		case !w.overwrite:
			return fmt.Errorf("write %s: %w", key, errForeign)
		}
		return j.store.DeleteIf(ctx, j.bucket, key, head.ETag)
	})
	return s, err
}

func (t *Tracker) readSuccess(ctx context.Context, j *job, key, etag string) (*Success, error) {
	r, err := j.store.Get(ctx, j.bucket, key, 0, -1, etag)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	var s Success
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("read %s: %w: %w", key, errNoSuccess, err)
	}
	return &s, nil
}

var errNoSuccess = errors.New("it is not what a job writes")

// ours says whether the object at key is there and carries the metadata.
func (t *Tracker) ours(ctx context.Context, j *job, key string, meta map[string]string) (bool, objectstore.Object, error) {
	var head objectstore.Object
	final := func(err error) bool { return hopeless(err) || errors.Is(err, objectstore.ErrNotExist) }
	err := retry(ctx, t.noting(ctx, j), final, func(ctx context.Context) (err error) {
		head, err = j.store.Head(ctx, j.bucket, key)
		return err
	})
	switch {
	case errors.Is(err, objectstore.ErrNotExist):
		return false, head, nil
	case err != nil:
		return false, head, err
	}
	for k, v := range meta {
		if head.Metadata[k] != v {
			return false, head, nil
		}
	}
	return true, head, nil
}

// deleteOld deletes what lies under the prefix and is not this job's output. Its own
// _SUCCESS may be there by now: an earlier leader's request may have come late.
func (t *Tracker) deleteOld(ctx context.Context, j *job, w commitWork, done string) error {
	keep := map[string]bool{done: true}
	for _, p := range w.parts {
		keep[p.key] = true
	}
	// Millions of names take longer than the time-out of one request: the listing goes on where it broke, and
	// what was deleted need not be listed again.
	store := objectstore.Retrying(j.store, objectstore.Retry{Budget: t.cfg.Retries, Tally: &j.retried})
	return retry(ctx, t.noting(ctx, j), hopeless, func(context.Context) error {
		var old []string
		for o, err := range store.List(ctx, j.bucket, j.prefix, objectstore.ListOptions{}) {
			if err != nil {
				return err
			}
			if o.Prefix || keep[o.Key] {
				continue
			}
			if old = append(old, o.Key); len(old) == deleteBatch {
				if err := t.deleteKeys(ctx, j, old); err != nil {
					return err
				}
				old = old[:0]
			}
		}
		return t.deleteKeys(ctx, j, old)
	})
}

func (t *Tracker) deleteKeys(ctx context.Context, j *job, keys []string) error {
	if len(keys) == 0 {
		return nil
	}
	return once(ctx, func(ctx context.Context) error { return j.store.Delete(ctx, j.bucket, keys...) })
}

// errForeign: somebody else has written a _SUCCESS where the job writes.
var errForeign = errors.New("it is there already, and not this job's: somebody else writes below that prefix; with another output the job can be run again")

// putSuccess writes _SUCCESS, the commit itself, and gives what it says. It never
// replaces one: carried out late, the request finds another one and does nothing.
func (t *Tracker) putSuccess(ctx context.Context, j *job, w commitWork, key string, s *Success) (*Success, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", key, err)
	}
	opts := objectstore.PutOptions{IfNoneMatch: true, ContentType: "application/json", Metadata: map[string]string{metaJob: j.id}}
	final := func(err error) bool { return hopeless(err) || errors.Is(err, errForeign) }
	err = retry(ctx, t.noting(ctx, j), final, func(ctx context.Context) error {
		_, err := j.store.Put(ctx, j.bucket, key, bytes.NewReader(data), int64(len(data)), opts)
		var refusal *objectstore.Error
		switch {
		case errors.As(err, &refusal) && refusal.Code == "NotImplemented": // an old store: it takes it as it is
			opts.IfNoneMatch = false
			return err
		case !errors.Is(err, objectstore.ErrPrecondition):
			return err
		}
		earlier, gone := t.clear(ctx, j, w, key)
		if earlier != nil {
			s = earlier
			return nil
		}
		return cmp.Or(gone, err) // nothing is in its place any more: once more
	})
	return s, err
}
