package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"millrace/hdfs"
)

const (
	locatedAhead  = 32               // blocks whose places are asked for at once
	reportsWithin = 10 * time.Second // a report of a bad replica
)

// openFile is one version of a file, named by its id whatever becomes of its path, with what is known of its replicas.
type openFile struct {
	files *Files
	info  hdfs.Info // its path is that it was opened by

	mu       sync.Mutex
	blocks   []hdfs.Located // some of them, in order
	failures int            // so far
	failed   map[string]int // by node: which failure was its last
	told     map[told]bool
	reports  sync.WaitGroup
}

type told struct {
	block hdfs.BlockID
	node  string
}

// open finds a file.
func (f *Files) open(ctx context.Context, path string) (*openFile, error) {
	o := &openFile{files: f, failed: map[string]int{}, told: map[told]bool{}}
	err := f.on(ctx, "open", path, func(path string, _ bool) error {
		info, blocks, err := f.cfg.Names.Locate(ctx, path, 0, 0, hdfs.DefaultBlockSize)
		if err == nil && info.Directory {
			err = hdfs.ErrIsDir
		}
		o.info, o.blocks = info, blocks
		o.info.Path = path
		return err
	})
	return o, err
}

// block finds the block that holds a byte of the file; fresh asks anew where it lies.
func (o *openFile) block(ctx context.Context, at int64, fresh bool) (hdfs.Located, error) {
	length := int64(1)
	if !fresh {
		if b, ok := o.known(at); ok {
			return b, nil
		}
		length = locatedAhead * max(o.info.BlockSize, hdfs.MinBlockSize)
	}
	var found []hdfs.Located
	err := o.files.retry(ctx, func(bool) (err error) {
		_, found, err = o.files.cfg.Names.Locate(ctx, o.info.Path, o.info.ID, at, length)
		return err
	})
	if errors.Is(err, hdfs.ErrNotExist) {
		err = fmt.Errorf("it was deleted or replaced while it was being read: %w", hdfs.ErrNotExist)
	}
	if err != nil {
		return hdfs.Located{}, err
	}
	o.learn(found)
	b, ok := o.known(at)
	if !ok {
		return b, fmt.Errorf("the name space knows no block of it at byte %d: %w", at, hdfs.ErrNoBlock)
	}
	return b, nil
}

func (o *openFile) known(at int64) (hdfs.Located, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	i, ok := slices.BinarySearchFunc(o.blocks, at, func(b hdfs.Located, at int64) int {
		switch {
		case at < b.Offset:
			return 1
		case at >= b.Offset+b.Size:
			return -1
		}
		return 0
	})
	if !ok {
		return hdfs.Located{}, false
	}
	return o.blocks[i], true
}

func (o *openFile) learn(found []hdfs.Located) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, b := range found {
		i, ok := slices.BinarySearchFunc(o.blocks, b.Offset, func(b hdfs.Located, at int64) int { return int(min(max(b.Offset-at, -1), 1)) })
		if ok {
			o.blocks[i] = b
		} else {
			o.blocks = slices.Insert(o.blocks, i, b)
		}
	}
}

// order gives a block's nodes as they shall be tried: this machine first, those that have failed last.
func (o *openFile) order(nodes []hdfs.Node) []hdfs.Node {
	own := o.files.cfg.Node
	rank := func(n hdfs.Node) int {
		if at := o.failed[n.ID]; at > 0 {
			return at
		}
		if n.ID == own {
			return -1
		}
		return 0
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	nodes = slices.Clone(nodes)
	slices.SortStableFunc(nodes, func(a, b hdfs.Node) int { return rank(a) - rank(b) })
	return nodes
}

// note remembers that a node has failed, and tells the leader of a replica that is no good.
func (o *openFile) note(ctx context.Context, b hdfs.Block, node string, err error) {
	bad := noGood(err)
	o.mu.Lock()
	o.failures++
	o.failed[node] = o.failures
	bad = bad && !o.told[told{b.ID, node}]
	o.told[told{b.ID, node}] = bad || o.told[told{b.ID, node}]
	o.mu.Unlock()
	log := o.files.cfg.Log
	log.Debug("a replica cannot be read", zap.Stringer("block", b), zap.String("node", node), zap.Error(err))
	if !bad {
		return
	}
	o.reports.Go(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportsWithin)
		defer cancel()
		if err := o.files.cfg.Names.BadReplica(ctx, b, node, err.Error()); err != nil {
			log.Warn("a bad replica could not be reported", zap.Stringer("block", b), zap.String("node", node), zap.Error(err))
		}
	})
}
