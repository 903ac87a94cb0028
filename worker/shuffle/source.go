package shuffle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"millrace/pkg/api"
	"millrace/pkg/shortage"
)

const (
	firstRetry = 50 * time.Millisecond
	lastRetry  = time.Second
)

// source fetches from one node, over one request at a time. Its fields are its
// own goroutine's, news apart.
type source struct {
	f     *Fetcher
	node  string
	empty string        // path of an empty file, for empty partitions
	news  chan struct{} // there may be more to fetch
	spool *spool        // of a remote node
}

func (s *source) run(ctx context.Context) {
	if s.node == s.f.cfg.Node {
		s.local(ctx)
		return
	}
	sp, err := newSpool(s.f, s.node)
	if err != nil {
		s.f.fail(err)
		return
	}
	s.spool = sp
	defer sp.close()
	var since time.Time // of the first failure in a row
	retry := firstRetry
	for {
		if len(s.f.wanted(s.node)) == 0 {
			select {
			case <-ctx.Done():
				return
			case <-s.news:
			}
			continue
		}
		before := sp.received
		err := s.stream(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errLocal):
			s.f.fail(err)
			return
		case err == nil:
			since = time.Time{}
			continue
		}
		if sp.received > before || since.IsZero() {
			since, retry = time.Now(), firstRetry
		}
		if time.Since(since) >= s.f.cfg.GiveUp {
			s.giveUp(err)
			since = time.Time{}
			continue
		}
		// Half of it is chance: many reduces lose a node at the same moment.
		pause := time.NewTimer(retry/2 + rand.N(retry/2))
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
		retry = min(2*retry, lastRetry)
	}
}

// giveUp says of everything wanted that it cannot be reached.
func (s *source) giveUp(err error) {
	reason := "unreachable: " + err.Error()
	for _, l := range s.f.wanted(s.node) {
		s.f.problem(l, reason)
	}
}

// local takes segments of this node, in place.
func (s *source) local(ctx context.Context) {
	var late time.Time // of a lack of descriptors that goes on
	for {
		var again <-chan time.Time // there was no descriptor for one of them
		for _, l := range s.f.wanted(s.node) {
			if ctx.Err() != nil {
				return
			}
			g, err := s.f.cfg.Store.Locate(s.f.cfg.Job, l.Attempt, s.f.cfg.Partition)
			if err == nil {
				err = matches(l, g)
			}
			if shortage.Of(err) == shortage.Descriptors {
				if late.IsZero() {
					late = time.Now().Add(s.f.cfg.NoRoom)
				}
				if time.Now().After(late) {
					s.f.fail(fmt.Errorf("%w: %w", errLocal, err))
					return
				}
				again = time.After(roomRetry)
				continue
			}
			if err != nil {
				s.f.problem(l, reasonOf(err))
				continue
			}
			switch {
			case g.Length == 0:
				g.Path, g.Offset = s.empty, 0
			case s.f.cfg.Lend:
				if err = s.lend(g); errors.Is(err, fs.ErrNotExist) {
					s.f.problem(l, reasonOf(fmt.Errorf("%w: %w", ErrMissing, err))) // dropped meanwhile
					continue
				}
			}
			if err != nil {
				s.f.fail(fmt.Errorf("%w: %w", errLocal, err))
				return
			}
			s.f.arrived(l, g)
		}
		if again == nil {
			late = time.Time{}
		}
		select {
		case <-ctx.Done():
			return
		case <-s.news:
		case <-again:
		}
	}
}

// lend gives a segment a second name among the spools, and the group of their folder.
func (s *source) lend(g *api.ChildSegment) error {
	to := filepath.Join(s.f.cfg.Dir, g.MapAttempt+suffix)
	if err := os.Link(g.Path, to); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	var folder unix.Stat_t
	if err := unix.Stat(s.f.cfg.Dir, &folder); err != nil {
		return err
	}
	if err := os.Chown(to, os.Geteuid(), int(folder.Gid)); err != nil {
		return err
	}
	g.Path = to
	return os.Chmod(to, readable)
}

// matches says whether a segment is what the leader announced.
func matches(l *api.SegmentLocation, g *api.ChildSegment) error {
	if g.Map != l.Map || g.MapAttempt != l.Attempt || g.Digest != l.Digest {
		return fmt.Errorf("%w: segment of %s has digest %x, announced %x", errDamaged, l.Attempt, g.Digest, l.Digest)
	}
	return nil
}

// reasonOf makes sure that a reason begins with one of the words that the leader knows.
func reasonOf(err error) string {
	text := err.Error()
	for _, word := range []string{ErrMissing.Error(), errDamaged.Error(), "unreachable"} {
		if strings.HasPrefix(text, word) {
			return text
		}
	}
	return errDamaged.Error() + ": " + text
}
