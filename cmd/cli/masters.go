package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"millrace/cmd/cli/view"
	"millrace/master"
	"millrace/pkg/api"
	"millrace/pkg/api/apiconnect"
)

func masterList(c *call) error {
	nodes, err := c.nodes()
	if err != nil {
		return err
	}
	masters := []view.Node{}
	for _, n := range nodes {
		if n.Role == "MASTER" {
			masters = append(masters, n)
		}
	}
	return c.print(masters, func(w io.Writer) {
		t := newTable(w, "ID", "NAME", "STATE", "MEMBER", "VERSION", "SEEN", "ADDRESS", "REASON")
		for _, n := range masters {
			member := strings.ToLower(n.Member)
			if n.Leader {
				member = "leader"
			}
			t.row(n.ID, n.Name, n.State, member, n.Version, formatAge(n.LastSeenAt.Time, time.Now()), n.Address, n.Reason)
		}
		t.flush()
	})
}

func masterAdd(c *call) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	resp, err := conn.api().AddMaster(c.Context.Context, connect.NewRequest(&api.AddMasterRequest{Id: c.args[0]}))
	if err != nil {
		return err
	}
	return c.masterChanged(resp.Msg, "votes")
}

func masterRemove(c *call) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	resp, err := conn.api().RemoveMaster(c.Context.Context, connect.NewRequest(&api.RemoveMasterRequest{Id: c.args[0]}))
	if err != nil {
		return err
	}
	what := "is out of the set: millrace master add takes it back"
	if resp.Msg.GetState() == "TERMINATED" {
		what = "was lost: it is out of the set and of the site for good"
	}
	return c.masterChanged(resp.Msg, what)
}

func (c *call) masterChanged(n *api.Node, what string) error {
	v := view.OfNode(n)
	return c.print(v, func(w io.Writer) { fmt.Fprintf(w, "master %s (%s) %s\n", v.ID, v.Name, what) })
}

func masterBackup(c *call) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	path := c.args[0]
	if path == "-" {
		return conn.untilBegun(c.Context.Context, apiconnect.MillraceServiceBackupProcedure, func() (bool, error) {
			n, err := c.copyBackup(conn, c.env.Stdout)
			return n > 0, err
		})
	}
	// Beside it first: what was there stays until all of it is there.
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return unwritable(path, err)
	}
	defer os.Remove(f.Name())
	var n, most int64
	err = conn.Repeat(c.Context.Context, apiconnect.MillraceServiceBackupProcedure, func() (came bool, err error) {
		_, err = f.Seek(0, io.SeekStart)
		if err = errors.Join(err, f.Truncate(0)); err != nil { // of what another leader has sent
			return false, err
		}
		n, err = c.copyBackup(conn, f)
		came, most = n > most, max(n, most)
		return came, err
	})
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return unwritable(path, err)
	}
	return c.print(map[string]any{"file": path, "bytes": n}, func(w io.Writer) {
		fmt.Fprintf(w, "%s in %s; it opens all of the site's secrets: keep it as you keep those\n", formatSize(n), path)
	})
}

func (c *call) copyBackup(conn *connection, w io.Writer) (n int64, err error) {
	stream, err := conn.api().Backup(c.Context.Context, connect.NewRequest(&api.BackupRequest{}))
	if err != nil {
		return 0, err
	}
	defer stream.Close()
	for stream.Receive() {
		if _, err := w.Write(stream.Msg().Data); err != nil {
			return n, err
		}
		n += int64(len(stream.Msg().Data))
	}
	return n, stream.Err()
}

// unwritable names the file that was asked for, not the one that was to become it.
func unwritable(path string, err error) error {
	var p *fs.PathError
	var l *os.LinkError
	switch {
	case errors.As(err, &p):
		err = p.Err
	case errors.As(err, &l):
		err = l.Err
	}
	return usagef("name a file that can be written", "%s: %s", path, err)
}

func masterRecover(c *call) error {
	dir, err := c.roleDir()
	if err != nil {
		return err
	}
	log := newLogger(c.env.Stderr).Named("master")
	defer log.Sync()
	id, err := master.Recover(dir, Version, log.WithOptions(zap.IncreaseLevel(zap.WarnLevel)))
	switch {
	case errors.Is(err, master.ErrNoMaster):
		return usagef("name the folder of a master that is stopped: millrace master recover --dir DIR", "%s", err)
	case err != nil:
		return c.roleFault(c.inv.name(), dir, err)
	}
	return c.print(map[string]any{"node": id, "dir": dir}, func(w io.Writer) {
		fmt.Fprintf(w, "master %s is the only one of its site now\nnext: millrace master run --dir %s   (the others must never run again: let new ones join, with empty folders)\n", id, dir)
	})
}
