package master

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"millrace/master/fsm"
	"millrace/pkg/shortage"
)

const (
	diskRetry = 500 * time.Millisecond
	// roomWanted is how much has to go onto a disk that failed, in bytes, before it is believed again.
	roomWanted = 1 << 20
)

// probeKey is where that much is written, and taken away again.
var probeKey = []byte("Probe")

// logFiles is what Raft's log and votes are kept in.
type logFiles interface {
	raft.LogStore
	raft.StableStore
	io.Closer
}

// disk is logFiles as Raft gets them, and knows how the writing goes. A write that fails means for Raft: an
// entry is not there, which it can live with (a leader steps down, a follower is given it again), or a term or vote is not,
// which it cannot: it panics, or would have to break a promise. So those writes, and those after which its idea of the log would be wrong, are
// waited for. A master with such a disk stands still, and the others go on without it: it neither leads nor votes.
type disk struct {
	logFiles
	log   *zap.Logger
	retry time.Duration

	mu        sync.Mutex
	trouble   error // of the newest write of the log's; nil: it went well
	snapshot  error // the same of snapshots
	suffixCut bool  // entries were removed to make place for others: Raft takes those for written

	waiters int
	waiting chan struct{} // closed while there are any: Raft answers nobody then

	changed chan struct{} // capacity 1: trouble has come or gone
	closing chan struct{}
	once    sync.Once
}

func newDisk(files logFiles, log *zap.Logger) *disk {
	return &disk{logFiles: files, log: log, retry: diskRetry, waiting: make(chan struct{}), changed: make(chan struct{}, 1), closing: make(chan struct{})}
}

// abandon ends the waiting, for good; what waits ends with its goroutine. Raft is to be shut down next.
func (d *disk) abandon() { d.once.Do(func() { close(d.closing) }) }

func (d *disk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

func (d *disk) StoreLogs(logs []*raft.Log) error {
	write := func() error { return d.logFiles.StoreLogs(logs) }
	d.mu.Lock()
	cut := d.suffixCut
	d.mu.Unlock()
	if !cut {
		return d.note("append to the log", write())
	}
	d.until("append to the log", write)
	d.mu.Lock()
	d.suffixCut = false
	d.mu.Unlock()
	return nil
}

func (d *disk) DeleteRange(from, to uint64) error {
	last, err := d.LastIndex()
	if err == nil {
		err = d.logFiles.DeleteRange(from, to)
	}
	if err == nil && to >= last {
		d.mu.Lock()
		d.suffixCut = true
		d.mu.Unlock()
	}
	return d.note("remove entries from the log", err)
}

func (d *disk) Set(key, value []byte) error {
	d.promise(func() error { return d.logFiles.Set(key, value) })
	return nil
}

func (d *disk) SetUint64(key []byte, value uint64) error {
	d.promise(func() error { return d.logFiles.SetUint64(key, value) })
	return nil
}

// promise writes a term or a vote. A disk that did not take an entry is given none before it has shown that it can again.
func (d *disk) promise(write func() error) {
	d.until("write a vote", func() error {
		if err := d.probe(); err != nil {
			return err
		}
		return write()
	})
}

func (d *disk) probe() error {
	if failing, _ := d.state(); failing == nil {
		return nil
	}
	if err := d.logFiles.Set(probeKey, make([]byte, roomWanted)); err != nil {
		return err
	}
	return d.logFiles.Set(probeKey, nil)
}

// until writes until it is written. If the disk is abandoned before that, the calling goroutine ends here: it is
// Raft's, which must not go on without.
func (d *disk) until(what string, write func() error) {
	if d.note(what, write()) == nil {
		return
	}
	d.waits(1)
	for {
		select {
		case <-time.After(d.retry):
		case <-d.closing:
			runtime.Goexit()
		}
		if d.note(what, write()) == nil {
			d.waits(-1)
			return
		}
	}
}

// waits counts those that wait: Raft's main goroutine and those that take heartbeats may all.
func (d *disk) waits(more int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.waiters
	d.waiters += more
	switch {
	case before == 0:
		close(d.waiting)
	case d.waiters == 0:
		d.waiting = make(chan struct{})
	}
}

// stalled is closed when Raft waits for the disk, as it does then or will next.
func (d *disk) stalled() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.waiting
}

