package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"millrace/hdfs"
	"millrace/hdfs/wire"
)

// WriterConfig sets up a Writer. Zero fields from Window on mean defaults.
type WriterConfig struct {
	Names   Names
	Dialer  Dialer
	Cluster string // as Config's
	// File is one that Create has begun already, with Create as it was for that; 0: NewWriter begins it.
	File   hdfs.FileID
	Create hdfs.Create // without a lease it gets one

	Window     int64         // bytes on the way that not all have acknowledged; default 4 MiB
	RenewEvery time.Duration // of the lease; default 5 s
	Patience   time.Duration // with a name space that is not available; default 60 s
	Recovery   time.Duration // how long a block may be without any pipeline that gets on; default 30 s
	Timing     wire.Timing
	Log        *zap.Logger
}

// Writer writes one file. What it was given is kept in memory (Window) until all nodes of the pipeline have it,
// and goes on with those that are left when one of them fails. The file can be seen once Close has returned nil;
// on any other end nothing is left of it, only an answer to the last question that got lost leaves that open.
// Its methods are one goroutine's, but Abort's.
type Writer struct {
	cfg    WriterConfig
	log    *zap.Logger
	file   hdfs.FileID
	ctx    context.Context // ends with the writer's life, its cause says why
	cancel context.CancelCauseFunc

	free chan *wire.Packet // room in the window
	full chan *wire.Packet // to be sent
	cur  *wire.Packet      // being filled
	at   int64             // in the block, behind cur or what was sent last

	completing atomic.Bool // the file is whole: what a renewal says of the lease counts no more

	closed bool
	ended  chan struct{} // all goroutines are; info and err are set
	info   hdfs.Info
	err    error

	// The rest is the pipelines' goroutine's.
	avoid []string       // nodes that have failed
	links map[string]int // by node: how often the way on from it has failed
}

var (
	errAborted = errors.New("the writer was aborted")
	errClosed  = errors.New("the writer is closed")
	errDone    = errors.New("the file is complete")
)

// NewWriter begins to write a file, unless that has been done. The writer ends with ctx: unless it was closed by
// then the file is abandoned.
func NewWriter(ctx context.Context, c WriterConfig) (*Writer, error) {
	if c.Names == nil || c.Dialer == nil {
		return nil, errors.New("hdfs writer: names or dialer is missing")
	}
	if c.Create.BlockSize == 0 {
		c.Create.BlockSize = hdfs.DefaultBlockSize
	}
	if c.Create.BlockSize < hdfs.MinBlockSize || c.Create.BlockSize > hdfs.MaxBlockSize {
		return nil, &hdfs.PathError{Op: "create", Cluster: c.Cluster, Path: c.Create.Path, Err: fmt.Errorf("%w: a block size of %d bytes; it must be from %d to %d",
			hdfs.ErrInvalid, c.Create.BlockSize, hdfs.MinBlockSize, int64(hdfs.MaxBlockSize))}
	}
	if c.Create.Lease == "" {
		c.Create.Lease = rand.Text()
	}
	if c.Window <= 0 {
		c.Window = 4 << 20
	}
	for d, v := range map[*time.Duration]time.Duration{
		&c.RenewEvery: 5 * time.Second, &c.Patience: time.Minute, &c.Recovery: 30 * time.Second} {
		if *d <= 0 {
			*d = v
		}
	}
	c.Timing = c.Timing.WithDefaults()
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	packets := max(2, int(c.Window/wire.MaxData))
	w := &Writer{cfg: c, log: c.Log.With(zap.String("path", c.Create.Path)), file: c.File, free: make(chan *wire.Packet, packets),
		full: make(chan *wire.Packet, packets), ended: make(chan struct{}), links: map[string]int{}}
	for range packets {
		w.free <- nil // borrowed when they are needed
	}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	if w.file == 0 {
		err := w.ask(w.ctx, "create the file", func(ctx context.Context) (err error) {
			w.file, err = c.Names.Create(ctx, c.Create)
			return err
		})
		if err != nil {
			w.cancel(err)
			return nil, err
		}
	}
	go w.run()
	return w, nil
}

// File is the file's id.
func (w *Writer) File() hdfs.FileID { return w.file }

// Info describes the file, after Close has returned nil.
func (w *Writer) Info() hdfs.Info { return w.info }

// Write implements io.Writer. It waits while the window is full.
func (w *Writer) Write(data []byte) (int, error) {
	if w.closed {
		return 0, errClosed
	}
	done := 0
	for done < len(data) {
		if err := w.begin(); err != nil {
			return done, err
		}
		limit := int(min(wire.MaxData, w.cfg.Create.BlockSize-w.cur.Offset))
		done += w.cur.Append(data[done:], limit)
		if w.cur.Len() == limit {
			w.send(w.cur.End() == w.cfg.Create.BlockSize)
		}
	}
	return done, nil
}

// ReadFrom implements io.ReaderFrom.
func (w *Writer) ReadFrom(r io.Reader) (int64, error) {
	// Without it io.Copy would use pieces of 32 KiB.
	p := wire.Borrow()
	defer p.Return()
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, p.Buffer())
}

