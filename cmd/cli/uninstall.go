package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"millrace/pkg/service"
	"millrace/worker"
)

func (a *app) uninstallCommand() *cli.Command {
	return a.leaf(spec{name: "uninstall", usage: "take away from this machine what init and join have put there; with --data all that the node keeps, too",
		example: "millrace uninstall\nmillrace uninstall --data", flags: []cli.Flag{
			&cli.BoolFlag{Name: "data", Usage: "delete what the node keeps as well: who it is, its blocks (in --data-dir, too), of a master the log"},
			&cli.BoolFlag{Name: "force", Usage: "even if the masters elsewhere count on this machine's: for a site that is gone"}, machineDirFlag(),
		}, do: uninstall})
}

// uninstalled is what uninstall says.
type uninstalled struct {
	Removed []string `json:"removed"`
	Kept    []string `json:"kept"`
	Nodes   []string `json:"nodes"` // that the site still knows
	Mind    []string `json:"mind"`  // what it means for the site

	why map[string]string // what is kept is kept
}

func (u *uninstalled) keep(path, why string) {
	u.Kept = append(u.Kept, path)
	u.why[path] = why
}

// remove deletes files and folders that are there; of a folder at which a disk is mounted, what is in it.
func (u *uninstalled) remove(places []string) error {
	for _, place := range places {
		if _, err := os.Lstat(place); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.RemoveAll(place); errors.Is(err, syscall.EBUSY) {
			u.keep(place, keptMount)
			continue
		} else if err != nil {
			return err
		}
		u.Removed = append(u.Removed, place)
	}
	return nil
}

// Why something stays.
const (
	keptOfNode = "who the node is, and its data; millrace join goes on with it, --data deletes it"
	keptBlocks = "blocks of the node; --data deletes them"
	keptMount  = "a disk is mounted there; what the node had on it is deleted"
	keptOthers = "there are files in it that are not millrace's"
)

func uninstall(c *call) error {
	m, err := c.machineOf()
	if err != nil {
		return err
	}
	out := uninstalled{Removed: []string{}, Kept: []string{}, Nodes: []string{}, Mind: []string{}, why: map[string]string{}}
	if err := m.maySpareMaster(c.Context.Context, &out); err != nil {
		return err
	}
	for _, role := range []string{"worker", "master"} {
		n, err := m.node(role)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if n != nil {
			out.Nodes = append(out.Nodes, n.ID)
		}
		name := "millrace-" + role
		if !m.mgr.Installed(name) {
			continue
		}
		if err := m.mgr.Remove(c.Context.Context, name); err != nil {
			return err
		}
		out.Removed = append(out.Removed, "service "+name)
	}
	users, err := service.RemoveUsers(c.Context.Context, service.Host{})
	for _, name := range users {
		out.Removed = append(out.Removed, "user "+name)
	}
	if err != nil {
		return faultf(exitFailed, "mend that, then repeat the command", "%s", err)
	}
	data := c.Bool("data")
	if err := m.disks(&out, data); err != nil {
		return err
	}
	places := []string{programPath, settingsDir}
	if data {
		places = append(places, m.ownFiles()...)
	}
	if err := out.remove(places); err != nil {
		return err
	}
	why := keptOfNode
	if data {
		why = keptOthers
		if err := emptied(m.dir); errors.Is(err, syscall.EBUSY) {
			why = keptMount
		} else if err != nil {
			return err
		}
	}
	if _, err := os.Stat(m.dir); err == nil {
		out.keep(m.dir, why)
	}
	return c.print(out, func(w io.Writer) {
		for _, what := range out.Removed {
			fmt.Fprintf(w, "removed %s\n", what)
		}
		if len(out.Removed) == 0 {
			fmt.Fprintln(w, "nothing of millrace is installed here")
		}
		for _, what := range out.Kept {
			fmt.Fprintf(w, "kept    %s: %s\n", what, out.why[what])
		}
		for _, what := range out.Mind {
			fmt.Fprintf(w, "mind: %s\n", what)
		}
		for _, id := range out.Nodes {
			fmt.Fprintf(w, "the site knows %s until somebody says, with a context: millrace node remove %s (of a master: millrace master remove %s)\n", id, id, id)
		}
	})
}

// disks are the folders of --data-dir: what the node has there is deleted as well, or it is said that it stays. They come before the
// node's own folder, which tells of them: a command that was cut short is repeated.
func (m *machine) disks(out *uninstalled, data bool) error {
	dir := m.nodeDir("worker")
	if !data {
		kept, err := worker.Disks(dir)
		for _, disk := range kept {
			out.keep(disk, keptBlocks)
		}
		return err
	}
	var failed []string
	all, err := worker.DiscardDisks(dir)
	for _, d := range all {
		if d.Gone {
			out.Removed = append(out.Removed, "blocks in "+d.Dir)
		}
		if d.Kept != "" {
			out.keep(d.Dir, d.Kept)
		}
		if d.Err != nil {
			failed = append(failed, fmt.Sprintf("%s: %s", d.Dir, d.Err))
		}
	}
	if len(failed) > 0 { // the node's folder alone says where its blocks are
		return faultf(exitFailed, "mend that, or unmount a disk that is lost, then repeat the command",
			"its blocks could not be deleted in %s; the node's folder %s is kept until then", strings.Join(failed, "; "), dir)
	}
	return err
}

// ownFiles are what nodes keep below the machine's folder.
func (m *machine) ownFiles() []string {
	files := []string{m.nodeDir("worker"), m.nodeDir("master")}
	for _, log := range []string{"worker.log", "master.log"} {
		files = append(files, filepath.Join(m.dir, log), filepath.Join(m.dir, log+".1"))
	}
	return files
}
