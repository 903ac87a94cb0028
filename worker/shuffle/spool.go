package shuffle

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"millrace/pkg/api"
	"millrace/pkg/record"
)

// errLocal says that this node's disk is the trouble.
var errLocal = errors.New("spool")

const roomRetry = 250 * time.Millisecond

// spool is one file per node fetched from: partitions one behind the other. What
// came of one that broke off stays until the rest has come, or it is given up.
type spool struct {
	f        *Fetcher
	file     *os.File
	end      int64 // of whole partitions
	received int64 // bytes and frames: any progress shows
	buf      []byte
	waiting  atomic.Bool // for this node's disk: the sender is not to blame for silence

	// The partition that begins at end, if any.
	loc      *api.SegmentLocation
	have     int64
	verifier *record.Verifier
}

// readable is the mode of what a fetcher writes: for the attempt, whose process may be another user's, to read. Who gets to it at all is
// for the folder's owner to say.
const readable = 0o640

func newSpool(f *Fetcher, node string) (*spool, error) {
	if !ValidName(node) {
		return nil, fmt.Errorf("%w: node id %q", errLocal, node)
	}
	file, err := os.OpenFile(filepath.Join(f.cfg.Dir, node+".spool"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, readable)
	if err == nil {
		err = file.Chmod(readable) // whatever the umask
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errLocal, err)
	}
	return &spool{f: f, file: file, buf: make([]byte, copyBytes)}, nil
}

func (s *spool) close() { s.file.Close() } // nothing is lost: the reader opens it by name

// take reads the frame's bytes. damage is the segment's own trouble; err ends the stream.
func (s *spool) take(ctx context.Context, l *api.SegmentLocation, h frame, r *bufio.Reader) (g *api.ChildSegment, damage, err error) {
	if s.loc != l {
		s.loc, s.have, s.verifier = l, 0, record.NewPartitionVerifier(s.f.cfg.Partition)
	}
	if h.Offset != s.have {
		s.drop()
		return nil, nil, fmt.Errorf("%w: frame from offset %d, wanted %d", errProtocol, h.Offset, s.have)
	}
	if err := s.room(ctx, h.Length-h.Offset); err != nil {
		return nil, nil, err
	}
	for s.have < h.Length {
		n, err := io.ReadFull(r, s.buf[:min(int64(len(s.buf)), h.Length-s.have)])
		if damage == nil && n > 0 {
			if _, werr := s.file.WriteAt(s.buf[:n], s.end+s.have); werr != nil {
				return nil, nil, fmt.Errorf("%w: %w", errLocal, werr)
			}
			_, damage = s.verifier.Write(s.buf[:n])
		}
		s.have += int64(n)
		s.received += int64(n)
		if err != nil {
			if damage != nil {
				s.drop()
			}
			return nil, damage, fmt.Errorf("segment of %s: %w", l.Attempt, err)
		}
	}
	s.received++
	if damage == nil {
		damage = checkEnd(s.verifier, h.Records)
	}
	g = &api.ChildSegment{Map: h.Map, MapAttempt: h.Attempt, Path: s.file.Name(), Offset: s.end, Length: h.Length,
		Ledger: &api.Ledger{Records: h.Records, Bytes: h.Bytes, Checksum: h.Checksum}, Digest: h.Digest}
	s.drop()
	if damage == nil {
		damage = matches(l, g)
	}
	if damage != nil {
		return nil, damage, nil
	}
	return g, nil, nil
}

// keep makes the partition that was just taken last: the next comes behind it.
func (s *spool) keep(g *api.ChildSegment) { s.end += g.Length }

// drop forgets a partition that is under way.
func (s *spool) drop() { s.loc, s.have, s.verifier = nil, 0, nil }

// room waits until the disk can take n bytes: the sender waits with us.
func (s *spool) room(ctx context.Context, n int64) error {
	if s.f.cfg.Room == nil || n == 0 {
		return nil
	}
	defer s.waiting.Store(false)
	for late := time.Now().Add(s.f.cfg.NoRoom); ; {
		free, err := s.f.cfg.Room()
		if err != nil {
			return fmt.Errorf("%w: %w", errLocal, err)
		}
		if free >= n {
			return nil
		}
		s.waiting.Store(true)
		if time.Now().After(late) {
			return fmt.Errorf("%w: %w: %d bytes needed, %d free", errLocal, ErrNoRoom, n, free)
		}
		pause := time.NewTimer(roomRetry)
		select {
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		case <-pause.C:
		}
	}
}
