package blockstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"millrace/hdfs"
	"millrace/hdfs/blockstore"
	"millrace/hdfs/blockstore/faultyfs"
)

// twin is what a store on a file system that fails and crashes must still be true to. A block's bytes are those of
// its id, as they are with a writer that sends the same again after a change of the pipeline.
type twin struct {
	*rapid.T
	fs    *faultyfs.FS
	s     *blockstore.Store
	dirs  []string
	stamp hdfs.Stamp // the latest

	final    map[hdfs.BlockID]known   // acknowledged by Finalize
	promised map[hdfs.BlockID]promise // acknowledged by Recover, or tried by it
	tried    map[hdfs.Block]bool      // what Finalize was called for: may be final, acknowledged or not
	writers  map[hdfs.BlockID]writing
}

type writing struct {
	*blockstore.Writer
	stamp hdfs.Stamp
}

type known struct {
	stamp hdfs.Stamp
	size  int64
	dir   string
}

// promise: a replica of a stamp from..to with length bytes can be taken up again.
type promise struct {
	from, to hdfs.Stamp
	length   int64
	dir      string
}

const twinBlock = 3*chunk + 100 // the longest

var contents = func() map[hdfs.BlockID][]byte {
	all := map[hdfs.BlockID][]byte{}
	for id := range hdfs.BlockID(3) {
		all[id] = content(uint64(id)+100, twinBlock)
	}
	return all
}()

func TestRandomFaultsAndCrashesAgainstATwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1_800_000_000, 0)
		w := &twin{
			T: t, fs: faultyfs.New(rapid.Uint64().Draw(t, "seed"), func() time.Time { return now }),
			dirs:  []string{"/d0", "/d1"}[:rapid.IntRange(1, 2).Draw(t, "disks")],
			final: map[hdfs.BlockID]known{}, promised: map[hdfs.BlockID]promise{}, tried: map[hdfs.Block]bool{},
		}
		for _, d := range w.dirs {
			w.fs.Disk(d, rapid.Int64Range(4, 20).Draw(t, "chunks")*chunk)
		}
		w.start(now)
		after := func(op func()) func(*rapid.T) {
			return func(t *rapid.T) {
				w.T = t
				if rapid.IntRange(0, 2).Draw(t, "a fault") == 0 {
					w.arm()
				}
				op()
				w.fs.Fail(func(faultyfs.Op) error { return nil })
				if w.fs.Crashed() {
					w.restart(now)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"create":   after(w.create),
			"write":    after(w.write),
			"write on": after(w.write),
			"finalize": after(w.finalize),
			"close":    after(w.close),
			"recover":  after(w.recover),
			"delete":   after(w.delete),
			"verify":   after(w.verify),
			"crash":    func(t *rapid.T) { w.T = t; w.restart(now) },
			"restart": func(t *rapid.T) { // of the process: nothing is lost
				w.T = t
				if err := w.s.Close(); err != nil && w.s.Err() == nil {
					t.Fatalf("close: %v", err)
				}
				w.start(now)
				w.check()
			},
		})
		w.restart(now)
	})
}

func (w *twin) start(now time.Time) {
	w.fs.Fail(func(faultyfs.Op) error { return nil })
	var err error
	w.writers = map[hdfs.BlockID]writing{}
	w.s, err = blockstore.Open(blockstore.Config{
		Dirs: w.dirs, Cluster: "j-TWIN", Reserve: chunk, FS: w.fs, Now: func() time.Time { return now },
	})
	if err != nil {
		w.Fatalf("open: %v", err)
	}
}

func (w *twin) restart(now time.Time) {
	w.fs.Restart()
	w.start(now)
	w.check()
	w.keepPromises()
}

// arm makes one of the next operations fail.
func (w *twin) arm() {
	n := rapid.IntRange(0, 14).Draw(w.T, "operations until it fails")
	err := rapid.SampledFrom([]error{syscall.EIO, syscall.ENOSPC, faultyfs.ErrCrash}).Draw(w.T, "fault")
	w.fs.Fail(func(faultyfs.Op) error {
		if n--; n == -1 {
			return err
		}
		return nil
	})
}

func (w *twin) id() hdfs.BlockID {
	return rapid.SampledFrom(slices.Sorted(maps.Keys(contents))).Draw(w.T, "block")
}

func (w *twin) create() {
	id := w.id()
	w.stamp++
	wr, err := w.s.Create(hdfs.Block{ID: id, Stamp: w.stamp})
	if err == nil {
		w.writers[id] = writing{wr, w.stamp}
	}
	delete(w.promised, id) // an unfinished replica goes at once; a final one only when the new one is final
}

func (w *twin) write() {
	id := w.id()
	wr, ok := w.writers[id]
	if !ok {
		return
	}
	at := wr.Size()
	n := min(int64(rapid.SampledFrom([]int{chunk, 2 * chunk, 3 * chunk, 100, 0}).Draw(w.T, "bytes")), twinBlock-at)
	err := write(wr.Writer, contents[id][at:at+n])
	if errors.Is(err, hdfs.ErrNoSpace) {
		delete(w.promised, id) // it was discarded, nothing is half there
		delete(w.writers, id)
	}
}

