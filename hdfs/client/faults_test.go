package client

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
	"millrace/hdfs/blockstore/faultyfs"
	"millrace/hdfs/wire"
)

const size = 11*wire.MaxData + 777 // two blocks of four packets, and one of three and a bit

// faults are what may happen to one member while a file is being written. They strike once, in the second block.
func faults() map[string]func(n *node) {
	var none func(*node, int64, []byte) error
	onDisk := func(at int64, final bool, strike func(*node) error) func(*node) {
		return func(n *node) {
			var once atomic.Bool
			var blocks atomic.Int64
			n.hooks(none, func(n *node, total int64, isFinal bool) error {
				if isFinal && blocks.Add(1) == 1 || blocks.Load() == 0 {
					return nil
				}
				if total >= at && isFinal == final && once.CompareAndSwap(false, true) {
					return strike(n)
				}
				return nil
			})
		}
	}
	onWire := func(at int64, strike func(*node, []byte) error) func(*node) {
		return func(n *node) {
			var once atomic.Bool
			n.hooks(func(n *node, total int64, p []byte) error {
				if total >= at && once.CompareAndSwap(false, true) {
					return strike(n, p)
				}
				return nil
			}, nil)
		}
	}
	die := func(n *node) error {
		n.die()
		return errStruck
	}
	return map[string]func(*node){
		"dies in mid-packet":             onWire(3*wire.MaxData/2, func(n *node, _ []byte) error { return die(n) }),
		"dies in a later packet":         onWire(5*wire.MaxData/2, func(n *node, _ []byte) error { return die(n) }),
		"dies before it writes":          onDisk(wire.MaxData, false, die),
		"dies before the last ack":       onDisk(0, true, die),
		"cuts the connection":            onWire(5*wire.MaxData/2, func(*node, []byte) error { return errStruck }),
		"gets a flipped bit":             onWire(5*wire.MaxData/2, func(_ *node, p []byte) error { p[len(p)/2] ^= 4; return nil }),
		"is full":                        onDisk(2*wire.MaxData, false, func(*node) error { return fmt.Errorf("%w: 0 bytes left", hdfs.ErrNoSpace) }),
		"is full at the end":             onDisk(0, true, func(*node) error { return fmt.Errorf("%w: 0 bytes left", hdfs.ErrNoSpace) }),
		"cannot write":                   onDisk(3*wire.MaxData, false, func(*node) error { return errStruck }),
		"freezes in mid-block":           onDisk(2*wire.MaxData, false, func(n *node) error { n.freeze(); return nil }),
		"freezes before the last ack":    onDisk(0, true, func(n *node) error { n.freeze(); return nil }),
		"freezes while it reads a block": onWire(5*wire.MaxData/2, func(n *node, _ []byte) error { n.freeze(); return nil }),
	}
}

func TestAnyMemberMayFailAtAnyTime(t *testing.T) {
	data := content(1, size)
	for name, strike := range faults() {
		for bad := range 3 {
			t.Run(fmt.Sprintf("member %d %s", bad+1, name), func(t *testing.T) {
				t.Parallel()
				timing, silent := patient(), strings.HasPrefix(name, "freezes")
				if silent {
					timing = hurried()
				}
				c := makeCluster(t, t, 3, false, false, timing)
				defer c.close()
				strike(c.nodes[bad])
				w := c.writer(context.Background())
				_, err := w.Write(data)
				require.NoError(t, err)
				require.NoError(t, w.Close())
				require.Positive(t, c.names.count("restamp"), "something went wrong")
				for _, n := range c.nodes {
					n.thaw()
				}
				if silent {
					c.holds(w, data, 1)
					return
				}
				c.holds(w, data, 2)
				f := c.names.files[w.file]
				require.NotContains(t, f.nodes[f.blocks[2].ID], c.nodes[bad].id, "who failed gets no further block")
				require.Len(t, f.nodes[f.blocks[2].ID], 2, "the others do")
			})
		}
	}
}

