package worker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"slices"

	"go.uber.org/zap"

	"millrace/hdfs"
	"millrace/hdfs/blockstore"
	hdfsclient "millrace/hdfs/client"
	"millrace/hdfs/datanode"
	"millrace/pkg/api"
	"millrace/pkg/bytesize"
)

// A twentieth of each disk that blocks are on, this at the most, is kept free for tasks.
const maxBlockReserve = 10 << 30

// blocks is a core node's part in its cluster's block store. On a task node there is none: its methods do
// nothing then.
type blocks struct {
	store *blockstore.Store
	node  *datanode.Node
	log   *zap.Logger
}

// openBlocks opens a core node's disks; nil on a task node.
func (w *Worker) openBlocks() (*blocks, error) {
	if w.id.Role != coreRole {
		if len(w.cfg.DataDirs) > 0 && !w.id.Pooled { // one of the pool is a core node at times
			return nil, fmt.Errorf("worker: --data-dir is for core nodes, and this one is a %s node: it stores no blocks", w.id.Role)
		}
		return nil, nil
	}
	if err := w.noteDisks(); err != nil { // blocks matter more
		w.log.Warn("the node's folder does not say where its blocks are: uninstall --data will not find them", zap.Error(err))
	}
	dirs := w.dataDirs()
	b := &blocks{log: w.log.Named("blocks")}
	var err error
	b.store, err = w.openDisks(blockstore.Config{Dirs: dirs, Cluster: w.id.Cluster, Reserve: w.blockReserve(dirs), Log: b.log, Failed: b.failed, Lost: b.relist})
	if err != nil {
		return nil, err
	}
	b.node, err = datanode.New(datanode.Config{Node: w.id.ID, Store: datanode.Blocks(b.store), Dialer: w.clients, Log: b.log})
	if err != nil {
		b.close()
		return nil, err
	}
	b.warnOfSmall()
	return b, nil
}

// blockReserve is how many bytes blocks leave free on each disk: those that are named, else a share of the smallest.
func (w *Worker) blockReserve(dirs []string) int64 {
	if w.cfg.BlockReserve > 0 {
		return w.cfg.BlockReserve
	}
	reserve := int64(maxBlockReserve)
	for _, dir := range append([]string{w.dir.Path()}, dirs...) {
		total, _, err := diskSpace(dir)
		for errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir) { // it is made in the next one above it
			dir = filepath.Dir(dir)
			total, _, err = diskSpace(dir)
		}
		if err == nil {
			reserve = min(reserve, total/20)
		}
	}
	return reserve
}

// warnOfSmall says which disks will never take a block.
func (b *blocks) warnOfSmall() {
	for _, d := range b.store.Disks() {
		if d.Problem == "" && 0 < d.Capacity && d.Capacity <= d.Reserve {
			b.log.Warn("a disk is no larger than what is kept free on it, and never takes a block: name less with --data-reserve, or a larger disk",
				zap.String("dir", d.Dir), zap.String("capacity", bytesize.Format(d.Capacity)), zap.String("reserve", bytesize.Format(d.Reserve)))
		}
	}
}

// failed is told by the store of a disk that it has taken out.
func (b *blocks) failed(d blockstore.Disk) {
	b.log.Error("a disk is out of use, its blocks are copied from other nodes", zap.String("dir", d.Dir), zap.String("problem", d.Problem))
	b.relist()
}

// relist has the leader told anew what is here.
func (b *blocks) relist() {
	if b.node != nil { // else it is being opened: the first report will tell
		b.node.Relist()
	}
}

func (b *blocks) register(mux *http.ServeMux) {
	if b != nil {
		b.node.Register(mux)
	}
}

// run takes part until ctx ends.
func (b *blocks) run(ctx context.Context) {
	if b != nil {
		b.node.Run(ctx)
	}
}

func (b *blocks) close() {
	if b == nil {
		return
	}
	if err := b.store.Close(); err != nil {
		b.log.Warn("close the block store", zap.Error(err))
	}
}

// lead says that a leader of this term has welcomed the node.
func (b *blocks) lead(term uint64) {
	if b != nil {
		b.node.Term(term)
	}
}

// obey takes the leader's orders.
func (b *blocks) obey(o *api.BlockOrders) {
	if b == nil {
		return
	}
	order := datanode.Order{Term: o.Term}
	for _, d := range o.Deletes {
		order.Delete = append(order.Delete, hdfsclient.BlockOf(d))
	}
	for _, c := range o.Copies {
		order.Copy = append(order.Copy, datanode.Copy{Block: hdfsclient.BlockOf(c.Block), To: hdfsclient.NodesOf(c.Targets), Rate: c.BytesPerSecond})
	}
	for _, v := range o.Verifies {
		order.Verify = append(order.Verify, hdfsclient.BlockOf(v))
	}
	if err := b.node.Obey(order); err != nil {
		b.log.Info("refused orders", zap.Error(err))
	}
}

// report tells the leader of a session what is here, until ctx ends.
func (b *blocks) report(ctx context.Context, out *outbox) {
	if b == nil {
		return
	}
	// The session's end is the only one there is.
	_ = b.node.Reports(ctx, func(r datanode.Report) error {
		out.push(&api.WorkerMessage{Message: &api.WorkerMessage_Blocks{Blocks: reportMessage(r)}})
		return ctx.Err()
	})
}

// latest leaves out what a later change of the same replica has made void: a message has no order, and one that is deleted as soon
// as it is whole must not look as if it were there.
func latest(changes []datanode.Change) []datanode.Change {
	var kept []datanode.Change
	void := map[hdfs.BlockID]bool{}
	for _, c := range slices.Backward(changes) {
		if void[c.Block.ID] {
			continue
		}
		kept = append(kept, c)
		void[c.Block.ID] = c.State == datanode.Final || c.State == datanode.Gone
	}
	slices.Reverse(kept)
	return kept
}

// reportMessage is a report as it travels.
func reportMessage(r datanode.Report) *api.BlockReport {
	m := &api.BlockReport{Full: r.Full, Last: r.Last}
	changes := r.Changes
	if !r.Full {
		changes = latest(changes)
	}
	for _, c := range changes {
		b := hdfsclient.BlockMessage(c.Block)
		switch c.State {
		case datanode.Final:
			m.Stored = append(m.Stored, b)
		case datanode.Unfinished:
			m.Unfinished = append(m.Unfinished, b)
		case datanode.Gone:
			m.Gone = append(m.Gone, b)
		case datanode.Bad:
			m.Bad = append(m.Bad, &api.BadBlock{Block: b, Reason: c.Reason})
		case datanode.Verified:
			m.Verified = append(m.Verified, b)
		case datanode.NotCopied:
			m.Failed = append(m.Failed, &api.FailedCopy{Block: b, Target: c.To, Reason: c.Reason})
		}
	}
	for _, d := range r.Disks {
		m.Disks = append(m.Disks, &api.DataDisk{Dir: d.Dir, CapacityBytes: d.Capacity, FreeBytes: d.Free, ReserveBytes: d.Reserve, Problem: d.Problem})
	}
	return m
}
