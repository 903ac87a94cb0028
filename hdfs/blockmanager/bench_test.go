package blockmanager

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"millrace/hdfs"
)

// counted is a name space of n final blocks that takes no memory, so that what is measured is the manager's.
type counted struct {
	n      hdfs.BlockID
	wanted int
}

func (c counted) Block(id hdfs.BlockID) (Block, bool) {
	return Block{Block: hdfs.Block{ID: id, Stamp: 1, Size: blockSize}, File: hdfs.FileID(id), Wanted: c.wanted, Final: true}, id >= 1 && id <= c.n
}

func (c counted) Blocks(from hdfs.BlockID) iter.Seq[Block] {
	return func(yield func(Block) bool) {
		for id := max(from, 1); id <= c.n; id++ {
			if b, _ := c.Block(id); !yield(b) {
				return
			}
		}
	}
}

func (c counted) HasLease(string) bool     { return false }
func (c counted) Leases() iter.Seq[string] { return func(func(string) bool) {} }

// benchCluster is a manager of a million blocks on a hundred nodes, three replicas of each.
type benchCluster struct {
	*Manager
	clock time.Time
	held  map[string][]Replica
}

func newBenchCluster(blocks int) *benchCluster {
	const nodes = 100
	c := &benchCluster{clock: time.Unix(1_000_000, 0), held: map[string][]Replica{}}
	r := rand.New(rand.NewPCG(1, 2))
	for id := range hdfs.BlockID(blocks) {
		first := r.IntN(nodes)
		second := first + 1 + 5*r.IntN(10)
		for _, n := range []int{first, second, second + 5*(1+r.IntN(9))} { // two of them on one rack
			name := fmt.Sprintf("r%d/n%d", n%5, n%nodes)
			c.held[name] = append(c.held[name], Replica{Block: hdfs.Block{ID: id + 1, Stamp: 1, Size: blockSize}})
		}
	}
	c.Manager = New(Config{
		Names: counted{n: hdfs.BlockID(blocks), wanted: 3}, Now: func() time.Time { return c.clock }, Rand: r,
	})
	for name := range c.held {
		c.NodeUp(member(name))
		c.Disks(name, []Disk{{Dir: "/d", Capacity: 1 << 50, Free: 1 << 49}})
	}
	return c
}

func (c *benchCluster) report() {
	for name, has := range c.held {
		for len(has) > 5000 {
			c.Report(name, has[:5000], false)
			has = has[5000:]
		}
		c.Report(name, has, true)
	}
}

func (c *benchCluster) tick() map[string]*Orders {
	c.clock = c.clock.Add(time.Second)
	return c.Tick()
}

// settle ticks until all blocks have been looked at.
func (c *benchCluster) settle() {
	for !c.ready || c.sweep.burst {
		c.tick()
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkPlaces tells what a million blocks with three replicas each take, learnt and looked at.
func BenchmarkPlaces(b *testing.B) {
	const blocks = 1_000_000
	for b.Loop() {
		c := newBenchCluster(blocks)
		before := heap()
		c.report()
		c.settle()
		b.ReportMetric(float64(heap()-before)/blocks, "B/block")
		runtime.KeepAlive(c)
	}
}

// BenchmarkReport is one node's full report of 100,000 blocks, to a manager that knows them from others.
func BenchmarkReport(b *testing.B) {
	const blocks = 100_000
	c := newBenchCluster(blocks)
	c.report()
	c.settle()
	all := make([]Replica, blocks)
	for i := range all {
		all[i] = Replica{Block: hdfs.Block{ID: hdfs.BlockID(i + 1), Stamp: 1, Size: blockSize}}
	}
	for b.Loop() {
		c.NodeUp(member("r9/new"))
		c.Report("r9/new", all, true)
	}
}

// BenchmarkTick is a second of a cluster of a million blocks: when all is well, while all of them are looked at again,
// and while a lost node's blocks are copied.
func BenchmarkTick(b *testing.B) {
	c := newBenchCluster(1_000_000)
	c.report()
	c.settle()
	b.Run("well", func(b *testing.B) {
		for b.Loop() {
			c.tick()
		}
	})
	b.Run("sweeping", func(b *testing.B) {
		for b.Loop() {
			c.sweep.all()
			c.tick()
		}
	})
	b.Run("repairing", func(b *testing.B) {
		c.NodeDown("r0/n0")
		for range 40 {
			c.tick()
		}
		c.settle()
		copies := 0
		for b.Loop() {
			for _, o := range c.tick() {
				copies += len(o.Copy)
				for _, cp := range o.Copy {
					c.Received(cp.To.ID, cp.Block)
				}
			}
		}
		b.ReportMetric(float64(copies)/float64(b.N), "copies/op")
	})
}

// BenchmarkNodeDown is the loss of one of a hundred nodes, until all of its blocks are in the queue.
func BenchmarkNodeDown(b *testing.B) {
	c := newBenchCluster(1_000_000)
	c.report()
	c.settle()
	for b.Loop() {
		c.NodeDown("r0/n0")
		c.clock = c.clock.Add(time.Minute)
		c.settle()
		b.StopTimer()
		c.NodeUp(member("r0/n0"))
		c.Report("r0/n0", c.held["r0/n0"], true)
		c.settle()
		b.StartTimer()
	}
}
