// Package client is files of the block store as programs see them: io.Reader, io.ReaderAt, io.Writer and fs.FS
// over a name space (Names) and the nodes that hold the blocks, going on past nodes that fail.
package client

import (
	"context"
	"time"

	"millrace/hdfs"
)

// Names is one cluster's name space, as the leader serves it. All methods may be called at once and repeated after
// an error that says nothing (hdfs.ErrUnavailable); errors wrap those of package hdfs.
type Names interface {
	Stat(ctx context.Context, path string) (hdfs.Info, error)
	// List gives up to limit entries of one folder in the order of their names' bytes, those after a name.
	List(ctx context.Context, path, after string, limit int) ([]hdfs.Info, error)
	// Usage sums up all below a path.
	Usage(ctx context.Context, path string) (hdfs.Usage, error)
	// Locate gives a file's blocks that hold some of [offset, offset+length), each with the nodes to read it from,
	// best first. The file is named by its id, or if that is 0 by its path.
	Locate(ctx context.Context, path string, id hdfs.FileID, offset, length int64) (hdfs.Info, []hdfs.Located, error)

	// Create begins a file; hdfs.ErrBusy if the path has a writer.
	Create(ctx context.Context, c hdfs.Create) (hdfs.FileID, error)
	// AddBlock ends the block before (nil: there is none) and gives the pipeline for another one.
	AddBlock(ctx context.Context, id hdfs.FileID, lease string, prev *hdfs.Block, avoid []string) (hdfs.Located, error)
	// Restamp gives the block that is being written a new stamp, for a pipeline of these nodes.
	Restamp(ctx context.Context, id hdfs.FileID, lease string, block hdfs.Block, nodes []string) (hdfs.Located, error)
	// Complete makes the file visible, or seals the upload. Last is its last block; nil if it is empty.
	Complete(ctx context.Context, id hdfs.FileID, lease string, last *hdfs.Block) (hdfs.Info, error)
	Abandon(ctx context.Context, id hdfs.FileID, lease string) error
	// Renew keeps leases; it gives back those that are over.
	Renew(ctx context.Context, leases []string) (over []string, err error)

	// Mkdir makes a folder and those above it; one that is there is no error.
	Mkdir(ctx context.Context, path string) error
	// Rename moves a file or folder to a path that is not there yet; the folders above it are made.
	Rename(ctx context.Context, from, to string) error
	// Remove deletes a file, or a folder: an empty one unless recursive. It goes to the trash unless skipTrash.
	Remove(ctx context.Context, path string, recursive, skipTrash bool) error
	// RemoveIf deletes a file for good if it is still the one of this id: hdfs.ErrChanged.
	RemoveIf(ctx context.Context, path string, id hdfs.FileID) error
	SetReplication(ctx context.Context, path string, n int) error

	// BadReplica tells that a node's replica of a block was no good as it came here. The node looks whether it is.
	BadReplica(ctx context.Context, block hdfs.Block, node, reason string) error

	// Publish makes all uploads of a group visible in one step: count of them, sealed, or ErrInvalid. With replace
	// all else below prefix goes in the same step, without it there must be nothing. It may be repeated.
	Publish(ctx context.Context, group, prefix string, count int, replace bool, at time.Time) error
	// Uploads lists a group's uploads, in the order of their ids; those of all groups if none is named.
	Uploads(ctx context.Context, group string) ([]hdfs.Upload, error)
	// AbortUploads ends some uploads of a group, all if none is named; those that are not there are no error.
	AbortUploads(ctx context.Context, group string, ids []hdfs.FileID) error
}
