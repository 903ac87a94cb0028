package blockmanager

import (
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
)

// log is a name space as far as the manager asks.
type log struct {
	blocks map[hdfs.BlockID]Block
	leases map[string]bool
}

func (l *log) Block(id hdfs.BlockID) (Block, bool) { b, ok := l.blocks[id]; return b, ok }

func (l *log) Blocks(from hdfs.BlockID) iter.Seq[Block] {
	return func(yield func(Block) bool) {
		for _, id := range slices.Sorted(maps.Keys(l.blocks)) {
			if id >= from && !yield(l.blocks[id]) {
				return
			}
		}
	}
}

func (l *log) HasLease(name string) bool { return l.leases[name] }
func (l *log) Leases() iter.Seq[string]  { return maps.Keys(l.leases) }

// scene is a manager in virtual time, for tests that tell a story.
type scene struct {
	*testing.T
	*Manager
	log    *log
	clock  time.Time
	orders map[string]*Orders // of the last tick
}

const blockSize = 1 << 20

// newScene has nodes a, b, c … up, with empty reports, and the manager ready.
func newScene(t *testing.T, nodes ...string) *scene {
	s := newColdScene(t, nodes...)
	for _, n := range nodes {
		s.up(n)
	}
	s.tick()
	return s
}

// newColdScene is a new leader that expects some nodes.
func newColdScene(t *testing.T, expected ...string) *scene {
	s := &scene{T: t, log: &log{blocks: map[hdfs.BlockID]Block{}, leases: map[string]bool{}}, clock: time.Unix(1_000_000, 0)}
	s.Manager = New(s.config(expected...))
	return s
}

func (s *scene) config(expected ...string) Config {
	return Config{
		Names: s.log, Now: func() time.Time { return s.clock }, Rand: rand.New(rand.NewPCG(1, 2)), Expected: expected, Rate: -1,
	}
}

// up has a node come up; its rack is the part of its name before a slash, if there is one.
func (s *scene) up(name string, has ...hdfs.Block) {
	s.NodeUp(member(name))
	s.Disks(name, []Disk{{Dir: "/d", Capacity: 1 << 40, Free: 1 << 39}})
	var rs []Replica
	for _, b := range has {
		rs = append(rs, Replica{Block: b})
	}
	s.Report(name, rs, true)
}

func member(name string) hdfs.Node {
	rack := ""
	for i, c := range name {
		if c == '/' {
			rack = name[:i]
		}
	}
	return hdfs.Node{ID: name, Address: "https://" + name, Rack: rack}
}

// block puts a final block into the log and its replicas onto nodes.
func (s *scene) block(id hdfs.BlockID, wanted int, on ...string) hdfs.Block {
	b := hdfs.Block{ID: id, Stamp: 1, Size: blockSize}
	s.log.blocks[id] = Block{Block: b, File: hdfs.FileID(id + 1000), Wanted: wanted, Final: true}
	for _, n := range on {
		s.Received(n, b)
	}
	s.BlockFinal(id)
	return b
}

func (s *scene) tick() map[string]*Orders {
	s.clock = s.clock.Add(time.Second)
	s.orders = s.Tick()
	return s.orders
}

// pass ticks for a while and keeps all orders that were given, none of which is carried out.
func (s *scene) pass(d time.Duration) {
	all := map[string]*Orders{}
	for range int(d / time.Second) {
		for n, o := range s.tick() {
			if all[n] == nil {
				all[n] = &Orders{}
			}
			all[n].Copy = append(all[n].Copy, o.Copy...)
			all[n].Delete = append(all[n].Delete, o.Delete...)
			all[n].Verify = append(all[n].Verify, o.Verify...)
		}
	}
	s.orders = all
}

// obey carries out the orders of the last tick.
func (s *scene) obey() {
	for _, n := range slices.Sorted(maps.Keys(s.orders)) {
		for _, c := range s.orders[n].Copy {
			s.Received(c.To.ID, c.Block)
		}
		for _, b := range s.orders[n].Delete {
			s.Deleted(n, b)
		}
	}
}

func (s *scene) copies() (out []hdfs.BlockID) {
	for _, n := range slices.Sorted(maps.Keys(s.orders)) {
		for _, c := range s.orders[n].Copy {
			out = append(out, c.ID)
		}
	}
	return out
}

// deletes lists what was ordered to be deleted, as node:block.
func (s *scene) deletes() (out []string) {
	for _, n := range slices.Sorted(maps.Keys(s.orders)) {
		for _, b := range s.orders[n].Delete {
			out = append(out, n+":"+b.String())
		}
	}
	return out
}

func (s *scene) quiet(why string) {
	s.Helper()
	require.Empty(s, s.copies(), why)
	require.Empty(s, s.deletes(), why)
}

func (s *scene) at(id hdfs.BlockID) []string {
	out := []string{}
	for _, n := range s.Locate(id, "", "") {
		out = append(out, n.ID)
	}
	slices.Sort(out)
	return out
}