func TestAllButOneMayFail(t *testing.T) {
	data := content(2, size)
	all := faults()
	for i, name := range slices.Sorted(maps.Keys(all)) {
		left := i % 3
		t.Run(fmt.Sprintf("all but %d: %s", left+1, name), func(t *testing.T) {
			t.Parallel()
			c := makeCluster(t, t, 3, false, false, hurried())
			defer c.close()
			for i, n := range c.nodes {
				if i != left {
					all[name](n)
				}
			}
			w := c.writer(context.Background())
			_, err := w.Write(data)
			require.NoError(t, err)
			require.NoError(t, w.Close())
			for _, n := range c.nodes {
				n.thaw()
			}
			c.holds(w, data, 1)
		})
	}
}

func TestAllDie(t *testing.T) {
	c := newCluster(t, 3)
	defer c.close()
	data := content(3, size)
	for _, n := range c.nodes {
		faults()["is full"](n)
	}
	w := c.writer(context.Background(), func(c *WriterConfig) { c.Recovery = time.Second })
	// Full once, then dead: the cause is what the last one said.
	_, err := w.Write(data[:9*wire.MaxData/2])
	require.NoError(t, err)
	for _, n := range c.nodes {
		n.die()
	}
	_, _ = w.Write(data) // may be told already
	err = w.Close()
	require.ErrorContains(t, err, "write hdfs:///f: ")
	require.ErrorContains(t, err, "no pipeline for 1s: node i-")
	require.True(t, c.names.files[w.file].abandoned)
	_, err = w.Write(data)
	require.Error(t, err)
}

func TestTheLastDiskIsFull(t *testing.T) {
	c := newCluster(t, 1)
	defer c.close()
	c.nodes[0].hooks(nil, func(*node, int64, bool) error { return fmt.Errorf("%w: 0 bytes left", hdfs.ErrNoSpace) })
	w := c.writer(context.Background(), func(c *WriterConfig) { c.Recovery = 200 * time.Millisecond })
	_, err := w.Write([]byte("something"))
	require.NoError(t, err)
	err = w.Close()
	require.ErrorIs(t, err, hdfs.ErrNoSpace)
	require.ErrorContains(t, err, "0 bytes left")
	require.True(t, c.names.files[w.file].abandoned)
}

func TestNoNodeAtAll(t *testing.T) {
	c := newCluster(t, 0)
	w := c.writer(context.Background(), func(c *WriterConfig) { c.Recovery = 100 * time.Millisecond })
	_, err := w.Write([]byte("something"))
	require.NoError(t, err)
	require.ErrorIs(t, w.Close(), hdfs.ErrNoNodes)
}

