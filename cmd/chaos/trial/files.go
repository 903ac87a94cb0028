package trial

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"millrace/cmd/chaos/checker"
	"millrace/cmd/chaos/site"
	"millrace/cmd/chaos/workload"
)

const (
	fileWriters = 3
	fileReaders = 2
	searchEvery = 3 * time.Second
	codeMissing = 4
	busy        = "is being written by another"

	// wholeWithin is for the block store to be whole again once the faults are healed: a lease, a grace, and a term of a new leader that
	// has to hear of everything first, a minute each, besides the copies: two blocks a second to a node that has lost its disk.
	wholeWithin = 8 * time.Minute
)

// outcome is how a command ended, for the checker.
func outcome(r site.Result) checker.Outcome {
	return checker.Outcome{Code: r.Code, Out: r.Out, Said: r.Err}
}

// shelf is where an output lies.
type shelf interface {
	Glimpse(ctx context.Context, bucket, prefix string) (checker.Glimpse, error)
	Read(ctx context.Context, bucket string, m checker.Manifest) ([][]byte, error)
}

// shelf gives where what has this prefix lies.
func (t *Trial) shelf(prefix string) shelf {
	if !strings.HasPrefix(prefix, workload.FilesOfJobs) {
		return t.store
	}
	return checker.FileStore{Run: func(ctx context.Context, args ...string) checker.Outcome {
		return outcome(t.site.Millrace(ctx, args...))
	}}
}

// fillFiles puts the inputs of jobs into the block store, in small blocks.
func (t *Trial) fillFiles(ctx context.Context) error {
	for _, in := range t.work.Inputs() {
		for key, content := range in.Objects {
			r := t.site.MillraceIn(ctx, bytes.NewReader(content), "fs", "put", "-", workload.FilesOfJobs+key, "--block-size", "256KiB")
			if r.Code != 0 {
				return fmt.Errorf("put %s: exit code %d: %s", key, r.Code, r.Err)
			}
		}
	}
	return nil
}

// write makes one change of a series after the other until ctx ends.
func (t *Trial) write(ctx context.Context, lane *workload.FileLane) {
	for ctx.Err() == nil {
		c := lane.Next()
		lane.Done(t.change(c))
	}
}

// change does one change, whose end it waits for whatever happens meanwhile.
func (t *Trial) change(c workload.Change) (_ workload.Change, acknowledged, happenedNot bool) {
	ctx := context.Background()
	var r site.Result
	switch c.Deed {
	case workload.Put:
		done := t.files.Put(c.Path, c.Version)
		if r = t.site.MillraceIn(ctx, bytes.NewReader(c.Version.Bytes()), c.Args...); r.Code == 0 {
			done()
		}
	case workload.PutKilled:
		r = t.killedPut(ctx, c)
	case workload.Move:
		done, unknown := t.files.Move(c.Path, c.To)
		if r = t.site.Millrace(ctx, c.Args...); r.Code == 0 {
			done()
		} else {
			unknown()
		}
	case workload.Trash, workload.Remove:
		done, unknown := t.files.Remove(c.Path)
		if r = t.site.Millrace(ctx, append(c.Args, "--json")...); r.Code == 0 {
			done(trashOf(r.Out))
		} else if c.Deed == workload.Trash {
			unknown()
		}
	default:
		r = t.site.Millrace(ctx, c.Args...)
	}
	t.journal.write("file", map[string]any{"deed": c.Deed, "path": c.Path, "to": c.To, "content": c.Version.Content, "size": c.Version.Size, "code": r.Code, "said": strings.TrimSpace(r.Err)})
	t.countDeed(c, r.Code)
	if r.Code == 2 || r.Code == codeMissing && c.Deed != workload.PutKilled {
		t.book.Note(c.Path, "a good request is not refused", "%s: exit code %d: %s", c.Deed, r.Code, strings.TrimSpace(r.Err))
	}
	notAtAll := c.Deed == workload.PutKilled || c.Deed == workload.SetRep || c.Deed == workload.Put && strings.Contains(r.Err, busy)
	return c, r.Code == 0, notAtAll
}

