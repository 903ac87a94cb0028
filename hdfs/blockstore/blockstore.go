// Package blockstore owns one node's replicas of blocks on its local disks: written once, made final in one step
// that survives a crash, read with checksums, verified, deleted. It knows nothing of other nodes, of files, or of who
// decides what is stale; it has no clock and starts no goroutine that outlives a call.
//
// What holds at every moment, whatever fails or crashes: a final replica is whole and durable (its bytes, its sums and
// its name were synced before Finalize returned); everything else is unfinished and can go on only through Recover,
// which believes nothing that it has not checked.
package blockstore

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"millrace/hdfs"
)

// DefaultKeepUnfinished is for how long an unfinished replica that nobody writes waits for Recover.
const DefaultKeepUnfinished = 6 * time.Hour

// Why nothing more can be done here.
var (
	ErrDisk    = errors.New("the disk has failed") // that one; others may go on
	ErrNoDisks = errors.New("all disks have failed")
	ErrClosed  = errors.New("the block store is closed")
)

// Config is what a store needs. Dirs and Cluster must be given.
type Config struct {
	Dirs    []string // one for each disk; made if need be
	Cluster string   // the id: a disk of another one is refused
	Reserve int64    // bytes that are kept free on each disk

	KeepUnfinished time.Duration    // DefaultKeepUnfinished if 0
	Now            func() time.Time // time.Now if nil

	// MayBegin is asked before a folder that is no disk of a store's yet is made one, or made at all: an error takes it out, as a disk
	// that does not work. Any may, if nil.
	MayBegin func(dir string) error

	// Failed is told of each disk that is taken out, once, when its blocks are gone from Blocks; by Open too. It is
	// called in the middle of whatever met the failure: it may call Disks and Blocks, and must not wait for anything
	// else of the store.
	Failed func(Disk)

	// Lost is told, in the same way, that replicas are gone from Blocks which somebody has removed with their folder.
	Lost func()

	FS  FS          // the machine's own if nil
	Log *zap.Logger // none if nil
}

// Disk is how one disk does.
type Disk struct {
	Dir      string
	Capacity int64  // bytes of its file system
	Free     int64  // bytes that blocks may still take, the reserve left out
	Reserve  int64  // bytes that are kept free
	Used     int64  // bytes of blocks
	Blocks   int    // final ones
	Problem  string // why it was taken out; "" = it is in use
}

// Store is the replicas on a node's disks. Its methods may be called by many at once.
type Store struct {
	Config
	disks []*disk
	turn  atomic.Uint64 // counts the choices of a disk
	ids   keyed         // who changes a block's replica has its id; taken before a writer's lock, and that before mu

	mu      sync.RWMutex // over what follows; never held while a disk works
	final   map[hdfs.BlockID]entry
	writing map[hdfs.BlockID]*unfinished
	closed  bool
}

// entry is a final replica; 32 bytes with its key.
type entry struct {
	stamp    hdfs.Stamp
	size     int64
	verified uint32 // Unix seconds; or since then a try that failed
	disk     uint16
}

func (e entry) block(id hdfs.BlockID) hdfs.Block {
	return hdfs.Block{ID: id, Stamp: e.stamp, Size: e.size}
}

// Open takes the folders, makes what is missing in them, drops what crashes have left half there, and lists the
// replicas. A folder that belongs to another cluster (ErrForeign), has a newer format (ErrNewer) or is in use is an
// error; a disk that does not work is taken out, and an error only if it is the last one.
func Open(c Config) (*Store, error) {
	s, err := configured(c)
	if err != nil {
		return nil, fmt.Errorf("block store: %w", err)
	}
	found := make([]found, len(s.disks))
	errs := make([]error, len(s.disks))
	var wg sync.WaitGroup
	for i, d := range s.disks {
		wg.Go(func() { found[i], errs[i] = d.open(s.Cluster) })
	}
	wg.Wait()
	err = errors.Join(errors.Join(errs...), s.alike())
	if err == nil {
		for i, f := range found {
			s.index(s.disks[i], f)
		}
		s.dropOvertaken()
		s.DropUnfinished()
		err = s.usable()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("block store: %w", err), s.Close())
	}
	return s, nil
}

