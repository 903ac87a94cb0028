package datanode

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"

	"millrace/hdfs"
	"millrace/hdfs/wire"
)

// readStall is how long a reader may take nothing before it is cut off.
const readStall = time.Minute

// read serves a piece of a replica, with the checksums as they are on the disk: the reader compares them.
func (n *Node) read(w http.ResponseWriter, r *http.Request) {
	q, err := wire.ParseRead(r.PathValue("id"), r.URL.Query())
	if err != nil {
		wire.Refuse(w, err)
		return
	}
	wait := time.NewTimer(n.cfg.ReaderWait)
	defer wait.Stop()
	select {
	case n.readers <- struct{}{}:
		defer func() { <-n.readers }()
	case <-r.Context().Done():
		return
	case <-wait.C:
		wire.Refuse(w, fmt.Errorf("%w: %d blocks are being read from this node", hdfs.ErrUnavailable, cap(n.readers)))
		return
	}
	replica, err := n.cfg.Store.Open(q.Block, q.Stamp)
	if err != nil {
		wire.Refuse(w, err)
		return
	}
	defer replica.Close()
	at, end, err := q.Span(replica.Size())
	if err != nil {
		wire.Refuse(w, err)
		return
	}
	p := wire.Borrow()
	defer p.Return()
	if err := load(p, replica, at, end); err != nil {
		wire.Refuse(w, err) // the first packet is read before anything is said
		return
	}
	w.Header().Set("Content-Type", "application/x-millrace-block")
	w.Header().Set(wire.HeaderSize, strconv.FormatInt(replica.Size(), 10))
	w.Header().Set("Content-Length", strconv.FormatInt(wire.StreamSize(end-at), 10))
	if err := n.serve(w, p, replica, end); err != nil && r.Context().Err() == nil {
		// An answer that is shorter than it said is no answer to its reader.
		n.log.Debug("a read broke off", zap.Stringer("block", q.Block), zap.String("from", r.RemoteAddr), zap.Error(err))
	}
}

// serve sends packets until the one that ends at end; the first is loaded.
func (n *Node) serve(w http.ResponseWriter, p *wire.Packet, replica Replica, end int64) error {
	rc := http.NewResponseController(w)
	for {
		if err := rc.SetWriteDeadline(time.Now().Add(readStall)); err != nil {
			return err
		}
		if _, err := p.WriteTo(w); err != nil {
			return err
		}
		if p.Final {
			return nil
		}
		if err := load(p, replica, p.End(), end); err != nil {
			return err
		}
	}
}

// load reads the packet at an offset of a replica, of which end is wanted at last.
func load(p *wire.Packet, replica Replica, at, end int64) error {
	p.Reset(at)
	size := min(end-at, wire.MaxData)
	p.Final = at+size == end
	if size == 0 {
		return nil
	}
	data, sums, err := replica.ReadChunks(int(at/hdfs.ChunkSize), wire.Chunks(int(size)), p.Buffer())
	if err != nil {
		return err
	}
	if int64(len(data)) != size {
		return fmt.Errorf("%w: %d bytes at offset %d, where there should be %d", hdfs.ErrCorrupt, len(data), at, size)
	}
	return p.Fill(data, sums)
}