// note takes in how a write went.
func (d *disk) note(what string, err error) error {
	if err != nil {
		err = fmt.Errorf("%w: %s: %w", fsm.ErrDisk, what, err)
	}
	d.mu.Lock()
	was := d.trouble
	d.trouble = err
	d.mu.Unlock()
	d.tell("this master takes no part in anything until its disk takes the log again", was, err)
	return err
}

// noteSnapshot takes in how a snapshot went.
func (d *disk) noteSnapshot(err error) {
	d.mu.Lock()
	was := d.snapshot
	d.snapshot = err
	d.mu.Unlock()
	d.tell("no snapshot can be written: the last one stays, and the log grows", was, err)
}

// tell says what has changed.
func (d *disk) tell(what string, was, is error) {
	switch {
	case is != nil && (was == nil || was.Error() != is.Error()):
		d.log.Error(what, zap.Error(shortage.Explained(is)))
	case is == nil && was != nil:
		d.log.Info("the disk is well again", zap.NamedError("was", was))
	default:
		return
	}
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// state is what is wrong with the log and with snapshots.
func (d *disk) state() (log, snapshot error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.trouble, d.snapshot
}

// problem says for people what is wrong, and whether this master cannot log; "" = nothing.
func (d *disk) problem() (text string, cannotLog bool) {
	log, snapshot := d.state()
	switch {
	case log != nil:
		return shortage.Explained(log).Error(), true
	case snapshot != nil:
		return shortage.Explained(fmt.Errorf("no snapshot can be written, the last one stays: %w", snapshot)).Error(), false
	}
	return "", false
}

// snapshotFiles is Raft's store of snapshots, which leaves nothing of one that failed: on a full disk that would
// be one more each time.
type snapshotFiles struct {
	raft.SnapshotStore
	dir  string // that they are in
	disk *disk
}

const unfinished = ".tmp" // as Raft ends the names of snapshots that are being written

// openSnapshots opens the snapshots in a master's raft folder; those that were not finished are removed.
func openSnapshots(raftDir string, d *disk, store raft.SnapshotStore) (*snapshotFiles, error) {
	s := &snapshotFiles{store, filepath.Join(raftDir, "snapshots"), d}
	left, err := filepath.Glob(filepath.Join(s.dir, "*"+unfinished))
	for _, l := range left {
		err = errors.Join(err, os.RemoveAll(l))
	}
	return s, err
}

func (s *snapshotFiles) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration, configIndex uint64, t raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(version, index, term, c, configIndex, t)
	if err != nil {
		s.disk.noteSnapshot(err)
		return nil, err
	}
	return &snapshotSink{sink, s}, nil
}

// snapshotSink is a snapshot on its way.
type snapshotSink struct {
	raft.SnapshotSink
	files *snapshotFiles
}

func (k *snapshotSink) Write(p []byte) (int, error) {
	n, err := k.SnapshotSink.Write(p)
	if err != nil {
		k.files.disk.noteSnapshot(err)
	}
	return n, err
}

func (k *snapshotSink) Close() error {
	err := k.SnapshotSink.Close()
	k.files.disk.noteSnapshot(err)
	if err != nil {
		err = errors.Join(err, k.remove())
	}
	return err
}

func (k *snapshotSink) Cancel() error {
	_ = k.SnapshotSink.Cancel() // it fails where the write did, and then leaves the files
	return k.remove()
}

func (k *snapshotSink) remove() error {
	return os.RemoveAll(filepath.Join(k.files.dir, k.ID()+unfinished))
}