func (w *twin) finalize() {
	id := w.id()
	wr, ok := w.writers[id]
	if !ok {
		return
	}
	delete(w.writers, id)
	delete(w.promised, id)
	w.tried[hdfs.Block{ID: id, Stamp: wr.stamp, Size: wr.Size()}] = true
	b, err := wr.Finalize()
	if err != nil {
		return
	}
	r, err := w.s.Open(id, b.Stamp)
	if err != nil {
		if w.fs.Crashed() || w.away() {
			w.final[id] = known{b.Stamp, b.Size, ""}
			return
		}
		if errors.Is(err, hdfs.ErrCorrupt) || errors.Is(err, hdfs.ErrNoSpace) { // the armed fault
			w.final[id] = known{b.Stamp, b.Size, ""}
			return
		}
		w.Fatalf("final, but: %v", err)
	}
	data, _ := r.Files()
	w.final[id] = known{b.Stamp, b.Size, filepath.Dir(data)}
	_ = r.Close()
}

func (w *twin) close() {
	id := w.id()
	if wr, ok := w.writers[id]; ok {
		_ = wr.Close()
		delete(w.writers, id)
	}
}

func (w *twin) recover() {
	id := w.id()
	var has hdfs.Block
	var isFinal bool
	for b, unfinished := range w.s.Blocks() {
		if b.ID == id {
			has, isFinal = b, !unfinished
		}
	}
	if has.ID != id || has.Stamp == 0 {
		return
	}
	length := rapid.Int64Range(0, has.Size/chunk).Draw(w.T, "chunks kept") * chunk
	w.stamp++
	wr, err := w.s.Recover(id, has.Stamp, w.stamp, length)
	delete(w.writers, id)
	p, promised := w.promised[id]
	switch {
	case err == nil:
		w.writers[id] = writing{wr, w.stamp}
		w.promised[id] = promise{from: w.stamp, to: w.stamp, length: length}
		if isFinal {
			delete(w.final, id)
		}
	case isFinal: // something failed on the way: wherever it stopped, these bytes are there
		if f, ok := w.final[id]; ok {
			w.promised[id] = promise{from: f.stamp, to: w.stamp, length: length, dir: f.dir}
			delete(w.final, id)
		}
	case promised:
		w.promised[id] = promise{from: p.from, to: w.stamp, length: min(length, p.length)}
	}
}

func (w *twin) delete() {
	id := w.id()
	for b := range w.s.Blocks() {
		if b.ID != id {
			continue
		}
		if err := w.s.Delete(id, b.Stamp); err == nil {
			if _, err := w.s.Open(id, b.Stamp); err == nil {
				w.Fatalf("%s can be opened though it is deleted", b)
			}
		}
		if w.final[id].stamp == b.Stamp {
			delete(w.final, id)
		}
		if p := w.promised[id]; p.from <= b.Stamp {
			delete(w.promised, id)
		}
		return
	}
}

func (w *twin) verify() {
	for b, unfinished := range w.s.Blocks() {
		if unfinished {
			continue
		}
		if err := verify(w.s, b); errors.Is(err, hdfs.ErrCorrupt) && !strings.Contains(err.Error(), "input/output") {
			w.Fatalf("%s: %v", b, err)
		}
	}
}

// away says whether a disk is out.
func (w *twin) away() bool {
	for _, d := range w.s.Disks() {
		if d.Problem != "" {
			return true
		}
	}
	return false
}

// check: what is final is whole, what was acknowledged is final.
func (w *twin) check() {
	listed := map[hdfs.BlockID]hdfs.Block{}
	for b, unfinished := range w.s.Blocks() {
		if unfinished {
			continue
		}
		listed[b.ID] = b
		if !w.tried[b] {
			w.Fatalf("%s is final, and nobody has asked for that", b)
		}
		got, err := get(w.s, b.ID, b.Stamp)
		if err != nil || !bytes.Equal(got, contents[b.ID][:b.Size]) {
			w.Fatalf("%s is torn: %d bytes, %v", b, len(got), err)
		}
	}
	for id, k := range w.final {
		b, ok := listed[id]
		switch {
		case !ok:
			w.Fatalf("block %s with stamp %d was acknowledged, and is gone", id, k.stamp)
		case b.Stamp == k.stamp && b.Size != k.size:
			w.Fatalf("%s has another size than was acknowledged: %d", b, k.size)
		case b.Stamp < k.stamp:
			w.Fatalf("%s is earlier than what was acknowledged: stamp %d", b, k.stamp)
		case b.Stamp > k.stamp: // a Finalize that nobody has heard the answer of
			w.final[id] = known{b.Stamp, b.Size, ""}
		}
	}
}

// keepPromises takes every replica up again that must be there.
func (w *twin) keepPromises() {
	for _, id := range slices.Sorted(maps.Keys(w.promised)) {
		p := w.promised[id]
		w.stamp++
		wr, err := w.s.Recover(id, p.from, w.stamp, p.length)
		if err != nil {
			w.Fatalf("block %s had %d bytes, with a stamp from %d to %d: %v; there is %s", id, p.length, p.from, p.to, err, w.lying(id))
		}
		w.promised[id] = promise{from: w.stamp, to: w.stamp, length: p.length}
		w.writers[id] = writing{wr, w.stamp}
	}
}

func (w *twin) lying(id hdfs.BlockID) string {
	var all []string
	for b, unfinished := range w.s.Blocks() {
		if b.ID == id {
			all = append(all, fmt.Sprintf("%s (unfinished: %v)", b, unfinished))
		}
	}
	return strings.Join(all, ", ")
}
