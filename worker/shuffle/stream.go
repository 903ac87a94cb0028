package shuffle

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"millrace/pkg/api"
)

var (
	errStalled = errors.New("stalled")
	errMoved   = errors.New("the node has another address now")
)

// stream is one open request to a node. The writer goroutine adds to asked, the
// reader takes from it, the watchdog looks.
type stream struct {
	s       *source
	address string
	partial *api.SegmentLocation // of which the spool has some, from a stream before
	have    int64

	heard atomic.Int64 // when something last came or was asked for, Unix ns

	mu    sync.Mutex
	asked map[int32]*api.SegmentLocation // frames that are due
	all   map[*api.SegmentLocation]bool  // asked for in this request: never twice
}

// stream opens a request and fetches what the node has, and goes on until nothing
// has been wanted for a while (nil) or something breaks. errLocal is this node's trouble.
func (s *source) stream(ctx context.Context) error {
	select {
	case s.f.cfg.Limit <- struct{}{}:
		defer func() { <-s.f.cfg.Limit }()
	case <-ctx.Done():
		return ctx.Err()
	}
	client, err := s.f.cfg.Clients.Client(s.node)
	if err != nil {
		return err
	}
	st := &stream{s: s, address: s.f.address(s.node), partial: s.spool.loc, have: s.spool.have,
		asked: map[int32]*api.SegmentLocation{}, all: map[*api.SegmentLocation]bool{}}
	st.heard.Store(time.Now().UnixNano())
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	body, feed := io.Pipe()
	url := strings.TrimSuffix(st.address, "/") + "/v1/shuffle/" + s.f.cfg.Job + "/" + strconv.Itoa(s.f.cfg.Partition)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, body)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer feed.Close() // unblocks the writer
	defer cancel(nil)
	wg.Go(func() { st.write(ctx, feed, cancel) })
	wg.Go(func() { st.watch(ctx, cancel) })

	resp, err := client.Do(req)
	if err != nil {
		return causeOr(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return answered("fetch from "+st.address, resp)
	}
	return causeOr(ctx, st.read(ctx, &hearing{resp.Body, &st.heard}))
}

// hearing notes when bytes come.
type hearing struct {
	r    io.Reader
	last *atomic.Int64
}

func (h *hearing) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	h.last.Store(time.Now().UnixNano())
	return n, err
}

// watch cuts the request off when something is due and nothing comes, unless it is this
// node's own disk that is waited for.
func (st *stream) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	limit := st.s.f.cfg.Stall
	tick := time.NewTicker(limit / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		st.mu.Lock()
		due := len(st.asked) > 0
		st.mu.Unlock()
		if st.s.spool.waiting.Load() {
			st.heard.Store(time.Now().UnixNano())
		}
		if due && time.Since(time.Unix(0, st.heard.Load())) > limit {
			cancel(fmt.Errorf("%w: nothing came for %v", errStalled, limit))
			return
		}
	}
}

func causeOr(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// write asks for what is wanted, as it comes to be.
func (st *stream) write(ctx context.Context, w *io.PipeWriter, cancel context.CancelCauseFunc) {
	defer w.Close()
	idle := time.NewTimer(st.s.f.cfg.Idle)
	defer idle.Stop()
	for {
		if st.s.f.address(st.s.node) != st.address {
			cancel(errMoved)
			return
		}
		if st.ask(w) {
			idle.Reset(st.s.f.cfg.Idle)
		}
		select {
		case <-ctx.Done():
			return
		case <-st.s.news:
		case <-idle.C:
			st.mu.Lock()
			due := len(st.asked)
			st.mu.Unlock()
			if due == 0 {
				return // the server ends the response, and the connection is free again
			}
			idle.Reset(st.s.f.cfg.Idle)
		}
	}
}

// ask writes a line for each new place. A broken pipe is the reader's to notice.
func (st *stream) ask(w io.Writer) bool {
	var fresh []*api.SegmentLocation
	wanted := st.s.f.wanted(st.s.node)
	st.mu.Lock()
	for _, l := range wanted {
		if st.all[l] {
			continue
		}
		if len(st.asked) == 0 {
			st.heard.Store(time.Now().UnixNano())
		}
		st.all[l] = true
		st.asked[l.Map] = l
		if l == st.partial { // its rest first: it lies at the spool's end
			fresh = append([]*api.SegmentLocation{l}, fresh...)
		} else {
			fresh = append(fresh, l)
		}
	}
	st.mu.Unlock()
	for _, l := range fresh {
		q := want{Map: l.Map, Attempt: l.Attempt}
		if l == st.partial {
			q.Offset = st.have
		}
		if writeLine(w, q) != nil {
			break
		}
	}
	return len(fresh) > 0
}

// read takes frames until the response ends.
func (st *stream) read(ctx context.Context, body io.Reader) error {
	r := bufio.NewReaderSize(body, 64<<10)
	for {
		h, err := readFrame(r)
		if errors.Is(err, io.EOF) {
			st.mu.Lock()
			defer st.mu.Unlock()
			if len(st.asked) > 0 {
				return fmt.Errorf("%w: %d segments are due", io.ErrUnexpectedEOF, len(st.asked))
			}
			return nil
		}
		if err != nil {
			return err
		}
		if err := st.frame(ctx, h, r); err != nil {
			return err
		}
	}
}

func (st *stream) frame(ctx context.Context, h frame, r *bufio.Reader) error {
	st.mu.Lock()
	l := st.asked[h.Map]
	if l != nil && l.Attempt == h.Attempt {
		defer st.settle(h.Map, l)
	} else {
		l = nil
	}
	st.mu.Unlock()
	f, sp := st.s.f, st.s.spool
	switch {
	case h.Error != "" && l != nil:
		sp.drop()
		f.problem(l, reasonOf(errors.New(h.Error)))
		return nil
	case h.Error != "":
		return nil
	case l == nil || !f.current(l):
		// Nobody asked, or asks any more: a frame sent twice is read past.
		f.cfg.Log.Debug("passed over a frame", zap.String("segment", h.Attempt), zap.String("node", st.s.node))
		_, err := io.CopyN(io.Discard, r, h.Length-h.Offset)
		return err
	}
	if h.Length == 0 && h.Records == 0 {
		sp.received++
		g := &api.ChildSegment{Map: h.Map, MapAttempt: h.Attempt, Path: st.s.empty, Ledger: &api.Ledger{}, Digest: h.Digest}
		if err := matches(l, g); err != nil {
			f.problem(l, reasonOf(err))
			return nil
		}
		f.arrived(l, g)
		return nil
	}
	g, damage, err := sp.take(ctx, l, h, r)
	if damage != nil {
		f.problem(l, reasonOf(damage))
	}
	if err != nil || damage != nil {
		return err
	}
	if f.arrived(l, g) {
		sp.keep(g)
	}
	return nil
}

// settle takes a frame off the list of those due.
func (st *stream) settle(m int32, l *api.SegmentLocation) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.asked[m] == l {
		delete(st.asked, m)
	}
}
