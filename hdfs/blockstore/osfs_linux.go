package blockstore

import "golang.org/x/sys/unix"

// The errors of both are left alone: a file system that knows no such hints works without them, and a real fault
// shows at the next write, read or sync.

func (f osFile) Written(offset, length int64) {
	_ = unix.SyncFileRange(int(f.Fd()), offset, length, unix.SYNC_FILE_RANGE_WRITE)
}

func (f osFile) Forget() { _ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }
