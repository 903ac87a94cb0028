package attempt

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	osuser "os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// User is the user of the operating system that attempts run as, where that is not the worker's own. A nil User is the worker's own:
// then none of its methods does anything.
//
// All attempts have that user, and each child a group of its own, which nobody else is in: so that an attempt can neither read the
// directory of another one nor, as the kernel wants user and group to be the same for that, look into its processes. What the
// node keeps is root's. An attempt gets as far as its own directory and no further:
//
//	DIR                 root:USER'S GROUP 0710   to pass through
//	DIR/programs        root:USER'S GROUP 0710   files are found by their SHA-256
//	DIR/attempts        root:USER'S GROUP 0710
//	DIR/attempts/ID     root:CHILD'S GROUP 1770  what the worker has put there stays
type User struct {
	name   string
	uid    uint32
	gid    uint32
	groups []uint32 // all, gid as well
	home   string
}

// LookupUser finds a user that attempts may run as. "" gives none.
func LookupUser(name string) (*User, error) {
	if name == "" {
		return nil, nil
	}
	if uid := os.Geteuid(); uid != 0 {
		return nil, fmt.Errorf("attempts as user %s: the worker has to run as root for that, and runs as user %d: start it as root, or without --task-user", name, uid)
	}
	found, err := osuser.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("attempts as user %s: there is none of that name on this machine: make it (useradd --system --no-create-home --shell /usr/sbin/nologin %[1]s), or start the worker without --task-user", name)
	}
	u := &User{name: name, home: cmp.Or(found.HomeDir, "/")}
	ids, err := found.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("attempts as user %s: its groups: %w", name, err)
	}
	for i, text := range append([]string{found.Uid, found.Gid}, ids...) {
		id, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("attempts as user %s: id %q: %w", name, text, err)
		}
		switch i {
		case 0:
			u.uid = uint32(id)
		case 1:
			u.gid = uint32(id)
		}
		if i > 0 && !slices.Contains(u.groups, uint32(id)) {
			u.groups = append(u.groups, uint32(id))
		}
	}
	if u.uid == 0 {
		return nil, fmt.Errorf("attempts as user %s: it is root, whom the node's secrets are open to: name another user", name)
	}
	if slices.Contains(u.groups, 0) {
		return nil, fmt.Errorf("attempts as user %s: it is in group 0, root's: take it out, or name another user", name)
	}
	return u, nil
}

// ID is the user's id; without a user this process's own.
func (u *User) ID() int {
	if u == nil {
		return os.Geteuid()
	}
	return int(u.uid)
}

// credential is what a child of the group gid starts with.
func (u *User) credential(gid uint32) *syscall.Credential {
	if u == nil {
		return nil
	}
	return &syscall.Credential{Uid: u.uid, Gid: gid, Groups: u.groups}
}

// Passage has a folder of the node's be passed through by attempts, and no more. Without a user it takes back what it has given
// in a former life.
func (u *User) Passage(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	const passage = 0o710
	if u == nil {
		if info.Mode().Perm() == passage {
			return os.Chmod(dir, 0o700)
		}
		return nil
	}
	return u.put(dir, info, u.gid, passage)
}

// Show has the files in a folder of an attempt's directory, which are the worker's, be read by whoever gets into that directory.
func (u *User) Show(dir string) error {
	info, err := os.Stat(dir)
	if err != nil || u == nil {
		return err
	}
	return u.put(dir, info, u.gid, 0o750|fs.ModeSetgid)
}

// give makes an attempt's directory the group's: it may put in, change and remove what is its own.
func (u *User) give(dir string, gid uint32) error {
	if u == nil || dir == "" {
		return nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	return u.put(dir, info, gid, 0o770|fs.ModeSticky)
}

func (u *User) put(dir string, info fs.FileInfo, gid uint32, mode fs.FileMode) error {
	const all = fs.ModePerm | fs.ModeSticky | fs.ModeSetgid
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid == 0 && st.Gid == gid && info.Mode()&all == mode {
		return nil
	}
	if err := os.Chown(dir, 0, int(gid)); err != nil {
		return err
	}
	return os.Chmod(dir, mode)
}

// Own makes all that is in a folder the user's, but for what other folders have, too, by a link. No attempt may have the
// folder yet.
func (u *User) Own(dir string) error {
	if u == nil {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && !d.IsDir() && st.Nlink > 1 {
			return nil
		}
		return os.Lchown(path, int(u.uid), int(u.gid))
	})
}

// checkUser says what keeps children from running as the user, as far as that is to be seen before one is started.
func (p *Pool) checkUser() error {
	if p.cfg.User == nil {
		return nil
	}
	if err := p.cfg.User.separable(p.ids.gids); err != nil {
		return err
	}
	executable := p.cfg.Executable
	if p.self {
		executable = ownImage
	}
	return p.cfg.User.readable(executable)
}

// separable says what keeps attempts from being told apart by these groups.
func (u *User) separable(by gids) error {
	gidMap, err := os.ReadFile("/proc/self/gid_map")
	if err != nil {
		return err
	}
	if !by.mapped(gidMap) {
		return fmt.Errorf("attempts as user %s: in this container's user namespace there are no groups from %d on to tell attempts apart by: start the worker without --task-user", u.name, by.first)
	}
	return nil
}

// explain says why a child could not be started as the user, where that is plain from the modes of files.
func (u *User) explain(err error, dir, executable string, own bool) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("start as user %s: %w: the worker needs the capabilities to change users and groups (CAP_SETUID, CAP_SETGID)", u.name, err)
	case !errors.Is(err, unix.EACCES):
		return err
	}
	if at := u.barred(dir); at != "" {
		return fmt.Errorf("user %s cannot get to %s, where attempts run: %s is closed to it: open that (chmod o+x), or keep the node in another folder (--dir)", u.name, dir, at)
	}
	if at := u.barred(filepath.Dir(executable)); at != "" && !own {
		return fmt.Errorf("user %s cannot start %s: %s is closed to it: put the program elsewhere (/usr/local/bin)", u.name, executable, at)
	}
	return err
}

// readable says whether the user may read and start the executable, by its mode.
func (u *User) readable(executable string) error {
	info, err := os.Stat(executable)
	if err != nil {
		return err
	}
	if !u.may(info, 0o5) {
		return fmt.Errorf("user %s may not read and start %s (mode %v), which attempts run in: chmod a+rx it", u.name, executable, info.Mode())
	}
	return nil
}

// barred is the first of the folders on the way to dir that the user cannot pass through, with its mode; "" = none.
func (u *User) barred(dir string) string {
	for _, d := range above(dir) {
		if info, err := os.Stat(d); err == nil && !u.may(info, 0o1) {
			return fmt.Sprintf("%s (%v)", d, info.Mode())
		}
	}
	return ""
}

// above lists the folders on the way to dir, from the root on.
func above(dir string) (list []string) {
	for ; ; dir = filepath.Dir(dir) {
		list = append(list, dir)
		if dir == filepath.Dir(dir) {
			slices.Reverse(list)
			return list
		}
	}
}

// may says whether the mode of a file lets the user do what (bits of rwx).
func (u *User) may(info fs.FileInfo, what fs.FileMode) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return true
	}
	mode := info.Mode().Perm()
	switch {
	case st.Uid == u.uid:
		mode >>= 6
	case slices.Contains(u.groups, st.Gid):
		mode >>= 3
	}
	return mode&what == what
}
