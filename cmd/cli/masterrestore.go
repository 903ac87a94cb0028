package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"millrace/master"
	"millrace/pkg/nodedir"
	"millrace/pkg/protocol"
)

// unchecked is said of a backup without a SHA-256.
const unchecked = "it is of an earlier version and has no SHA-256: whether it is damaged cannot be told"

// restoredView is what restore says of a backup, and of the master that it has made of it.
type restoredView struct {
	Node      string `json:"node,omitempty"`
	Site      string `json:"site"`
	Jobs      int    `json:"jobs"`
	CreatedAt string `json:"createdAt"`
	Dir       string `json:"dir,omitempty"`
	Checked   bool   `json:"checked"` // by its SHA-256
}

func masterRestore(c *call) error {
	if c.Bool("check") {
		return c.checkBackup()
	}
	dir, err := c.roleDir()
	if err != nil {
		return err
	}
	var r *master.Restored
	if err := c.readBackup(func(in io.Reader) (err error) {
		r, err = master.Restore(dir, c.String("name"), Version, in)
		return err
	}); err != nil {
		return c.restoreFault(dir, err)
	}
	return c.print(restoredView{r.Node, r.Site, r.Jobs, r.CreatedAt, dir, r.Checked}, func(w io.Writer) {
		fmt.Fprintf(w, "master %s of %s, with %s, as of %s\n", r.Node, r.Site, plural(r.Jobs, "job"), r.CreatedAt)
		if !r.Checked {
			fmt.Fprintf(w, "mind: %s: %s\n", c.args[0], unchecked)
		}
		fmt.Fprintf(w, "next: millrace master run --dir %s\n", dir)
	})
}

// restoreFault says how to go on after a restore that has failed: with the same again. To run the folder would make no master of the site.
func (c *call) restoreFault(dir string, err error) error {
	again := fmt.Sprintf("then repeat: millrace master restore FILE --dir %s (until then no master runs there)", dir)
	var f *fault
	switch {
	case errors.As(err, &f):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return faultf(exitFailed, fmt.Sprintf("make room on the disk of %s (df -h %s), %s", dir, dir, again), "%s", err)
	case errors.Is(err, nodedir.ErrInUse), errors.Is(err, nodedir.ErrNewer), errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ENOTDIR), notMade(err):
		return c.roleFault(c.inv.name()+" FILE", dir, err)
	}
	return faultf(exitFailed, "mend that, "+again, "%s", err)
}

func (c *call) checkBackup() error {
	var r *master.Restored
	if err := c.readBackup(func(in io.Reader) (err error) {
		r, err = master.CheckBackup(in)
		return err
	}); err != nil {
		return err
	}
	return c.print(restoredView{Site: r.Site, Jobs: r.Jobs, CreatedAt: r.CreatedAt, Checked: r.Checked}, func(w io.Writer) {
		how := "it is whole"
		if !r.Checked {
			how = unchecked
		}
		fmt.Fprintf(w, "%s can be restored: %s, with %s, as of %s; %s\n", c.args[0], r.Site, plural(r.Jobs, "job"), r.CreatedAt, how)
	})
}

// readBackup gives read the file that was named, and says what is wrong with it.
func (c *call) readBackup(read func(io.Reader) error) error {
	in := c.env.Stdin
	if c.args[0] != "-" {
		f, err := os.Open(c.args[0])
		if err != nil {
			return usagef("millrace master restore FILE --dir DIR", "%s", err)
		}
		defer f.Close()
		in = f
	}
	err := read(in)
	switch {
	case errors.Is(err, master.ErrDamaged):
		return usagef("take another backup, an earlier one if need be: millrace master restore FILE --dir DIR", "%s: %s", c.args[0], err)
	case errors.Is(err, protocol.ErrNewer):
		return usagef("restore it with the version that wrote it, or a later one", "%s: %s", c.args[0], err)
	case errors.Is(err, master.ErrBackup):
		return usagef("name a file that millrace master backup wrote, whole: millrace master restore FILE --dir DIR", "%s: %s", c.args[0], err)
	case errors.Is(err, master.ErrNotEmpty):
		return usagef("name another folder: millrace master restore FILE --dir DIR", "%s", err)
	}
	return err
}
