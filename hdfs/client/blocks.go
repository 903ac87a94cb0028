package client

import (
	"context"
	"io"

	"go.uber.org/zap"

	"millrace/hdfs"
)

// Blocks is the way to the nodes' blocks.
type Blocks interface {
	// Open reads length bytes from offset of a node's replica: verified ones only. Errors, of Read too, wrap
	// hdfs.ErrCorrupt, hdfs.ErrNoBlock, hdfs.ErrStale, or are the connection's. It ends with the context.
	Open(ctx context.Context, node hdfs.Node, b hdfs.Block, offset, length int64) (io.ReadCloser, error)
	// Append writes to a file that Names.Create has begun with these words, and that has no blocks yet. The context
	// is the writer's whole life.
	Append(ctx context.Context, id hdfs.FileID, c hdfs.Create) (FileWriter, error)
}

// FileWriter writes one file. Not for concurrent use, but for Abort.
type FileWriter interface {
	// Write may take data before it is on the nodes: errors come with a later Write, or with Close.
	io.Writer
	// Close makes all that was written safe on the nodes and completes the file. After an error, or a second time, it
	// gives that error, or nil.
	Close() error
	// Abort gives the file up, unless it is complete. It may be repeated, and stops a Write that is under way.
	Abort() error
	// Info is the file as it was completed, after Close.
	Info() hdfs.Info
}

// connections is Blocks over connections to the nodes.
type connections struct {
	names   Names
	dialer  Dialer
	cluster string
	log     *zap.Logger
}

func (c *connections) Open(ctx context.Context, node hdfs.Node, b hdfs.Block, offset, length int64) (io.ReadCloser, error) {
	return openReplica(ctx, c.dialer, node, b, offset, length)
}

func (c *connections) Append(ctx context.Context, id hdfs.FileID, want hdfs.Create) (FileWriter, error) {
	w, err := NewWriter(ctx, WriterConfig{Names: c.names, Dialer: c.dialer, Cluster: c.cluster, File: id, Create: want, Log: c.log})
	if err != nil {
		return nil, err
	}
	return w, nil
}
