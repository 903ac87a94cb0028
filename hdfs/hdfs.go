// Package hdfs is the vocabulary of the replicated block store: paths, files, blocks, where their replicas
// lie, and what can go wrong. The parts below it own the rest: namespace the names, blockmanager the replicas'
// places, blockstore a disk, datanode a node's end of the wire, client files as programs see them.
package hdfs

import (
	"cmp"
	"fmt"
	"time"
)

const (
	// DefaultBlockSize is the length in bytes of all blocks of a file but its last.
	DefaultBlockSize = 128 << 20
	// DefaultReplication is on how many nodes each block of a file shall lie.
	DefaultReplication = 3
	// MaxReplication bounds what may be asked for.
	MaxReplication = 64
	// ChunkSize is how many bytes of a block share a CRC32C, on disk and on the wire.
	ChunkSize = 64 << 10
	// MinBlockSize and MaxBlockSize bound a file's block size in bytes.
	MinBlockSize = ChunkSize
	MaxBlockSize = 4 << 30
)

// BlockID names a block for ever, within its cluster.
type BlockID uint64

func (b BlockID) String() string { return fmt.Sprintf("b-%016x", uint64(b)) }

// Stamp is a block's generation stamp: each change of the nodes that write a block takes a new one from the
// log, and a replica with another stamp than the log's is stale.
type Stamp uint64

// FileID names a file or folder for ever, whatever its path, within its cluster. The root has 1.
type FileID uint64

// Block is one version of one block. Size is in bytes.
type Block struct {
	ID    BlockID `json:"id"`
	Stamp Stamp   `json:"stamp"`
	Size  int64   `json:"size"`
}

func (b Block) String() string { return fmt.Sprintf("%s (stamp %d, %d bytes)", b.ID, b.Stamp, b.Size) }

// Node is where a replica lies or shall lie.
type Node struct {
	ID      string // i-…
	Address string // https://host:port
	Rack    string // failure domain, "" = the default one
	Name    string // what people call it, "" = its ID
}

// Called is what people call the node.
func (n Node) Called() string { return cmp.Or(n.Name, n.ID) }

// Located is a block of a file and the nodes that have it, the best to read from first; when it is being
// written, the pipeline in its order.
type Located struct {
	Block
	Offset int64 // of the block in its file
	Nodes  []Node
	// Away are nodes that are not there now and may have it, by name: they may be waited for. Settled says that no node but Nodes
	// and these may have it.
	Away    []string
	Settled bool
}

// Info describes a file or folder.
type Info struct {
	Path        string // canonical, from the root
	ID          FileID
	Directory   bool
	Size        int64 // bytes; 0 of folders
	Replication int   // of files: wanted
	BlockSize   int64 // of files
	ModifiedAt  time.Time
}

// Create is what a new file shall be.
type Create struct {
	Path        string
	Lease       string // the writer's own secret name, unguessable: who has it may write
	Replication int    // 0 = DefaultReplication
	BlockSize   int64  // 0 = DefaultBlockSize
	Overwrite   bool   // replace a file that is there, when the new one is complete
	// Group makes the file an upload of this group (a job): it has no lease that expires, Complete seals it, and it
	// stays invisible until the whole group is published. Task is the group's own name for it.
	Group, Task string
}

// Upload is a hidden file of a group.
type Upload struct {
	ID     FileID
	Path   string
	Group  string
	Task   string
	Lease  string // who has it may write
	Size   int64
	Sealed bool
}

// BlockSizeFor is the block size of a file whose size in bytes is known before it is written: when it fits into one block,
// that block need not ask for more room than that. usual is the block size otherwise; 0: DefaultBlockSize.
func BlockSizeFor(size, usual int64) int64 {
	usual = cmp.Or(usual, DefaultBlockSize)
	if size < 0 || size >= usual {
		return usual
	}
	return min(usual, max(MinBlockSize, (size+ChunkSize-1)/ChunkSize*ChunkSize))
}

// Usage is how much lies below a path. Bytes are those of the files, each once.
type Usage struct {
	Bytes, Files, Folders int64
	Stored                int64 // bytes times the replication that is wanted
}
