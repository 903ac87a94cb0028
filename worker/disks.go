package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"millrace/hdfs/blockstore"
)

// disksFile names every folder outside the node's own that it has ever kept blocks in: by it they are found again when
// the node is taken away, and with it the service that had them as its arguments.
const disksFile = "data-dirs.json"

// noteDisks adds the folders of --data-dir to those that are known.
func (w *Worker) noteDisks() error {
	var known []string
	if _, err := w.dir.ReadJSON(&known, disksFile); err != nil {
		return err
	}
	all := slices.Clone(known)
	for _, dir := range w.cfg.DataDirs {
		if !slices.Contains(all, dir) {
			all = append(all, dir)
		}
	}
	if len(all) == len(known) {
		return nil
	}
	return w.dir.WriteJSON(all, disksFile)
}

// Disks are the folders outside its own in which a node has kept blocks, as far as they are there. The node may run.
func Disks(dir string) ([]string, error) {
	var all []string
	if err := readOf(dir, disksFile, &all); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(disk string) bool {
		_, err := os.Stat(disk)
		return errors.Is(err, fs.ErrNotExist)
	}), nil
}

// Discarded is what has become of one folder of a node's blocks.
type Discarded struct {
	Dir  string
	Gone bool   // the node's blocks are
	Kept string // why the folder is still there; "": it is not, or a disk is mounted there
	Err  error  // why the node's blocks could not be deleted, or it is not known whose they are
}

// DiscardDisks deletes what a node has in folders outside its own, and nothing else: they may have files of other people's. The node
// has ended. A disk that does not work, or is not there, does not keep the others from it.
func DiscardDisks(dir string) ([]Discarded, error) {
	var all []string
	var node nodeFile
	if err := errors.Join(readOf(dir, disksFile, &all), readOf(dir, "node.json", &node)); err != nil {
		return nil, err
	}
	out := make([]Discarded, len(all))
	for i, disk := range all {
		out[i] = discard(disk, node.Cluster, node.Wipe)
	}
	return out, nil
}

// discard deletes what a folder has of the cluster that a node is in, or was in before.
func discard(disk string, clusters ...string) Discarded {
	of, err := blockstore.ClusterOf(disk)
	switch {
	case err != nil:
		return Discarded{Dir: disk, Kept: err.Error(), Err: err}
	case of == "":
		return Discarded{Dir: disk, Kept: "no blocks are in it; is its disk mounted?"}
	case !slices.Contains(clusters, of):
		return Discarded{Dir: disk, Kept: "its blocks are another cluster's, " + of}
	}
	if err := blockstore.Discard(disk, of); err != nil {
		return Discarded{Dir: disk, Kept: err.Error(), Err: err}
	}
	out := Discarded{Dir: disk, Gone: true}
	left, err := os.ReadDir(disk)
	if left = slices.DeleteFunc(left, func(e fs.DirEntry) bool { return e.Name() == "lost+found" }); err == nil && len(left) > 0 { // which mounted disks have
		out.Kept = "there are files in it that are not millrace's"
	}
	return out
}

// readOf reads a file in a node's folder, which need not be locked; one that is not there changes nothing.
func readOf(dir, name string, into any) error {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: put back a copy, or delete it: what it names is then not known, and stays", filepath.Join(dir, name), err)
	}
	return nil
}
