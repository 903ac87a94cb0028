package site

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A machine's disk, where it has one of its own: small, so that it is soon full.
const diskOptions = "size=640m,nr_inodes=20000"

// makeDisk makes the folder that is a machine's disk: a file system of its own if that can be.
func makeDisk(path string, private bool) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	if !private {
		return nil
	}
	if err := unix.Mount("tmpfs", path, "tmpfs", 0, diskOptions); err != nil {
		return fmt.Errorf("mount %s: %w", path, err)
	}
	return nil
}

// fill leaves no byte free on a machine's disk.
func (n *node) fill() (func() error, error) {
	path := filepath.Join(n.disk, "filler")
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for block := make([]byte, 1<<20); ; {
		if _, err := f.Write(block); err == nil {
			continue
		} else if !errors.Is(err, syscall.ENOSPC) {
			return nil, errors.Join(fmt.Errorf("fill the disk of %s: %w", n.name, err), os.Remove(path))
		}
		return func() error { return os.Remove(path) }, nil
	}
}

// fillInodes leaves no file to be made on a machine's disk.
func (n *node) fillInodes() (func() error, error) {
	dir := filepath.Join(n.disk, "fillers")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	heal := func() error { return os.RemoveAll(dir) }
	for i := 0; ; i++ {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
		if err == nil {
			err = f.Close()
		}
		if errors.Is(err, syscall.ENOSPC) {
			return heal, nil
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("fill the disk of %s: %w", n.name, err), heal())
		}
	}
}

// wipe removes a worker's folder, or the named one in it.
func (n *node) wipe(name string) (what string, err error) {
	err = os.RemoveAll(filepath.Join(n.data(), name))
	if errors.Is(err, syscall.ENOTEMPTY) { // something was made in it meanwhile
		err = nil
	}
	return "'s folder " + filepath.Join("data", name), err
}

// damage spoils a few of the segments on a machine.
func (n *node) damage(roll uint64) (what string, err error) {
	segments, err := filepath.Glob(filepath.Join(n.data(), "segments", "*", "*.seg"))
	if err != nil {
		return "", err
	}
	if len(segments) == 0 {
		return "", fmt.Errorf("%w: %s has no segments", ErrNothing, n.name)
	}
	r := rand.New(rand.NewPCG(roll, 0))
	for range 1 + r.IntN(3) {
		path := segments[r.IntN(len(segments))]
		how, err := spoil(path, r)
		if errors.Is(err, os.ErrNotExist) {
			continue // its job has ended
		}
		if err != nil {
			return "", fmt.Errorf("damage %s: %w", path, err)
		}
		what += fmt.Sprintf(", %s %s", filepath.Base(path), how)
	}
	return what, nil
}

// spoil flips a bit of a file, or cuts it short, or removes it.
func spoil(path string, r *rand.Rand) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	switch choice := r.IntN(4); {
	case choice == 0:
		return "removed", os.Remove(path)
	case choice == 1 || info.Size() == 0:
		return "cut short", os.Truncate(path, info.Size()/2)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	at := r.Int64N(info.Size())
	var one [1]byte
	if _, err := f.ReadAt(one[:], at); err != nil {
		return "", err
	}
	one[0] ^= 1 << r.IntN(8)
	_, err = f.WriteAt(one[:], at)
	return fmt.Sprintf("flipped at %d", at), err
}

// Tidy removes all but the logs, once the site is closed.
func (s *Site) Tidy() error {
	var errs []error
	for _, n := range s.nodes {
		if s.conf.Private {
			errs = append(errs, unix.Unmount(n.disk, unix.MNT_DETACH))
		}
		errs = append(errs, os.RemoveAll(n.disk))
	}
	tokens, err := filepath.Glob(filepath.Join(s.conf.Dir, "token-*"))
	errs = append(errs, err, os.RemoveAll(s.store.disk), os.RemoveAll(s.home))
	for _, file := range tokens {
		errs = append(errs, os.Remove(file))
	}
	return errors.Join(errs...)
}

// Leftovers are what lies and runs on the machines of what has ended: segments, folders of attempts, processes. Each slot may have a
// process that waits for the next attempt.
func (s *Site) Leftovers() (left []string, err error) {
	for _, n := range s.nodes {
		for _, pattern := range []string{"segments/*/*", "attempts/[^.]*"} {
			found, err := filepath.Glob(filepath.Join(n.data(), pattern))
			if err != nil {
				return nil, err
			}
			for _, path := range found {
				left = append(left, n.name+": "+path[len(n.data())+1:])
			}
		}
		if !s.conf.Private {
			continue
		}
		pids, err := s.net.pids(n.name)
		if err != nil {
			return nil, err
		}
		waiting := 0
		for _, pid := range slices.DeleteFunc(pids, n.is) {
			line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if err != nil {
				continue // it has ended
			}
			command := strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))
			if command == s.conf.Binary+" attempt" && waiting < slots {
				waiting++
				continue
			}
			left = append(left, fmt.Sprintf("%s: process %d: %s", n.name, pid, command))
		}
	}
	return left, nil
}
