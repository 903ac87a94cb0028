package blockstore

import (
	"io"
	"time"
)

// FS is what the store asks of a file system. Errors wrap the operating system's. Paths are cleaned.
type FS interface {
	Mkdir(path string) error // one folder; fs.ErrExist if it is there
	// OpenFile takes os.O_RDONLY or O_RDWR, with O_CREATE and O_TRUNC.
	OpenFile(path string, flag int) (File, error)
	Rename(from, to string) error
	Remove(path string) error // a file, or an empty folder
	ReadDir(path string) (names []string, err error)
	Stat(path string) (Stat, error)
	Touch(path string, at time.Time) error // sets the time of the last change
	SyncDir(path string) error             // makes the folder's entries durable
	// Room is the file system's size and what is free for others than root, in bytes.
	Room(path string) (capacity, free int64, err error)
	// Lock makes the file if need be and takes it for this process, until it is closed or the process ends.
	Lock(path string) (io.Closer, error)
}

// File is an open file.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	Size() (int64, error)
	Sync() error // makes the content durable, not the file's name
	// Written says that these bytes will not be written again: writing them out may begin. Only a hint.
	Written(offset, length int64)
	// Forget drops what memory holds of the file and the disk has too, so that the next read asks the disk. Only a hint.
	Forget()
}

// Stat describes a file.
type Stat struct {
	Size    int64 // bytes
	Changed time.Time
}
