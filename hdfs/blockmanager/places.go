package blockmanager

import (
	"math"
	"slices"

	"github.com/tidwall/btree"

	"millrace/hdfs"
)

// nodeIndex is a node's short name within one Manager.
type nodeIndex uint16

// noNode ends the list of nodes in a place; it is no node's index.
const noNode = nodeIndex(0xffff)

// place is which nodes have a replica of one block with one stamp. A million of them must be small: the usual number
// of nodes fits into it, and those of a block with more lie in places.more.
type place struct {
	stamp hdfs.Stamp
	at    [4]nodeIndex // filled from the front, then noNode; of blocks in places.more nothing but noNode
}

// places is where the replicas of the right stamp and size lie, as far as the nodes have told. (What else they have
// told, of other stamps and of blocks that are being written, is in suspect.)
type places struct {
	byID btree.Map[hdfs.BlockID, place]
	more map[hdfs.BlockID][]nodeIndex // of blocks that have ever had more than fit
}

func (p *places) init() {
	p.byID = *btree.NewMap[hdfs.BlockID, place](128)
	p.more = map[hdfs.BlockID][]nodeIndex{}
}

// of appends the nodes that have a block to buf.
func (p *places) of(id hdfs.BlockID, buf []nodeIndex) (hdfs.Stamp, []nodeIndex) {
	pl, ok := p.byID.Get(id)
	if !ok {
		return 0, buf
	}
	return pl.stamp, p.nodes(id, pl, buf)
}

func (p *places) nodes(id hdfs.BlockID, pl place, buf []nodeIndex) []nodeIndex {
	if pl.at[0] == noNode {
		return append(buf, p.more[id]...)
	}
	for _, n := range pl.at {
		if n == noNode {
			break
		}
		buf = append(buf, n)
	}
	return buf
}

func (p *places) has(id hdfs.BlockID, n nodeIndex) (hdfs.Stamp, bool) {
	var buf [len(place{}.at)]nodeIndex
	stamp, at := p.of(id, buf[:0])
	return stamp, slices.Contains(at, n)
}

// add says that a node has a block. All replicas of a block have one stamp: who has another one is to be removed first.
func (p *places) add(id hdfs.BlockID, stamp hdfs.Stamp, n nodeIndex) {
	var buf [len(place{}.at) + 1]nodeIndex
	_, at := p.of(id, buf[:0])
	if !slices.Contains(at, n) {
		p.set(id, stamp, append(at, n))
	}
}

// remove says that a node has a block no more.
func (p *places) remove(id hdfs.BlockID, n nodeIndex) {
	var buf [len(place{}.at)]nodeIndex
	stamp, at := p.of(id, buf[:0])
	if i := slices.Index(at, n); i >= 0 {
		p.set(id, stamp, slices.Delete(at, i, i+1))
	}
}

func (p *places) set(id hdfs.BlockID, stamp hdfs.Stamp, at []nodeIndex) {
	if len(at) == 0 {
		p.byID.Delete(id)
		delete(p.more, id)
		return
	}
	pl := place{stamp: stamp}
	for i := range pl.at {
		pl.at[i] = noNode
	}
	if len(at) <= len(pl.at) {
		copy(pl.at[:], at)
		delete(p.more, id)
	} else {
		p.more[id] = slices.Clone(at)
	}
	p.byID.Set(id, pl)
}

// dropNode says that a node has nothing any more.
func (p *places) dropNode(n nodeIndex) {
	for _, id := range p.held(n, 0, math.MaxInt) {
		p.remove(id, n)
	}
}

// held lists the blocks that a node has, in the order of their ids, from one on, limit of them at most.
func (p *places) held(n nodeIndex, from hdfs.BlockID, limit int) []hdfs.BlockID {
	var ids []hdfs.BlockID
	p.byID.Ascend(from, func(id hdfs.BlockID, pl place) bool {
		if slices.Contains(pl.at[:], n) || pl.at[0] == noNode && slices.Contains(p.more[id], n) {
			ids = append(ids, id)
		}
		return len(ids) < limit
	})
	return ids
}
