package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"millrace/hdfs"
)

// stream reads the bytes [at, end) of a file in their order, from block to block, and of each block from whichever
// replica can be read. Not for concurrent use.
type stream struct {
	ctx     context.Context
	file    *openFile
	at, end int64

	block hdfs.Located
	node  hdfs.Node
	rc    io.ReadCloser // nil: none is open
	left  int64         // bytes that it shall still give

	trouble trouble // since the last byte
}

// trouble is what has failed in a row, without a byte in between.
type trouble struct {
	patience patience
	tried    map[string]bool  // nodes, since the places were asked for
	causes   map[string]error // by node: its last error
	order    []hdfs.Node      // of those in causes
	fresh    bool             // the places have to be asked for anew
	rounds   int              // how often they were
}

// askedAgain is how often the places are asked for anew before a block is given up of which no good replica is left.
const askedAgain = 2

func (o *openFile) stream(ctx context.Context, at, end int64) *stream {
	return &stream{ctx: ctx, file: o, at: at, end: end}
}

// Read gives io.EOF at the end of the range only.
func (s *stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for s.at < s.end {
		if s.rc == nil {
			if err := s.open(); err != nil {
				return 0, s.file.files.named("read", s.file.info.Path, err)
			}
			continue
		}
		n, err := s.rc.Read(p[:min(int64(len(p)), s.left)])
		s.at += int64(n)
		s.left -= int64(n)
		if n > 0 {
			s.trouble = trouble{}
		}
		switch {
		case s.left == 0:
			s.close()
		case err != nil:
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			s.close()
			s.failed(err)
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, io.EOF
}

// open opens the next replica, or notes why it cannot be; an error is the stream's end.
func (s *stream) open() error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	b, err := s.file.block(s.ctx, s.at, s.trouble.fresh)
	if errors.Is(err, hdfs.ErrUnavailable) && len(s.trouble.order) > 0 {
		err = fmt.Errorf("%w (and before: %s)", err, strings.Join(s.trouble.said(), "; "))
	}
	if err != nil {
		return err
	}
	s.block, s.trouble.fresh = b, false
	for _, node := range s.file.order(b.Nodes) {
		if s.trouble.tried[node.ID] {
			continue
		}
		s.node = node
		offset := s.at - b.Offset
		s.left = min(s.end-s.at, b.Size-offset)
		if s.rc, err = s.file.files.cfg.Blocks.Open(s.ctx, node, b.Block, offset, s.left); err != nil {
			s.rc = nil
			s.failed(err)
		}
		return nil
	}
	if s.trouble.rounds >= askedAgain && s.trouble.hopeless(b) {
		return s.lost(hdfs.ErrLost)
	}
	if !s.trouble.again(s.ctx, s.file) {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		return s.lost(hdfs.ErrNoReplica)
	}
	return nil
}

func (s *stream) lost(is error) error {
	return &lostError{is, s.block, s.trouble.said()}
}

// failed notes what a node did.
func (s *stream) failed(err error) {
	if s.ctx.Err() != nil {
		return // it is us
	}
	s.file.note(s.ctx, s.block.Block, s.node.ID, err)
	t := &s.trouble
	if t.causes == nil {
		t.causes, t.tried = map[string]error{}, map[string]bool{}
	}
	if t.causes[s.node.ID] == nil {
		t.order = append(t.order, s.node)
	}
	t.causes[s.node.ID], t.tried[s.node.ID] = err, true
}

// again begins another round over all nodes, after a pause.
func (t *trouble) again(ctx context.Context, o *openFile) bool {
	if t.patience.whole == 0 {
		t.patience = o.files.patience()
	}
	if !t.patience.wait(ctx) {
		return false
	}
	clear(t.tried)
	t.fresh = true
	t.rounds++
	return true
}

// hopeless says that nobody who may have the block will ever give it: each replica is no good, and no node is waited for.
func (t *trouble) hopeless(b hdfs.Located) bool {
	for _, n := range b.Nodes {
		if !noGood(t.causes[n.ID]) {
			return false
		}
	}
	return b.Settled && len(b.Away) == 0
}

// noGood says that it is the replica that an error speaks of, not its node or the way there.
func noGood(err error) bool {
	return errors.Is(err, hdfs.ErrCorrupt) || errors.Is(err, hdfs.ErrNoBlock) || errors.Is(err, hdfs.ErrStale)
}

// said is what is wrong with each node's replica.
func (t *trouble) said() (all []string) {
	for _, node := range t.order {
		all = append(all, fmt.Sprintf("node %s: %s", node.Called(), brief(t.causes[node.ID])))
	}
	return all
}

// brief is what is wrong with a replica, in few words.
func brief(err error) string {
	switch {
	case errors.Is(err, hdfs.ErrCorrupt):
		return "damaged"
	case errors.Is(err, hdfs.ErrNoBlock):
		return "gone"
	case errors.Is(err, hdfs.ErrStale):
		return "stale"
	}
	if of := (*replicaError)(nil); errors.As(err, &of) {
		err = of.err
	}
	if of := (*url.Error)(nil); errors.As(err, &of) {
		err = of.Err
	}
	return err.Error()
}

func (s *stream) close() {
	if s.rc != nil {
		s.rc.Close()
		s.rc = nil
	}
}

// lostError says that a block cannot be read, and what is wrong with each replica.
type lostError struct {
	is    error // hdfs.ErrLost, or else hdfs.ErrNoReplica
	block hdfs.Located
	said  []string
}

func (e *lostError) Error() string {
	what, said := hdfs.ErrNoReplica.Error(), e.said
	if errors.Is(e.is, hdfs.ErrLost) {
		what = "no good replica"
	}
	if len(e.block.Away) > 0 {
		said = append(said, fmt.Sprintf("node %s may have one, is away, and was waited for", strings.Join(e.block.Away, " or ")))
	}
	if len(said) == 0 {
		said = []string{"no node is known to have one"}
	}
	return fmt.Sprintf("block %s at offset %d: %s: %s", e.block.ID, e.block.Offset, what, strings.Join(said, "; "))
}

func (e *lostError) Unwrap() error { return e.is }
