package task

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"sync"

	"millrace/jobs/engine"
	"millrace/pkg/api"
	"millrace/pkg/record"
)

// Segments gathers the segments of one reduce as they are delivered. The zero value is ready.
type Segments struct {
	mu      sync.Mutex
	byMap   map[int32]*api.ChildSegment
	changed chan struct{} // closed at the next delivery
	taken   bool
}

// Deliver adds segments. A second one of the same map takes the first one's
// place until the reduce has begun to merge; then it is ignored.
func (s *Segments) Deliver(segments []*api.ChildSegment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken {
		return
	}
	if s.byMap == nil {
		s.byMap = make(map[int32]*api.ChildSegment)
	}
	for _, g := range segments {
		s.byMap[g.Map] = g
	}
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// take waits for one segment of each of the maps 0..maps-1, and gives them in that order.
func (s *Segments) take(ctx context.Context, maps int) ([]*api.ChildSegment, error) {
	for {
		s.mu.Lock()
		if len(s.byMap) >= maps {
			break
		}
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	defer s.mu.Unlock()
	s.taken = true
	list := make([]*api.ChildSegment, 0, len(s.byMap))
	for _, g := range s.byMap {
		if g.Map < 0 || int(g.Map) >= maps {
			return nil, fmt.Errorf("a segment of map %d was delivered; the job has %d maps", g.Map, maps)
		}
		list = append(list, g)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Map < list[j].Map })
	return list, nil
}

// fetched adds up what a reduce has decoded of all its segments.
type fetched struct {
	partition int
	ledger    record.Ledger
	digest    uint64
	bytes     int64 // decoded so far, of segments not finished too
	done      int   // segments read to their end
	broken    error // the first segmentError: whatever the program made of it, this is the cause
}

func (f *fetched) fail(g *api.ChildSegment, err error) error {
	e := &segmentError{segment: g, err: err}
	if f.broken == nil {
		f.broken = e
	}
	return e
}

// opener opens a segment when the merge comes to it.
func (f *fetched) opener(g *api.ChildSegment) engine.Opener {
	return func() (engine.Run, error) {
		file, err := os.Open(g.Path)
		if err != nil {
			return nil, f.fail(g, err)
		}
		section := io.NewSectionReader(file, g.Offset, g.Length)
		buffered := bufio.NewReaderSize(section, int(min(max(g.Length, 512), 64<<10)))
		return &segmentRun{fetched: f, segment: g, file: file, reader: record.NewReader(buffered, f.partition)}, nil
	}
}

// segmentRun reads one partition of one segment and holds it against the ledger announced.
type segmentRun struct {
	*fetched
	segment *api.ChildSegment
	file    *os.File
	reader  *record.Reader
	ended   bool
}

func (r *segmentRun) Next() (key, value []byte, err error) {
	key, value, err = r.reader.Next()
	if err == nil {
		r.bytes += int64(len(key) + len(value))
		return key, value, nil
	}
	if err != io.EOF {
		return nil, nil, r.fail(r.segment, err)
	}
	if !r.ended {
		got, want := r.reader.Ledger(), ledgerOf(r.segment.Ledger)
		if got != want {
			return nil, nil, r.fail(r.segment, fmt.Errorf("%w: decoded %+v, announced %+v", record.ErrCorrupt, got, want))
		}
		r.ended = true
		r.done++
		r.ledger.Add(got)
		r.digest += record.MapDigest(int(r.segment.Map), r.segment.Digest)
	}
	return nil, nil, io.EOF
}

func (r *segmentRun) Close() error { return errors.Join(r.reader.Close(), r.file.Close()) }

func ledgerOf(l *api.Ledger) record.Ledger {
	return record.Ledger{Records: l.GetRecords(), Bytes: l.GetBytes(), Checksum: l.GetChecksum()}
}