// killedPut kills a put that has half of its content, and never sees the end of it.
func (t *Trial) killedPut(ctx context.Context, c workload.Change) site.Result {
	in, out, err := os.Pipe()
	if err != nil {
		return site.Result{Err: err.Error(), Code: -1}
	}
	ctx, kill := context.WithCancel(ctx)
	defer kill()
	var giving sync.WaitGroup
	giving.Go(func() {
		_, _ = out.Write(c.Version.Bytes()[:c.Version.Size/2]) // it may have ended before
		sleep(ctx, 300*time.Millisecond)
		kill()
	})
	r := t.site.MillraceIn(ctx, in, c.Args...)
	_ = errors.Join(in.Close(), out.Close()) // which ends a write that nobody takes
	giving.Wait()
	if r.Code == 0 {
		t.book.Note(c.Path, "what a killed writer wrote never shows", "the put says that it has succeeded")
	}
	return r
}

// trashOf is where `fs rm --json` says that a file lies now.
func trashOf(out string) string {
	var said struct{ Trash []string }
	if json.Unmarshal([]byte(out), &said) != nil || len(said.Trash) != 1 {
		return ""
	}
	return said.Trash[0]
}

func (t *Trial) countDeed(c workload.Change, code int) {
	how := "done"
	if code != 0 {
		how = "not"
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.report.Deeds[string(c.Deed)+" "+how]++
}

// read reads files, any of them, until ctx ends.
func (t *Trial) read(ctx context.Context, number int) {
	r := rand.New(rand.NewPCG(t.conf.Seed, uint64(2000+number)))
	for ctx.Err() == nil {
		paths := t.files.Paths()
		if len(paths) == 0 {
			sleep(ctx, askAgain)
			continue
		}
		t.readOne(paths[r.IntN(len(paths))], false)
	}
}

// search reads files with damaged replicas more often than others, until ctx ends: the next fault waits for these to be replaced.
func (t *Trial) search(ctx context.Context) {
	for sleep(ctx, searchEvery) {
		_ = t.findSpoilt(ctx, false) // in the end all must be found
	}
}

func (t *Trial) readOne(path string, calm bool) {
	reading := t.files.Read(path)
	r := t.site.Millrace(context.Background(), "fs", "cat", path)
	if calm && (r.Code == codeUnknown || r.Code < 0) { // the masters may elect another leader at any time, and a busy machine take its time for it
		r = t.site.Millrace(context.Background(), "fs", "cat", path)
	}
	reading.End(outcome(r), calm)
	if r.Code != 0 && r.Code != codeMissing {
		t.journal.write("file not read", map[string]any{"path": path, "code": r.Code, "said": strings.TrimSpace(r.Err), "bytes": len(r.Out)})
	}
}

// wholeFiles waits, when all faults are healed and nobody writes, until the block store is whole: every file as it was acknowledged, every block
// on as many nodes as are wanted, each damaged replica found, nothing else on any disk.
func (t *Trial) wholeFiles(ctx context.Context) {
	healed := time.Now()
	limit, cancel := context.WithTimeout(ctx, wholeWithin)
	defer cancel()
	if !t.await(limit, "the block store heals", t.checkFiles) {
		return
	}
	t.readAll(limit)
	t.await(limit, "damaged replicas are found by those who read", func(ctx context.Context) error { return t.findSpoilt(ctx, true) })
	t.await(limit, "each block lies where it shall, and nothing else does", func(ctx context.Context) error {
		return errors.Join(t.checkFiles(ctx), t.checkDisks(ctx))
	})
	t.report.Whole = time.Since(healed)
}

// await asks until all is well, or writes down what is not.
func (t *Trial) await(ctx context.Context, rule string, ask func(context.Context) error) bool {
	for {
		err := ask(ctx)
		if err == nil {
			return true
		}
		if !sleep(ctx, 2*time.Second) {
			t.book.Note("the block store", rule, "%v after all faults were healed: %v", wholeWithin, err)
			return false
		}
	}
}

// checkFiles says what fsck does not find well.
func (t *Trial) checkFiles(ctx context.Context) error {
	r := t.site.Millrace(ctx, "fs", "fsck", "--json")
	var found struct {
		Healthy, Learning bool
		Nodes             int
	}
	if err := json.Unmarshal([]byte(r.Out), &found); err != nil || !found.Healthy || found.Learning || found.Nodes != len(t.site.Machines().Core) {
		return fmt.Errorf("fsck: exit code %d: %s%s", r.Code, r.Out, r.Err)
	}
	return nil
}

// listing is all files.
func (t *Trial) listing(ctx context.Context) ([]checker.StoredFile, error) {
	r := t.site.Millrace(ctx, "fs", "ls", "-R", "hdfs:///", "--json")
	if r.Code != 0 {
		return nil, fmt.Errorf("fs ls -R: exit code %d: %s", r.Code, r.Err)
	}
	var entries []checker.StoredFile
	if err := json.Unmarshal([]byte(r.Out), &entries); err != nil {
		return nil, fmt.Errorf("fs ls -R: %w", err)
	}
	return slices.DeleteFunc(entries, func(e checker.StoredFile) bool { return e.Directory }), nil
}

// readAll holds the listing, and every file, against what was acknowledged.
func (t *Trial) readAll(ctx context.Context) {
	var all []checker.StoredFile
	if !t.await(ctx, "all files can be listed", func(ctx context.Context) (err error) {
		all, err = t.listing(ctx)
		return err
	}) {
		return
	}
	listed := map[string]int64{}
	for _, f := range all {
		if !strings.HasPrefix(f.Path, workload.FilesOfJobs) {
			listed[f.Path] = f.Size
		}
	}
	t.files.JudgeListing(listed)
	for path := range listed {
		if ctx.Err() == nil {
			t.readOne(path, true)
		}
	}
}

// stored is all files with their blocks.
func (t *Trial) stored(ctx context.Context) ([]checker.StoredFile, error) {
	entries, err := t.listing(ctx)
	if err != nil {
		return nil, err
	}
	var all []checker.StoredFile
	for some := range slices.Chunk(entries, 50) {
		args := []string{"fs", "stat", "--json"}
		for _, e := range some {
			args = append(args, e.Path)
		}
		r := t.site.Millrace(ctx, args...)
		if r.Code != 0 {
			return nil, fmt.Errorf("fs stat: exit code %d: %s", r.Code, r.Err)
		}
		var more []checker.StoredFile
		text := r.Out
		if len(some) == 1 {
			text = "[" + text + "]"
		}
		if err := json.Unmarshal([]byte(text), &more); err != nil {
			return nil, fmt.Errorf("fs stat: %w", err)
		}
		all = append(all, more...)
	}
	return all, nil
}

// findSpoilt reads the files that have damaged replicas, and says whether there are some: whoever reads a bad one has it replaced. In the calm those
// that were removed whole are among them: the cluster believes in more replicas than there are.
func (t *Trial) findSpoilt(ctx context.Context, calm bool) error {
	left := map[string]bool{}
	for _, id := range t.site.Spoilt() {
		left[id] = true
	}
	if len(left) == 0 && !calm {
		return nil
	}
	files, err := t.stored(ctx)
	if err != nil {
		return err
	}
	if calm {
		disks, err := t.disks()
		if err != nil {
			return err
		}
		for _, id := range checker.Lacking(files, disks) {
			left[id] = true
		}
	}
	if len(left) == 0 {
		return nil
	}
	for _, f := range files {
		for _, b := range f.Blocks {
			switch {
			case !left[b.ID]:
			case strings.HasPrefix(f.Path, workload.FilesOfJobs): // what it holds is held against the truth as a result
				t.site.Millrace(ctx, "fs", "cat", f.Path)
			default:
				t.readOne(f.Path, calm)
			}
		}
	}
	spoilt := slices.Sorted(maps.Keys(left))
	return fmt.Errorf("damaged replicas of %d blocks: %s", len(spoilt), strings.Join(spoilt[:min(5, len(spoilt))], " "))
}

// disks lists what lies on the disks of all nodes.
func (t *Trial) disks() (all []checker.Replica, err error) {
	lie, err := t.site.Replicas()
	for _, r := range lie {
		all = append(all, checker.Replica{Node: r.Node, Block: r.Block, Size: r.Size, Unfinished: r.Unfinished})
	}
	return all, err
}

// checkDisks says what the disks have too much or too little.
func (t *Trial) checkDisks(ctx context.Context) error {
	files, err := t.stored(ctx)
	if err != nil {
		return err
	}
	disks, err := t.disks()
	if err != nil {
		return err
	}
	var blocks, size int64
	for _, r := range disks {
		size += r.Size
	}
	for _, f := range files {
		blocks += int64(len(f.Blocks))
	}
	t.report.Files, t.report.Blocks, t.report.Replicas, t.report.Stored = len(files), blocks, len(disks), size
	if wrong := checker.JudgeBlocks(files, disks); len(wrong) > 0 {
		return fmt.Errorf("%d things: %s", len(wrong), strings.Join(wrong[:min(5, len(wrong))], "; "))
	}
	return nil
}
