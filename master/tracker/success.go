package tracker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

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

// earlier looks for the _SUCCESS of a commit of this job that was not logged.
func (t *Tracker) earlier(ctx context.Context, j *job, w commitWork, key string) (*Success, bool, error) {
	ours, head, err := t.ours(ctx, j, key, map[string]string{metaJob: j.id})
	if err != nil || !ours {
		return nil, false, err
	}
	var s Success
	err = retry(ctx, t.noting(j), hopeless, func(ctx context.Context) error {
		r, err := j.store.Get(ctx, j.bucket, key, 0, -1, head.ETag)
		if err != nil {
			return err
		}
		defer r.Close()
		return json.NewDecoder(r).Decode(&s)
	})
	if err != nil || len(s.Parts) != len(w.parts) {
		return nil, false, err
	}
	return &s, true, nil
}

// ours says whether the object at key is there and carries the metadata.
func (t *Tracker) ours(ctx context.Context, j *job, key string, meta map[string]string) (bool, objectstore.Object, error) {
	var head objectstore.Object
	final := func(err error) bool { return hopeless(err) || errors.Is(err, objectstore.ErrNotExist) }
	err := retry(ctx, t.noting(j), final, func(ctx context.Context) (err error) {
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

// deleteOld deletes what lies under the prefix and is not this job's output.
func (t *Tracker) deleteOld(ctx context.Context, j *job, w commitWork) error {
	keep := map[string]bool{}
	for _, p := range w.parts {
		keep[p.key] = true
	}
	return retry(ctx, t.noting(j), hopeless, func(ctx context.Context) error {
		var old []string
		for o, err := range j.store.List(ctx, j.bucket, j.prefix, objectstore.ListOptions{}) {
			if err != nil {
				return err
			}
			if !o.Prefix && !keep[o.Key] {
				old = append(old, o.Key)
			}
		}
		for keys := range slices.Chunk(old, deleteBatch) {
			if err := j.store.Delete(ctx, j.bucket, keys...); err != nil {
				return err
			}
		}
		return nil
	})
}

// putSuccess writes _SUCCESS, the commit itself.
func (t *Tracker) putSuccess(ctx context.Context, j *job, key string, s *Success) error {
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	return retry(ctx, t.noting(j), hopeless, func(ctx context.Context) error {
		_, err := j.store.Put(ctx, j.bucket, key, bytes.NewReader(data), int64(len(data)),
			objectstore.PutOptions{ContentType: "application/json", Metadata: map[string]string{metaJob: j.id}})
		return err
	})
}