func configured(c Config) (*Store, error) {
	switch {
	case len(c.Dirs) == 0:
		return nil, errors.New("it needs a folder at least")
	case c.Cluster == "":
		return nil, errors.New("it needs the cluster's id")
	case c.Reserve < 0 || c.KeepUnfinished < 0:
		return nil, errors.New("what is kept free and for how long unfinished blocks are kept cannot be less than 0")
	}
	c.KeepUnfinished = cmp.Or(c.KeepUnfinished, DefaultKeepUnfinished)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.FS == nil {
		c.FS = osFS{}
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.MayBegin == nil {
		c.MayBegin = func(string) error { return nil }
	}
	if c.Failed == nil {
		c.Failed = func(Disk) {}
	}
	if c.Lost == nil {
		c.Lost = func() {}
	}
	s := &Store{Config: c, final: map[hdfs.BlockID]entry{}, writing: map[hdfs.BlockID]*unfinished{}}
	for i, dir := range c.Dirs {
		d, err := newDisk(s, uint16(i), dir)
		if err != nil {
			return nil, err
		}
		s.disks = append(s.disks, d)
	}
	return s, nil
}

// alike refuses two folders of one identity: a copy of a disk would bring deleted blocks back.
func (s *Store) alike() error {
	seen := map[string]string{}
	for _, d := range s.disks {
		if d.id == "" {
			continue // out of use
		}
		if other, ok := seen[d.id]; ok {
			return fmt.Errorf("%s and %s are copies of one disk (%s): take one of them away", other, d.root, d.id)
		}
		seen[d.id] = d.root
	}
	return nil
}

// usable says no once the store is closed or has no disk left.
func (s *Store) usable() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return ErrClosed
	}
	errs := []error{ErrNoDisks}
	for _, d := range s.disks {
		if d.problem == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", d.root, d.problem))
	}
	return errors.Join(errs...)
}

// Err is nil as long as the store has a disk to use.
func (s *Store) Err() error { return s.usable() }

// Close ends all writers, whose replicas stay unfinished, and gives the folders back.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	var writers []*Writer
	for _, u := range s.writing {
		if u.w != nil {
			writers = append(writers, u.w)
		}
	}
	s.mu.Unlock()
	var errs []error
	for _, w := range writers {
		errs = append(errs, w.end(ErrClosed))
	}
	for _, d := range s.disks {
		errs = append(errs, d.close())
	}
	return errors.Join(errs...)
}

// Blocks lists what there is at this moment, by id: final replicas, and unfinished ones with the size that they have
// now. A block that is both (a later stamp is being written) comes twice, first the final one.
func (s *Store) Blocks() iter.Seq2[hdfs.Block, bool] {
	type listed struct {
		hdfs.Block
		unfinished bool
	}
	s.mu.RLock()
	all := make([]listed, 0, len(s.final)+len(s.writing))
	for id, e := range s.final {
		all = append(all, listed{e.block(id), false})
	}
	for id, u := range s.writing {
		all = append(all, listed{hdfs.Block{ID: id, Stamp: u.stamp, Size: u.size.Load()}, true})
	}
	s.mu.RUnlock()
	slices.SortFunc(all, func(a, b listed) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Stamp, b.Stamp))
	})
	return func(yield func(hdfs.Block, bool) bool) {
		for _, l := range all {
			if !yield(l.Block, l.unfinished) {
				return
			}
		}
	}
}

// Disks says how each disk does, in the order of Config.Dirs. It looks first, and takes those out that are gone: a disk that nobody
// reads and writes would not be missed.
func (s *Store) Disks() []Disk {
	out := make([]Disk, len(s.disks))
	for i, d := range s.disks {
		if d.down() == nil {
			d.look()
		}
		out[i] = s.describe(d)
	}
	return out
}

func (s *Store) describe(d *disk) Disk {
	capacity, free, err := d.room()
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := Disk{Dir: d.root, Reserve: s.Reserve, Used: d.used, Blocks: d.blocks}
	for _, u := range s.writing {
		if u.d == d {
			out.Used += u.size.Load()
		}
	}
	switch {
	case d.problem != nil:
		out.Problem = d.problem.Error()
	case err == nil:
		out.Capacity, out.Free = capacity, max(0, free-s.Reserve)
	}
	return out
}
