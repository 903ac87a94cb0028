package namespace

import (
	"fmt"

	"millrace/hdfs"
)

// Apply carries out one command and gives the tree that comes of it; with an error, the same one. The result is what
// the command's comment says, else nil. It is for one goroutine at a time, and for the latest tree.
func (t *Tree) Apply(c Command) (*Tree, any, error) {
	n := t.next()
	result, err := n.apply(c)
	if err != nil {
		return t, nil, err
	}
	return n, result, nil
}

func (t *Tree) apply(c Command) (any, error) {
	switch c := c.(type) {
	case CreateFile:
		return result(t.createFile(c))
	case AddBlock:
		return result(t.addBlock(c))
	case Restamp:
		return result(t.restamp(c))
	case CompleteFile:
		return result(t.completeFile(c))
	case AbandonFile:
		return nil, t.abandonFile(c)
	case ExpireLeases:
		return t.expireLeases(c), nil
	case Mkdir:
		return nil, t.mkdir(c)
	case Rename:
		return nil, t.rename(c)
	case Remove:
		return result(t.remove(c))
	case SetReplication:
		return nil, t.setReplication(c)
	case Publish:
		return nil, t.publish(c)
	case AbortUploads:
		return nil, t.abortUploads(c)
	}
	return nil, fmt.Errorf("%w: %T is no command", hdfs.ErrInvalid, c)
}

// result keeps a value out of the answer when there is an error.
func result[T any](v T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}

// about names the path that an error is about.
func about(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &hdfs.PathError{Op: op, Path: path, Err: err}
}

// ofFile names the file that an error is about.
func ofFile(op string, id hdfs.FileID, err error) error {
	return fmt.Errorf("%s of file %d: %w", op, id, err)
}

// replication checks a number of replicas.
func replication(n int) (uint8, error) {
	if n < 1 || n > hdfs.MaxReplication {
		return 0, fmt.Errorf("%w: replication %d is not between 1 and %d", hdfs.ErrInvalid, n, hdfs.MaxReplication)
	}
	return uint8(n), nil
}

// validBlockSize says whether files may have blocks of this length: those but the last are whole chunks.
func validBlockSize(n int64) bool {
	return n >= hdfs.MinBlockSize && n <= hdfs.MaxBlockSize && n%hdfs.ChunkSize == 0
}
