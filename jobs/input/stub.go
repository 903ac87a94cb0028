// Package input owns input formats and splits: it lists what a job reads, cuts it
// into splits, and reads the records of a split.
package input

import (
	"context"
	"io"
	"iter"

	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// Lister is what listing needs of an object store.
type Lister interface {
	List(ctx context.Context, bucket, prefix string, o objectstore.ListOptions) iter.Seq2[objectstore.Object, error]
	Head(ctx context.Context, bucket, key string) (objectstore.Object, error)
}

// Object is one input object.
type Object struct {
	Bucket, Key, ETag string
	Size              int64
}

// NoMatchError says that an input matches nothing.
type NoMatchError struct{ Input string }

func (e *NoMatchError) Error() string { return "input " + e.Input + " matches nothing" }

// List resolves inputs (key itself, else prefix, else glob; names that begin with _ or
// . skipped) to objects, each once, in order. *NoMatchError for one that matches
// nothing; objectstore.ErrNoSuchBucket wrapped with the input.
func List(ctx context.Context, s Lister, inputs []string) ([]Object, error) { panic("unwritten") }

// Cut cuts objects into splits of about size bytes: big ones at multiples of size,
// small ones packed together up to it, .gz ones alone. Empty objects give no piece.
func Cut(objects []Object, size int64, format string) []*api.Split { panic("unwritten") }

// Plan is the immutable plan of a job, as stored in the system prefix.
type Plan struct {
	Splits []*api.Split
	Bytes  int64 // of all pieces
}

// Encode gives the plan's bytes and their SHA-256 in hex; Decode checks it.
func (p *Plan) Encode() (data []byte, digest string, err error) { panic("unwritten") }
func Decode(data []byte, digest string) (*Plan, error)          { panic("unwritten") }

// Ranger reads a byte range of an object (objectstore.Store is one).
type Ranger interface {
	Get(ctx context.Context, bucket, key string, offset, length int64, ifMatch string) (io.ReadCloser, error)
}

// Reader yields the records of a split.
type Reader struct{}

// ReaderConfig bounds a Reader.
type ReaderConfig struct {
	MaxRecord int64 // longer ones are an error that names the object, offset and limit
}

// Open starts reading a split; ranges are read ahead.
func Open(ctx context.Context, s Ranger, split *api.Split, c ReaderConfig) (*Reader, error) {
	panic("unwritten")
}

// Next returns the next record (text: the byte offset of the line in decimal? no: key is
// nil, value the line without its end), valid until the next call, or io.EOF. An error
// is a *ReadError.
func (r *Reader) Next() (key, value []byte, err error) { panic("unwritten") }

// Position is the object and byte offset of the record last returned.
func (r *Reader) Position() (url string, offset int64) { panic("unwritten") }

// BytesRead is the number of uncompressed bytes of records returned, line ends included.
func (r *Reader) BytesRead() int64 { panic("unwritten") }

// InputDone is the number of (compressed) input bytes passed, for progress.
func (r *Reader) InputDone() int64 { panic("unwritten") }
func (r *Reader) Close() error     { panic("unwritten") }

// ReadError names where reading failed.
type ReadError struct {
	URL    string
	Offset int64
	Err    error
}

func (e *ReadError) Error() string { panic("unwritten") }
func (e *ReadError) Unwrap() error { return e.Err }
