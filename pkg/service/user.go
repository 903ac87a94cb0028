package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"
)

// ErrNoUsers says that a machine has no program that makes users.
var ErrNoUsers = errors.New("this machine has neither useradd nor an adduser of busybox to make it with")

// madeByUs is the comment in /etc/passwd by which a user that was made here is known from one that somebody else has made.
const madeByUs = "made by millrace for jobs"

var userName = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)

// CheckUser says what is wrong with a name for a user of the system; nil: nothing.
func CheckUser(name string) error {
	if !userName.MatchString(name) {
		return fmt.Errorf("user %q: a name has lower-case letters, digits, hyphens and _, at most 32, and begins with a letter", name)
	}
	return nil
}

// EnsureUser makes a system user with a group of its own, no home and no shell, unless there is one of that name.
// It gives ErrNoUsers where there is nothing to make it with.
func EnsureUser(ctx context.Context, h Host, name string) (made bool, err error) {
	if h.Run == nil {
		h.Run = run
	}
	if err := CheckUser(name); err != nil {
		return false, err
	}
	if there, err := h.entries("/etc/passwd", named(name)); err != nil || len(there) > 0 {
		return false, err
	}
	group, err := h.entries("/etc/group", named(name)) // one of that name is the user's: another system may have left it
	if err != nil {
		return false, err
	}
	shell := "/bin/false"
	if nologin := h.program("nologin"); nologin != "" {
		shell = nologin
	}
	if useradd := h.program("useradd"); useradd != "" {
		args := []string{"--system", "--no-create-home", "--home-dir", "/", "--shell", shell, "--comment", madeByUs, "--user-group"}
		if len(group) > 0 {
			args = append(args[:len(args)-1], "--gid", name)
		}
		_, err = h.Run(ctx, useradd, append(args, name)...)
		return err == nil, err
	}
	adduser, addgroup := h.program("adduser"), h.program("addgroup")
	if adduser == "" || addgroup == "" {
		return false, ErrNoUsers
	}
	if len(group) == 0 {
		_, err = h.Run(ctx, addgroup, "-S", name)
	}
	if err == nil {
		_, err = h.Run(ctx, adduser, "-S", "-D", "-H", "-h", "/", "-s", shell, "-g", madeByUs, "-G", name, name)
	}
	return err == nil, err
}

// RemoveUsers takes away the users that EnsureUser has made, and no others, and names them.
func RemoveUsers(ctx context.Context, h Host) (removed []string, err error) {
	if h.Run == nil {
		h.Run = run
	}
	names, err := h.entries("/etc/passwd", func(f []string) bool { return len(f) > 4 && f[4] == madeByUs })
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := h.take(ctx, "user", name, "userdel", "deluser"); err != nil {
			return removed, err
		}
		removed = append(removed, name)
		// Most systems take the user's own group with it, as far as nobody is in it; some leave it.
		left, err := h.entries("/etc/group", func(f []string) bool { return f[0] == name && len(f) > 3 && f[3] == "" })
		if err == nil && len(left) > 0 {
			err = h.take(ctx, "group", name, "groupdel", "delgroup")
		}
		if err != nil {
			return removed, err
		}
	}
	return removed, nil
}

// take has the first of the programs that is here remove a user, or a group.
func (h *Host) take(ctx context.Context, what, name string, programs ...string) error {
	for _, p := range programs {
		if program := h.program(p); program != "" {
			if _, err := h.Run(ctx, program, name); err != nil {
				return fmt.Errorf("remove %s %s: %w", what, name, err)
			}
			return nil
		}
	}
	return fmt.Errorf("remove %s %s: this machine has no %s to do it with", what, name, strings.Join(programs, " or "))
}

func named(name string) func([]string) bool { return func(f []string) bool { return f[0] == name } }

// entries are the names of those lines of a file like /etc/passwd whose fields are asked for.
func (h *Host) entries(file string, asked func(fields []string) bool) (names []string, err error) {
	text, err := os.ReadFile(h.path(file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Split(strings.TrimSpace(line), ":"); asked(fields) {
			names = append(names, fields[0])
		}
	}
	return names, nil
}

// program finds a system administrator's program, which may be in no PATH that sudo or ssh gives; "": it is not there.
func (h *Host) program(name string) string {
	for _, dir := range []string{"/usr/sbin/", "/sbin/", "/usr/bin/", "/bin/"} {
		if h.there(dir + name) {
			return dir + name
		}
	}
	return ""
}
