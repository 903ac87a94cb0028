package blockstore

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"millrace/hdfs"
)

// scanners look into so many folders of a disk at once: it can put its seeks in order.
const scanners = 8

// unfinished is a replica that is being written, or was and waits for Recover.
type unfinished struct {
	id    hdfs.BlockID
	stamp hdfs.Stamp
	d     *disk
	size  atomic.Int64 // bytes

	// Under Store.mu:
	w    *Writer   // nil: nobody writes it
	left time.Time // since then
}

func (u *unfinished) path() string { return u.d.writingPath(u.id, u.stamp) }

// found is what lies on a disk.
type found struct {
	final, writing []lying
}

type lying struct {
	hdfs.Block
	changed time.Time // of a final one: verified; of an unfinished one: written last
}

// scan lists a disk's replicas. It asks for the length of both files and for the time of the sums', and opens
// neither: that a length is wrong the log's length of the block tells, and Open, Verify and reading look at the rest.
func (d *disk) scan() (found, error) {
	var shelves [256][]lying
	var g errgroup.Group
	g.SetLimit(scanners)
	for i := range shelves {
		g.Go(func() (err error) {
			dir := filepath.Join(d.root, blocksDir, shelf(hdfs.BlockID(i)))
			shelves[i], err = d.scanDir(dir, func(id hdfs.BlockID) bool { return byte(id) == byte(i) })
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return found{}, err
	}
	writing, err := d.scanDir(filepath.Join(d.root, writingDir), func(hdfs.BlockID) bool { return true })
	return found{final: slices.Concat(shelves[:]...), writing: writing}, err
}

// scanDir lists the replicas in a folder and deletes what is left of half-deleted ones.
func (d *disk) scanDir(dir string, belongs func(hdfs.BlockID) bool) ([]lying, error) {
	names, err := d.s.FS.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	all := make([]lying, 0, len(names))
	for _, name := range names {
		id, stamp, ok := parseReplicaName(name)
		if !ok || !belongs(id) {
			d.s.Log.Warn("no replica of a block: it is left alone", zap.String("path", filepath.Join(dir, name)))
			continue
		}
		data, err := d.s.FS.Stat(filepath.Join(dir, name, dataFile))
		var sums Stat
		if err == nil {
			sums, err = d.s.FS.Stat(filepath.Join(dir, name, sumsFile))
		}
		if errors.Is(err, fs.ErrNotExist) {
			d.s.Log.Info("half a replica is deleted", zap.Stringer("block", id), zap.String("dir", d.root))
			err = d.remove(filepath.Join(dir, name))
		} else if err == nil {
			all = append(all, lying{hdfs.Block{ID: id, Stamp: stamp, Size: data.Size}, sums.Changed})
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// index takes what was found on a disk; of several replicas of one block, the one with the latest stamp stays.
func (s *Store) index(d *disk, f found) {
	for _, l := range f.final {
		was, ok := s.final[l.ID]
		switch {
		case !ok:
			s.addFinal(d, l.Block, l.changed)
		case was.stamp == l.Stamp:
			s.Log.Warn("a replica lies on two disks: the second is left alone", zap.Stringer("block", l.ID), zap.String("dir", d.root))
		case was.stamp > l.Stamp:
			s.drop(d, d.finalPath(l.ID, l.Stamp), "a later one is whole")
		default:
			old := s.disks[was.disk]
			s.removeFinal(l.ID)
			s.addFinal(d, l.Block, l.changed)
			s.drop(old, old.finalPath(l.ID, was.stamp), "a later one is whole")
		}
	}
	for _, l := range f.writing {
		u := &unfinished{id: l.ID, stamp: l.Stamp, d: d, left: l.changed}
		u.size.Store(l.Size)
		if was := s.writing[l.ID]; was != nil && was.stamp >= u.stamp {
			s.drop(d, u.path(), "there is a later unfinished one")
			continue
		} else if was != nil {
			s.drop(was.d, was.path(), "there is a later unfinished one")
		}
		s.writing[l.ID] = u
	}
}

// dropOvertaken deletes the unfinished replicas of blocks that are final with the same stamp or a later one.
func (s *Store) dropOvertaken() {
	for id, u := range s.writing {
		if e, ok := s.final[id]; ok && e.stamp >= u.stamp {
			delete(s.writing, id)
			s.drop(u.d, u.path(), "a later one is final")
		}
	}
}

// drop deletes a replica that nobody will ask for.
func (s *Store) drop(d *disk, path, reason string) {
	s.Log.Info("a replica is dropped", zap.String("path", path), zap.String("reason", reason))
	if err := d.judge(d.remove(path)); err != nil {
		s.Log.Warn("a replica could not be dropped: the next start will try again", zap.String("path", path), zap.Error(err))
	}
}

// addFinal and removeFinal keep the disks' figures with the index; the caller has mu.
func (s *Store) addFinal(d *disk, b hdfs.Block, verified time.Time) {
	s.final[b.ID] = entry{stamp: b.Stamp, size: b.Size, verified: uint32(max(0, verified.Unix())), disk: d.number}
	d.blocks++
	d.used += b.Size
}

func (s *Store) removeFinal(id hdfs.BlockID) {
	e := s.final[id]
	d := s.disks[e.disk]
	d.blocks--
	d.used -= e.size
	delete(s.final, id)
}

// find gives the disk of a final replica.
func (s *Store) find(id hdfs.BlockID, stamp hdfs.Stamp) (*disk, hdfs.Block, error) {
	if err := s.usable(); err != nil {
		return nil, hdfs.Block{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	e, ok := s.final[id]
	switch {
	case !ok:
		return nil, hdfs.Block{}, fmt.Errorf("block %s: %w", id, hdfs.ErrNoBlock)
	case e.stamp != stamp:
		return nil, hdfs.Block{}, fmt.Errorf("block %s: %w: it has stamp %d, not %d", id, hdfs.ErrStale, e.stamp, stamp)
	}
	return s.disks[e.disk], e.block(id), nil
}

// Delete removes a replica, final or not, with this stamp and no other. Those who have it open may read on; who
// writes it is told at the next write.
func (s *Store) Delete(id hdfs.BlockID, stamp hdfs.Stamp) error {
	if err := s.usable(); err != nil {
		return err
	}
	defer s.ids.lock(id)()
	s.mu.Lock()
	e, final := s.final[id]
	u := s.writing[id]
	switch {
	case final && e.stamp == stamp:
		d := s.disks[e.disk]
		s.removeFinal(id)
		s.mu.Unlock()
		return named("delete", id, d.judge(d.remove(d.finalPath(id, stamp))))
	case u != nil && u.stamp == stamp:
		s.mu.Unlock()
		return named("delete", id, s.discard(u, fmt.Errorf("block %s: %w: it was deleted", id, hdfs.ErrStale)))
	}
	s.mu.Unlock()
	if final || u != nil {
		return fmt.Errorf("delete block %s: %w: it is not there with stamp %d", id, hdfs.ErrStale, stamp)
	}
	return fmt.Errorf("delete block %s: %w", id, hdfs.ErrNoBlock)
}

// discard ends an unfinished replica, and its writer, which says why. The caller has the block's id.
func (s *Store) discard(u *unfinished, why error) error {
	err := s.stop(u, why)
	s.forget(u)
	return errors.Join(err, u.d.judge(u.d.remove(u.path())))
}

// stop ends the writer of an unfinished replica, if there is one.
func (s *Store) stop(u *unfinished, why error) error {
	s.mu.RLock()
	w := u.w
	s.mu.RUnlock()
	if w == nil {
		return nil
	}
	return w.end(why)
}

// forget takes an unfinished replica off the list.
func (s *Store) forget(u *unfinished) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writing[u.id] == u {
		delete(s.writing, u.id)
	}
}

// DropUnfinished deletes the unfinished replicas that nobody has written for Config.KeepUnfinished, and says how
// many. Open does it, and who runs for long should now and then.
func (s *Store) DropUnfinished() int {
	before := s.Now().Add(-s.KeepUnfinished)
	old := func(u *unfinished) bool { return u.w == nil && u.left.Before(before) }
	s.mu.RLock()
	var all []*unfinished
	for _, u := range s.writing {
		if old(u) {
			all = append(all, u)
		}
	}
	s.mu.RUnlock()
	n := 0
	for _, u := range all {
		if s.dropIf(u, old) {
			n++
		}
	}
	return n
}

func (s *Store) dropIf(u *unfinished, old func(*unfinished) bool) bool {
	defer s.ids.lock(u.id)()
	s.mu.Lock()
	still := s.writing[u.id] == u && old(u)
	if still {
		delete(s.writing, u.id)
	}
	s.mu.Unlock()
	if still {
		s.drop(u.d, u.path(), fmt.Sprintf("nobody has gone on with it for %s", s.KeepUnfinished))
	}
	return still
}

// named says which block an error is about; nil stays nil.
func named(doing string, id hdfs.BlockID, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s block %s: %w", doing, id, err)
}
