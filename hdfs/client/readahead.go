package client

import (
	"cmp"
	"context"
	"io"
	"io/fs"
)

// Read-ahead: so many pieces of so many bytes wait for the reader at most.
const (
	aheadPiece  = 1 << 20
	aheadPieces = 4
	leastPiece  = 128 << 10 // what is handed over at least, unless the end has come
)

// readAhead is a stream that reads on while its user does other things.
type readAhead struct {
	ctx    context.Context // the reader's
	cancel context.CancelFunc
	pieces chan piece
	free   chan []byte
	done   chan struct{}

	held []byte // the piece that is being read
	cur  []byte // what is left of it
	err  error  // after it, if it is the last one
}

type piece struct {
	data []byte
	err  error // after data; io.EOF at the end of the range
}

// ahead starts reading [at, end) of the file. It has to be closed.
func (o *openFile) ahead(ctx context.Context, at, end int64) *readAhead {
	own, cancel := context.WithCancel(ctx)
	a := &readAhead{
		ctx: ctx, cancel: cancel, pieces: make(chan piece, aheadPieces-2), // one is being filled, one being read
		free: make(chan []byte, aheadPieces), done: make(chan struct{}),
	}
	for range aheadPieces {
		a.free <- nil
	}
	go func() {
		defer close(a.done)
		s := o.stream(own, at, end)
		defer s.close()
		a.run(own, s, end-at)
	}()
	return a
}

func (a *readAhead) run(ctx context.Context, s io.Reader, left int64) {
	for {
		var buf []byte
		select {
		case buf = <-a.free:
		case <-ctx.Done():
			return
		}
		if buf == nil {
			buf = make([]byte, min(aheadPiece, left))
		}
		n, err := io.ReadAtLeast(s, buf, int(min(leastPiece, left, int64(len(buf)))))
		if left -= int64(n); left == 0 {
			err = io.EOF
		}
		select {
		case a.pieces <- piece{buf[:n], err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// next makes cur not empty, or gives the error behind the last piece.
func (a *readAhead) next() error {
	for len(a.cur) == 0 {
		if a.err != nil {
			return a.err
		}
		if a.held != nil {
			a.free <- a.held[:cap(a.held)]
			a.held = nil
		}
		select {
		case p := <-a.pieces:
			a.cur, a.held, a.err = p.data, p.data, p.err
		case <-a.done:
			select {
			case p := <-a.pieces:
				a.cur, a.held, a.err = p.data, p.data, p.err
			default:
				a.err = cmp.Or(a.ctx.Err(), fs.ErrClosed) // without either there is a last piece
			}
		}
	}
	return nil
}

// Read is io.Reader's.
func (a *readAhead) Read(p []byte) (int, error) {
	if err := a.next(); err != nil {
		return 0, err
	}
	n := copy(p, a.cur)
	a.cur = a.cur[n:]
	return n, nil
}

// WriteTo is io.WriterTo's.
func (a *readAhead) WriteTo(w io.Writer) (total int64, err error) {
	for {
		if err := a.next(); err != nil {
			if err == io.EOF {
				err = nil
			}
			return total, err
		}
		n, err := w.Write(a.cur)
		total += int64(n)
		a.cur = a.cur[n:]
		if err != nil {
			return total, err
		}
		if len(a.cur) > 0 {
			return total, io.ErrShortWrite
		}
	}
}

// Close ends it and waits.
func (a *readAhead) Close() error {
	a.cancel()
	<-a.done
	return nil
}
