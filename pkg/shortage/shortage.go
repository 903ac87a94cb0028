// Package shortage tells errors that say what a machine has run out of, or that a disk of
// its is no good, from all others, and says what helps. What follows from it (who is set
// aside, what is tried again) is the caller's business.
package shortage

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Kind is what there is a shortage of.
type Kind int

// The kinds. None is for errors that are about something else.
const (
	None        Kind = iota
	Disk             // space, a quota or inodes: ENOSPC and EDQUOT do not say which
	Descriptors      // of this process or of the whole machine
	Processes        // or the memory for one
	Broken           // the disk is read-only or does not answer: room does not help
)

// Of says what an error is about.
func Of(err error) Kind {
	for _, k := range []struct {
		errno syscall.Errno
		kind  Kind
	}{
		{syscall.ENOSPC, Disk}, {syscall.EDQUOT, Disk},
		{syscall.EMFILE, Descriptors}, {syscall.ENFILE, Descriptors},
		{syscall.EAGAIN, Processes}, {syscall.ENOMEM, Processes},
		{syscall.EROFS, Broken}, {syscall.EIO, Broken},
	} {
		if errors.Is(err, k.errno) {
			return k.kind
		}
	}
	return None
}

// Advice says what helps against an error that Of knows: "" for others.
func Advice(err error) string {
	switch Of(err) {
	case Disk:
		return "make room on that disk (df -h, df -i)"
	case Descriptors:
		if errors.Is(err, syscall.ENFILE) {
			return "the whole machine is out of file descriptors: raise fs.file-max"
		}
		return fmt.Sprintf("its limit is %d open files: raise it (ulimit -n 65536, or LimitNOFILE=65536 in the unit)", Limit())
	case Processes:
		return "too many processes, or no memory for one (ulimit -u, free -m)"
	case Broken:
		return "check that disk (dmesg, mount)"
	}
	return ""
}

// Explained adds the advice to an error that Of knows; others stay as they are.
func Explained(err error) error {
	if a := Advice(err); a != "" {
		return fmt.Errorf("%w; %s", err, a)
	}
	return err
}

// Reserve is how many bytes of a disk of that size are kept free: for the node's own state and logs, and for
// whoever else lives there. On a small disk it is a tenth.
func Reserve(total int64) int64 { return min(64<<20, total/10) }

// Limit is how many descriptors this process may have open; 0 if that is not known.
func Limit() uint64 {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0
	}
	return l.Cur
}
