// Package clienttest is a cluster's files in memory, for tests of what uses them: a naive name space, and nodes whose
// replicas fail as a test says. It owns no rules but those that hdfs/client's interfaces state.
package clienttest

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"millrace/hdfs"
	"millrace/hdfs/client"
)

// Cluster is a name space and its nodes. It is client.Names and client.Blocks. Set its hooks before use.
type Cluster struct {
	// Asked, if set, is asked before each request to the name space (by the method's name): an error is its answer, and
	// nothing is done. Lost is asked after one that succeeded: an error takes the answer's place.
	Asked, Lost func(op string) error
	// Reads, if set, says how a read of a replica goes wrong; nil: it does not.
	Reads func(node string, b hdfs.Block, offset int64) *Fault
	// Settled and Away are what is said of the places of all blocks, beside their nodes.
	Settled bool
	Away    []string
	// Address, if set, gives a node's address: of real ones, beside whose blocks this is the name space alone.
	Address func(node string) string
	// Writes, if set, is asked before a piece is added to a block; an error ends the writer.
	Writes func(b hdfs.Block) error

	mu        sync.Mutex
	nodes     []string
	entries   map[string]*entry // by path; the root is among them
	drafts    map[hdfs.FileID]*draft
	blocks    map[hdfs.BlockID]*block
	published map[string]bool
	lastFile  hdfs.FileID
	lastBlock hdfs.BlockID
	trashed   int
	reports   []Report
}

// Fault is how a read goes wrong: after so many bytes comes the error, or, if that is nil, nothing more.
type Fault struct {
	After int64
	Err   error
}

// Report is one of a bad replica.
type Report struct {
	Block        hdfs.Block
	Node, Reason string
}

type entry struct {
	hdfs.Info
	blocks []hdfs.BlockID
}

type draft struct {
	hdfs.Create
	id     hdfs.FileID
	blocks []hdfs.BlockID
	sealed bool
}

type block struct {
	hdfs.Block
	data  []byte
	nodes []string
}

var (
	_ client.Names  = (*Cluster)(nil)
	_ client.Blocks = (*Cluster)(nil)
)

// New makes a cluster with nodes of these ids; without any, it has i-1, i-2 and i-3.
func New(nodes ...string) *Cluster {
	if len(nodes) == 0 {
		nodes = []string{"i-1", "i-2", "i-3"}
	}
	return &Cluster{
		nodes: nodes, drafts: map[hdfs.FileID]*draft{}, blocks: map[hdfs.BlockID]*block{}, published: map[string]bool{}, lastFile: 1,
		entries: map[string]*entry{"/": {Info: hdfs.Info{Path: "/", ID: 1, Directory: true, ModifiedAt: time.Now()}}},
	}
}

// Reports are those of bad replicas so far.
func (c *Cluster) Reports() []Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.reports)
}

// Place says on which nodes all blocks lie from now on.
func (c *Cluster) Place(nodes ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes = nodes
	for _, b := range c.blocks {
		b.nodes = nodes
	}
}

// Expire ends the leases of all writers, and with them their files. Uploads of groups stay.
func (c *Cluster) Expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, d := range c.drafts {
		if d.Group == "" {
			delete(c.drafts, id)
		}
	}
}

// Unfinished counts the files that nobody sees yet.
func (c *Cluster) Unfinished() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.drafts)
}

// do carries out one request between the hooks, with the lock held.
func (c *Cluster) do(op string, f func() error) error {
	if c.Asked != nil {
		if err := c.Asked(op); err != nil {
			return err
		}
	}
	c.mu.Lock()
	err := f()
	c.mu.Unlock()
	if err == nil && c.Lost != nil {
		err = c.Lost(op)
	}
	return err
}

func about(op, path string, err error) error { return &hdfs.PathError{Op: op, Path: path, Err: err} }

func ofFile(id hdfs.FileID, err error) error { return fmt.Errorf("file %d: %w", id, err) }
