package shortage_test

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/shortage"
)

func TestOf(t *testing.T) {
	for _, c := range []struct {
		errno  error
		kind   shortage.Kind
		advice string
	}{
		{syscall.ENOSPC, shortage.Disk, "make room"},
		{syscall.EDQUOT, shortage.Disk, "make room"},
		{syscall.EMFILE, shortage.Descriptors, fmt.Sprintf("limit is %d open files: raise it (ulimit -n", shortage.Limit())},
		{syscall.ENFILE, shortage.Descriptors, "fs.file-max"},
		{syscall.EAGAIN, shortage.Processes, "ulimit -u"},
		{syscall.ENOMEM, shortage.Processes, "free -m"},
		{syscall.EROFS, shortage.Broken, "dmesg"},
		{syscall.EIO, shortage.Broken, "dmesg"},
		{syscall.ENOENT, shortage.None, ""},
		{errors.New("no space left on device"), shortage.None, ""},
		{nil, shortage.None, ""},
	} {
		err := fmt.Errorf("spill: %w", &fs.PathError{Op: "write", Path: "/x", Err: c.errno})
		require.Equal(t, c.kind, shortage.Of(err), "%v", c.errno)
		require.Contains(t, shortage.Advice(err), c.advice)
		explained := shortage.Explained(err)
		require.ErrorIs(t, explained, err)
		if c.advice == "" {
			require.Equal(t, err, explained)
			continue
		}
		require.Contains(t, explained.Error(), c.advice)
	}
	require.NotZero(t, shortage.Limit())
}
