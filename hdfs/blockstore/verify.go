package blockstore

import (
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"millrace/hdfs"
)

const (
	verifyChunks = 16   // read at once: 1 MiB
	scrubBatch   = 1024 // blocks that Scrub looks up at once
)

var verifyBuffers = sync.Pool{New: func() any { return new([verifyChunks * hdfs.ChunkSize]byte) }}

// Verify reads a final replica from the disk (not from memory) and checks all of it: hdfs.ErrCorrupt (a *CorruptError)
// if anything is wrong. Before so many bytes are read it calls wait, if there is one, which bounds the rate. That a
// replica was found whole is kept as its sums file's time of last change.
func (s *Store) Verify(ctx context.Context, id hdfs.BlockID, stamp hdfs.Stamp, wait func(ctx context.Context, n int) error) error {
	err := s.verify(ctx, id, stamp, wait)
	if ctx.Err() != nil {
		return named("verify", id, err)
	}
	now := s.Now()
	s.mu.Lock()
	e, ok := s.final[id]
	if ok = ok && e.stamp == stamp; ok {
		e.verified = uint32(max(0, now.Unix()))
		s.final[id] = e
	}
	s.mu.Unlock()
	if ok && err == nil {
		s.touch(s.disks[e.disk], id, stamp, now)
	}
	return named("verify", id, err)
}

// touch keeps when a replica was verified. If that fails it is verified earlier than it need be.
func (s *Store) touch(d *disk, id hdfs.BlockID, stamp hdfs.Stamp, now time.Time) {
	defer s.ids.lock(id)()
	if _, _, err := s.find(id, stamp); err != nil {
		return // deleted meanwhile
	}
	_, sums := (&Replica{dir: d.finalPath(id, stamp)}).Files()
	if err := d.judge(s.FS.Touch(sums, now)); err != nil {
		s.Log.Warn("that a block was verified could not be noted", zap.Stringer("block", id), zap.Error(err))
	}
}

func (s *Store) verify(ctx context.Context, id hdfs.BlockID, stamp hdfs.Stamp, wait func(context.Context, int) error) error {
	r, err := s.Open(id, stamp)
	if err != nil {
		return err
	}
	defer r.Close()
	r.data.Forget()
	r.sums.Forget()
	defer r.data.Forget() // nor shall it push out what others read
	buf := verifyBuffers.Get().(*[verifyChunks * hdfs.ChunkSize]byte)
	defer verifyBuffers.Put(buf)
	for first := 0; ; first += verifyChunks {
		if err := ctx.Err(); err != nil {
			return err
		}
		if n := min(int64(len(buf)), r.Size()-int64(first)*hdfs.ChunkSize); wait != nil && n > 0 {
			if err := wait(ctx, int(n)); err != nil {
				return err
			}
		}
		data, sums, err := r.ReadChunks(first, verifyChunks, buf[:])
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if bad := FirstBad(data, sums); bad >= 0 {
			path, _ := r.Files()
			return r.explain(&CorruptError{path, int64(first + bad), "its checksum does not match"})
		}
	}
}

// Scrub lists the final replicas that were last verified before then, the least recently verified first, with that
// time, until there is none left. Whoever ranges over it calls Verify, or leaves: a replica comes again as long as it
// was not verified, at once only if it was not even tried.
func (s *Store) Scrub(before time.Time) iter.Seq2[hdfs.Block, time.Time] {
	return func(yield func(hdfs.Block, time.Time) bool) {
		for {
			batch := s.leastVerified(before, scrubBatch)
			for _, v := range batch {
				if _, _, err := s.find(v.ID, v.Stamp); err != nil {
					continue // deleted meanwhile
				}
				if !yield(v.Block, time.Unix(int64(v.at), 0)) {
					return
				}
			}
			if len(batch) == 0 {
				return
			}
		}
	}
}

type verified struct {
	hdfs.Block
	at uint32
}

// leastVerified gives up to n replicas, in order.
func (s *Store) leastVerified(before time.Time, n int) []verified {
	order := func(a, b verified) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.ID, b.ID)) }
	end := before.Add(time.Second - 1).Unix() // the first second that is not before
	all := make([]verified, 0, 2*n)
	s.mu.RLock()
	defer s.mu.RUnlock()
	var last *verified // of the first n so far: what comes after it does not matter
	for id, e := range s.final {
		v := verified{e.block(id), e.verified}
		if int64(v.at) >= end || last != nil && order(v, *last) > 0 {
			continue
		}
		all = append(all, v)
		if len(all) == 2*n {
			slices.SortFunc(all, order)
			all = all[:n]
			last = &verified{all[n-1].Block, all[n-1].at}
		}
	}
	slices.SortFunc(all, order)
	return all[:min(n, len(all))]
}
