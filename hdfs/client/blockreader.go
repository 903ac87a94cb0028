package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"millrace/hdfs"
	"millrace/hdfs/wire"
)

// replicaStall is how long a node that serves a replica may be silent.
const replicaStall = 10 * time.Second

// Dialer gives HTTP/1.1 clients, each of which connects to one node only and checks that it is it.
type Dialer interface {
	Client(node string) (*http.Client, error)
}

// Local is what a Dialer on a node with replicas of its own is too: these are read without a socket.
type Local interface {
	// LocalReplica opens a replica if it is of this node; ok is false if it is not.
	LocalReplica(node string, b hdfs.Block) (r LocalReplica, ok bool, err error)
}

// LocalReplica is a final replica on this machine.
type LocalReplica interface {
	Size() int64
	// ReadChunks reads n chunks from the first on into buf, with their checksums as they were stored.
	ReadChunks(first, n int, buf []byte) (data []byte, sums []uint32, err error)
	Close() error
}

// openReplica reads a piece of one replica of a block, from a node that is said to have it. Every chunk is
// verified before a byte of it is given. Errors wrap hdfs.ErrCorrupt, ErrNoBlock, ErrStale or ErrUnavailable, or
// are the connection's; the bytes before one are good.
func openReplica(ctx context.Context, d Dialer, node hdfs.Node, b hdfs.Block, offset, length int64) (io.ReadCloser, error) {
	r, err := open(ctx, d, node, b, offset, length, replicaStall)
	if err != nil {
		return nil, &replicaError{b.ID, node.ID, offset, err}
	}
	return r, nil
}

func open(ctx context.Context, d Dialer, node hdfs.Node, b hdfs.Block, offset, length int64, stall time.Duration) (io.ReadCloser, error) {
	q := wire.Read{Block: b.ID, Stamp: b.Stamp, Offset: offset, Length: length}
	first, last, err := q.Span(b.Size)
	if err != nil {
		return nil, err
	}
	r := &replicaReader{block: b.ID, node: node.ID, next: first, last: last, at: offset, end: offset + min(length, b.Size-offset)}
	if l, ok := d.(Local); ok {
		replica, ok, err := l.LocalReplica(node.ID, b)
		if err != nil {
			return nil, err
		}
		if ok {
			return r, r.local(replica, b)
		}
	}
	return r, r.remote(ctx, d, node, q, b, stall)
}

// replicaError says of which replica an error is.
type replicaError struct {
	block  hdfs.BlockID
	node   string
	offset int64 // in the block
	err    error
}

func (e *replicaError) Error() string {
	return fmt.Sprintf("read %s from node %s at offset %d: %v", e.block, e.node, e.offset, e.err)
}

func (e *replicaError) Unwrap() error { return e.err }

// replicaReader gives the bytes [at, end) out of verified packets.
type replicaReader struct {
	block      hdfs.BlockID
	node       string
	load       func(*wire.Packet) error // the packet at next
	close      func()
	next, last int64 // the packets that are still to come
	at, end    int64
	packet     *wire.Packet // what of it lies behind at is to be given
	err        error
}

func (r *replicaReader) local(replica LocalReplica, b hdfs.Block) error {
	if replica.Size() != b.Size {
		replica.Close()
		return fmt.Errorf("%w: it has %d bytes, not %d", hdfs.ErrCorrupt, replica.Size(), b.Size)
	}
	r.close = func() { replica.Close() }
	r.load = func(p *wire.Packet) error {
		size := int(min(r.last-r.next, wire.MaxData))
		p.Reset(r.next)
		p.Final = r.next+int64(size) == r.last
		data, sums, err := replica.ReadChunks(int(r.next/hdfs.ChunkSize), wire.Chunks(size), p.Buffer())
		if err != nil {
			return err
		}
		return p.Fill(data, sums)
	}
	return nil
}

func (r *replicaReader) remote(ctx context.Context, d Dialer, node hdfs.Node, q wire.Read, b hdfs.Block, stall time.Duration) error {
	client, err := d.Client(node.ID)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	patience := time.AfterFunc(stall, func() { cancel(fmt.Errorf("nothing came for %v", stall)) })
	cause := func(err error) error {
		patience.Stop()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	r.close = func() {
		patience.Stop()
		cancel(nil)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, q.URL(node.Address), nil)
	if err != nil {
		r.close()
		return err
	}
	resp, err := client.Do(req)
	if err == nil {
		err = wire.Refusal(resp)
		if has := resp.Header.Get(wire.HeaderSize); err == nil && has != strconv.FormatInt(b.Size, 10) {
			err = fmt.Errorf("%w: it has %s bytes, not %d", hdfs.ErrCorrupt, has, b.Size)
		}
		r.close = func() {
			patience.Stop()
			resp.Body.Close()
			cancel(nil)
		}
	}
	if err = cause(err); err != nil {
		r.close()
		return err
	}
	r.load = func(p *wire.Packet) error {
		patience.Reset(stall)
		err := wire.ReadPacket(resp.Body, p)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err == nil && p.Final { // the end of the answer: the connection can be used again
			_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1))
		}
		return cause(err)
	}
	return nil
}

// Read implements io.Reader.
func (r *replicaReader) Read(buf []byte) (int, error) {
	if len(buf) == 0 {
		return 0, nil
	}
	for r.err == nil {
		if r.at == r.end {
			r.err = io.EOF
			break
		}
		if p := r.packet; p != nil && r.at < p.End() {
			n := copy(buf, p.Data()[r.at-p.Offset:min(p.End(), r.end)-p.Offset])
			r.at += int64(n)
			return n, nil
		}
		if r.packet == nil {
			r.packet = wire.Borrow()
		}
		if err := r.fetch(r.packet); err != nil {
			r.packet.Return()
			r.packet, r.err = nil, &replicaError{r.block, r.node, r.at, err}
		}
	}
	return 0, r.err
}

// fetch brings the next packet, verified.
func (r *replicaReader) fetch(p *wire.Packet) error {
	if err := r.load(p); err != nil {
		return err
	}
	if p.Offset != r.next || p.End() > r.last || p.Final != (p.End() == r.last) || p.Len() == 0 {
		return fmt.Errorf("%w: %d bytes came for offset %d, where those from %d to %d should", hdfs.ErrCorrupt, p.Len(), p.Offset, r.next, r.last)
	}
	r.next = p.End()
	return p.Verify()
}

// Close implements io.Closer.
func (r *replicaReader) Close() error {
	if r.packet != nil {
		r.packet.Return()
		r.packet = nil
	}
	if r.close != nil {
		r.close()
		r.close = nil
	}
	if r.err == nil {
		r.err = errors.New("the reader is closed")
	}
	return nil
}