// begin sees to it that there is a packet to fill.
func (w *Writer) begin() error {
	if err := context.Cause(w.ctx); err != nil || w.cur != nil {
		return err
	}
	select {
	case <-w.ctx.Done():
		return context.Cause(w.ctx)
	case w.cur = <-w.free:
	}
	if w.cur == nil {
		w.cur = wire.Borrow()
	}
	w.cur.Reset(w.at)
	return nil
}

// send hands the current packet over. There is room: the packets are not more than that.
func (w *Writer) send(final bool) {
	w.cur.Final = final
	w.cur.Seal()
	w.at = w.cur.End()
	if final {
		w.at = 0
	}
	w.full <- w.cur
	w.cur = nil
}

// Close waits until all is on the nodes for good and makes the file visible (or seals the upload). It may be
// called again and says the same.
func (w *Writer) Close() error {
	if !w.closed {
		w.closed = true
		if w.cur != nil || w.at > 0 {
			if w.begin() == nil {
				w.send(true)
			}
		}
		close(w.full)
	}
	<-w.ended
	return w.err
}

// Abort ends the writer and abandons the file, unless it is complete. It may be called at any time, by anybody.
func (w *Writer) Abort() error {
	w.cancel(errAborted)
	<-w.ended
	if w.err == nil || errors.Is(w.err, errAborted) {
		return nil
	}
	return w.err
}

// run is the pipelines' goroutine.
func (w *Writer) run() {
	defer close(w.ended)
	var renew sync.WaitGroup
	defer renew.Wait()
	if w.cfg.Create.Group == "" { // an upload's lease does not expire
		renew.Go(w.renew)
	}
	last, err := w.blocks()
	if err == nil {
		w.completing.Store(true)
		err = w.ask(w.ctx, "complete the file", func(ctx context.Context) (err error) {
			w.info, err = w.cfg.Names.Complete(ctx, w.file, w.cfg.Create.Lease, last)
			return err
		})
	}
	if err == nil {
		w.cancel(errDone)
		w.returnPackets()
		return
	}
	if cause := context.Cause(w.ctx); cause != nil {
		err = cause
	}
	w.err = &hdfs.PathError{Op: "write", Cluster: w.cfg.Cluster, Path: w.cfg.Create.Path, Err: err}
	w.cancel(w.err)
	// Nobody waits for this file any more, also if ctx is over: the sooner its blocks go the better.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), w.cfg.Timing.Stall)
	defer cancel()
	if err := w.cfg.Names.Abandon(ctx, w.file, w.cfg.Create.Lease); err != nil && !errors.Is(err, hdfs.ErrLease) && !errors.Is(err, hdfs.ErrNotExist) {
		w.log.Warn("abandon an unfinished file: it goes when its lease is over", zap.Error(err))
	}
}

// returnPackets gives all of them back, when nobody uses them any more. Those of a writer that failed go with it.
func (w *Writer) returnPackets() {
	for {
		select {
		case p := <-w.free:
			if p != nil {
				p.Return()
			}
		default:
			return
		}
	}
}

// blocks writes what comes, block after block, and gives the last one.
func (w *Writer) blocks() (last *hdfs.Block, err error) {
	for {
		select {
		case <-w.ctx.Done():
			return nil, context.Cause(w.ctx)
		case first, ok := <-w.full:
			if !ok {
				return last, context.Cause(w.ctx)
			}
			b, err := w.block(first, last)
			if err != nil {
				return nil, err
			}
			last = &b
		}
	}
}

// renew keeps the lease until the writer ends.
func (w *Writer) renew() {
	tick := time.NewTicker(w.cfg.RenewEvery)
	defer tick.Stop()
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-tick.C:
		}
		ctx, cancel := context.WithTimeout(w.ctx, w.cfg.RenewEvery)
		over, err := w.cfg.Names.Renew(ctx, []string{w.cfg.Create.Lease})
		cancel()
		// Of a file that is complete the lease is over, too, and the answer that says so may still be under way.
		if err == nil && slices.Contains(over, w.cfg.Create.Lease) && !w.completing.Load() {
			w.cancel(fmt.Errorf("%w: this writer was not heard of for too long", hdfs.ErrLease))
			return
		}
		if err != nil {
			w.log.Debug("renew a lease", zap.Error(err))
		}
	}
}

// ask repeats a question to the name space while it is not available: a leader may be being elected.
func (w *Writer) ask(ctx context.Context, what string, question func(context.Context) error) error {
	late := time.Now().Add(w.cfg.Patience)
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		once, cancel := context.WithTimeout(ctx, w.cfg.Timing.Stall)
		err := question(once)
		silent := once.Err() != nil && ctx.Err() == nil
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !silent && !errors.Is(err, hdfs.ErrUnavailable), time.Now().After(late):
			return fmt.Errorf("%s: %w", what, err)
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

const (
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
)

// sleep waits, or says why ctx ended.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
