package blockstore

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"go.uber.org/zap"

	"millrace/hdfs"
)

// look finds out what nobody would miss who does not read or write: that the disk is gone, or all of its blocks.
func (d *disk) look() {
	err := d.same()
	if err == nil {
		err = d.again(func() error {
			_, err := d.s.FS.Stat(filepath.Join(d.root, blocksDir))
			return err
		})
	}
	_ = d.judge(err) // a disk that is taken out says why
}

// again does something, and once more if a folder of the disk's own was not there: somebody may have removed it. It is made anew if the
// disk is still the same: below the bare mount point of one that is gone nothing is made.
func (d *disk) again(do func() error) error {
	err := do()
	if !errors.Is(err, fs.ErrNotExist) || d.same() != nil {
		return err
	}
	were := d.s.finalOn(d) // before the folders are made: what is final by then went with those that were not there
	made, failed := d.makeFolders()
	if len(made) > 0 {
		lost := d.s.lose(d, were, made)
		d.s.Log.Warn("folders of blocks were removed while in use: they are made anew, and what was in them is gone from this node",
			zap.String("dir", d.root), zap.Int("folders", len(made)), zap.Int("blocks", lost))
		if lost > 0 {
			d.s.Lost()
		}
	}
	if failed != nil {
		return errors.Join(err, failed)
	}
	return do() // also if nothing was made: somebody else may just have done it
}

// finalOn lists the final replicas on a disk.
func (s *Store) finalOn(d *disk) (all []hdfs.Block) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for id, e := range s.final {
		if e.disk == d.number {
			all = append(all, e.block(id))
		}
	}
	return all
}

// lose forgets those replicas that were in folders which are gone, and says how many they were.
func (s *Store) lose(d *disk, were []hdfs.Block, folders []string) (n int) {
	var gone [256]bool
	for i := range gone {
		gone[i] = slices.Contains(folders, d.shelfPath(hdfs.BlockID(i)))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range were {
		if e, ok := s.final[b.ID]; ok && e.disk == d.number && e.stamp == b.Stamp && gone[byte(b.ID)] {
			s.removeFinal(b.ID)
			n++
		}
	}
	return n
}
