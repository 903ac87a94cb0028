package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"millrace/pkg/client"
)

// adminContext writes the administrator's context for who has called init: with sudo that is not root.
func (m *machine) adminContext(out *firstMachine) error {
	ctx, err := m.admin()
	if err != nil {
		return err
	}
	ctx.Name = out.Context
	home, owner, err := m.c.invoker()
	if err != nil {
		return err
	}
	if err := client.SaveContext(home, ctx); err != nil {
		return m.c.contextFault(home, err)
	}
	if err := client.UseContext(home, ctx.Name); err != nil {
		return m.c.contextFault(home, err)
	}
	if owner == nil {
		return nil
	}
	return owner.take(home, ctx.Name)
}

// account is a user's ids.
type account struct{ uid, gid int }

// invoker is where the contexts lie of who typed the command; under sudo of who typed that, and owner whom they shall belong to.
func (c *call) invoker() (home string, owner *account, err error) {
	name := c.env.Getenv("SUDO_USER")
	if name == "" || name == "root" || c.env.Getenv("MILLRACE_HOME") != "" {
		home, err = c.home()
		return home, nil, err
	}
	u, err := user.Lookup(name)
	if err != nil {
		return "", nil, fmt.Errorf("SUDO_USER: %w", err)
	}
	uid, uidErr := strconv.Atoi(u.Uid)
	gid, gidErr := strconv.Atoi(u.Gid)
	if err := errors.Join(uidErr, gidErr); err != nil {
		return "", nil, fmt.Errorf("SUDO_USER %s: %w", name, err)
	}
	home = filepath.Join(u.HomeDir, ".millrace")
	if info, err := os.Lstat(home); err == nil && info.Mode()&fs.ModeSymlink != 0 { // root follows no links of others
		return "", nil, usagef("export MILLRACE_HOME=…, and sudo --preserve-env=MILLRACE_HOME millrace init", "%s is a link", home)
	}
	return home, &account{uid, gid}, nil
}

// take gives a context's files to their owner.
func (a *account) take(home, name string) error {
	for _, path := range []string{home, filepath.Join(home, "contexts"), filepath.Join(home, "contexts", name+".json"), filepath.Join(home, "current-context")} {
		if err := os.Lchown(path, a.uid, a.gid); err != nil {
			return err
		}
	}
	return nil
}