// TestALeaderThatKnowsNoNodesYetIsWaitedFor: it has just begun when a pipeline breaks, and no node has found it.
func TestALeaderThatKnowsNoNodesYetIsWaitedFor(t *testing.T) {
	c := newCluster(t, 3)
	defer c.close()
	var once atomic.Bool
	c.nodes[1].hooks(nil, func(_ *node, total int64, _ bool) error {
		if total == 2*wire.MaxData && once.CompareAndSwap(false, true) {
			return errStruck
		}
		return nil
	})
	unknown := 3
	c.names.fault = func(op string, after bool) error {
		if op == "restamp" && after && unknown > 0 {
			unknown--
			return hdfs.ErrNoNodes
		}
		return nil
	}
	data := content(9, size)
	w := c.writer(context.Background())
	_, err := w.Write(data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	c.holds(w, data, 2)
	require.Zero(t, unknown)
}

// restarts has a node restart when its disk has got so much of the second block.
func restarts(n *node, wg *sync.WaitGroup, together *sync.WaitGroup) {
	var once atomic.Bool
	var blocks atomic.Int64
	n.hooks(nil, func(n *node, total int64, final bool) error {
		if final {
			blocks.Add(1)
		}
		if blocks.Load() == 1 && total == 2*wire.MaxData && once.CompareAndSwap(false, true) {
			n.die()
			wg.Go(func() {
				together.Done()
				together.Wait()
				n.restart()
			})
			return errStruck
		}
		return nil
	})
}

func TestNodesThatRestartInMidBlockGoOn(t *testing.T) {
	data := content(4, size)
	for nodes := 1; nodes <= 3; nodes++ {
		t.Run(fmt.Sprintf("%d nodes", nodes), func(t *testing.T) {
			c := newCluster(t, nodes)
			defer c.close()
			var wg, together sync.WaitGroup
			together.Add(nodes)
			for _, n := range c.nodes {
				restarts(n, &wg, &together)
			}
			w := c.writer(context.Background())
			_, err := w.Write(data)
			require.NoError(t, err)
			require.NoError(t, w.Close())
			wg.Wait()
			c.holds(w, data, 1)
		})
	}
}

// find gives the one file of that name below a folder.
func find(t *testing.T, fs *faultyfs.FS, dir, name string) string {
	var found []string
	var walk func(string)
	walk = func(dir string) {
		names, err := fs.ReadDir(dir)
		if err != nil {
			return // a file
		}
		for _, n := range names {
			if n == name {
				found = append(found, path.Join(dir, n))
			}
			walk(path.Join(dir, n))
		}
	}
	walk(dir)
	require.Len(t, found, 1)
	return found[0]
}

func TestAReplicaThatRotsInMidBlockIsNotGoneOnWith(t *testing.T) {
	c := newCluster(t, 3)
	defer c.close()
	data := content(5, 4*wire.MaxData)
	rotten, dying := c.nodes[1], c.nodes[2]
	dying.hooks(nil, func(n *node, total int64, _ bool) error {
		if total < 3*wire.MaxData {
			return nil
		}
		// All have the first packet, the window is smaller than the block.
		file := find(t, rotten.fs, rotten.dir, "data")
		f, err := rotten.fs.OpenFile(file, os.O_RDWR)
		require.NoError(t, err)
		_, err = f.WriteAt([]byte{data[1000] ^ 1}, 1000)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		n.die()
		return errStruck
	})
	w := c.writer(context.Background(), func(c *WriterConfig) { c.Window = 2 * wire.MaxData })
	_, err := w.Write(data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	c.holds(w, data, 1)
	f := c.names.files[w.file]
	require.Equal(t, []string{"i-1"}, f.nodes[f.blocks[0].ID])
}

func TestASlowDiskIsNoDeadOne(t *testing.T) {
	c := newCluster(t, 3)
	defer c.close()
	c.timing.Stall = 5 * time.Second
	for _, n := range c.nodes {
		n.restart()
	}
	c.nodes[1].hooks(nil, func(_ *node, total int64, _ bool) error {
		if total == 2*wire.MaxData {
			time.Sleep(7 * time.Second) // that is how slow it is
		}
		return nil
	})
	data := content(6, 4*wire.MaxData)
	w := c.writer(context.Background())
	_, err := w.Write(data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	c.holds(w, data, 3)
	require.Zero(t, c.names.count("restamp"))
}

func TestADiskThatHangsIsNamed(t *testing.T) {
	noGoroutinesLeft(t)
	for bad := range 3 {
		t.Run(fmt.Sprintf("member %d", bad+1), func(t *testing.T) {
			t.Parallel()
			timing := patient()
			timing.Slow = 10 * time.Second
			c := makeCluster(t, t, 3, false, false, timing)
			defer c.close()
			hang := make(chan struct{})
			defer close(hang)
			c.nodes[bad].hooks(nil, func(_ *node, total int64, _ bool) error {
				if total == 2*wire.MaxData {
					<-hang
				}
				return nil
			})
			data := content(7, size)
			w := c.writer(context.Background())
			_, err := w.Write(data)
			require.NoError(t, err)
			require.NoError(t, w.Close())
			c.holds(w, data, 2)
			f := c.names.files[w.file]
			require.NotContains(t, f.nodes[f.blocks[0].ID], c.nodes[bad].id)
			require.Len(t, f.nodes[f.blocks[0].ID], 2)
		})
	}
}

func TestANodeThatReachesNobodyIsDroppedItself(t *testing.T) {
	c := newCluster(t, 4)
	defer c.close()
	lonely := c.nodes[0]
	lonely.reaches = func(string) error { return errStruck }
	data := content(8, 2*wire.MaxData)
	w := c.writer(context.Background())
	_, err := w.Write(data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	c.holds(w, data, 2)
	f := c.names.files[w.file]
	require.NotContains(t, f.nodes[f.blocks[0].ID], lonely.id)
}
