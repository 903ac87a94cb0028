// Package programs keeps what jobs ship (programs, files) on a node's disk, by
// SHA-256: fetched once, verified, and linked into the directories of attempts.
package programs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// keepUnused is how long a file that nobody asks for stays.
const keepUnused = 7 * 24 * time.Hour

// Source is where shipped files lie; objectstore.Store is one.
type Source interface {
	Get(ctx context.Context, bucket, key string, offset, length int64, ifMatch string) (io.ReadCloser, error)
}

// Cache is the files on this node. Safe for concurrent use.
type Cache struct {
	dir string

	mu      sync.Mutex
	fetches map[string]*fetch
	sound   map[string]time.Time // verified: the file's time of change then, by sum
}

type fetch struct {
	done  chan struct{}
	err   error
	ended bool // by the end of who asked: no fault of the file's
}

// New keeps files in dir.
func New(dir string) *Cache {
	return &Cache{dir: dir, fetches: map[string]*fetch{}, sound: map[string]time.Time{}}
}

// Open removes what was not finished, and what has not been used for a week.
func (c *Cache) Open() error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return fmt.Errorf("programs: %w", err)
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return fmt.Errorf("programs: %w", err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && validSum(e.Name()) && time.Since(info.ModTime()) < keepUnused {
			continue
		}
		if err := os.RemoveAll(filepath.Join(c.dir, e.Name())); err != nil {
			return fmt.Errorf("programs: %w", err)
		}
	}
	return nil
}

// Get gives the path of a file, which must not be changed; it is fetched from below
// prefix (…/programs/SHA256) if it is not here. Who asks at the same time shares one fetch.
func (c *Cache) Get(ctx context.Context, from Source, prefix objectstore.URL, f *api.ShippedFile) (string, error) {
	if !validSum(f.Sha256) {
		return "", fmt.Errorf("shipped file %s: %q is no SHA-256", f.Name, f.Sha256)
	}
	path := filepath.Join(c.dir, f.Sha256)
	for {
		if c.has(path, f) {
			return path, nil
		}
		c.mu.Lock()
		running := c.fetches[f.Sha256]
		if running == nil {
			break
		}
		c.mu.Unlock()
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-running.done:
		}
		if running.err != nil && !running.ended {
			return "", running.err
		} // ended by another's end: our turn
	}
	mine := &fetch{done: make(chan struct{})}
	c.fetches[f.Sha256] = mine
	c.mu.Unlock()
	mine.err = c.fetch(ctx, from, prefix, f, path)
	mine.ended = mine.err != nil && ctx.Err() != nil // the error is whatever cause the end has
	c.mu.Lock()
	delete(c.fetches, f.Sha256)
	if st, err := os.Stat(path); err == nil && mine.err == nil {
		c.sound[f.Sha256] = st.ModTime()
	}
	c.mu.Unlock()
	close(mine.done)
	return path, mine.err
}

// has says whether the file is here, whole. Attempts run as the node's own user and have
// links to it: what has been written to since it was last read is read again.
func (c *Cache) has(path string, f *api.ShippedFile) bool {
	st, err := os.Stat(path)
	if err != nil || st.Size() != f.Size {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock() // two who ask for it at once read it once
	if at, ok := c.sound[f.Sha256]; !ok || !at.Equal(st.ModTime()) {
		if sum, err := sumOf(path); err != nil || sum != f.Sha256 {
			delete(c.sound, f.Sha256)
			return false // fetched again, it takes this one's place
		}
	}
	c.sound[f.Sha256] = st.ModTime()
	if now := time.Now().Truncate(time.Second); now.After(st.ModTime()) && os.Chtimes(path, now, now) == nil {
		c.sound[f.Sha256] = now // Open's patience depends on it
	}
	return true
}

func sumOf(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func (c *Cache) fetch(ctx context.Context, from Source, prefix objectstore.URL, f *api.ShippedFile, path string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("fetch %s (sha256 %s): %w", f.Name, f.Sha256, err)
		}
	}()
	body, err := from.Get(ctx, prefix.Bucket, prefix.Key+"programs/"+f.Sha256, 0, -1, "")
	if err != nil {
		return err
	}
	defer body.Close()
	if err := os.MkdirAll(c.dir, 0o700); err != nil { // somebody may have removed it
		return err
	}
	out, err := os.CreateTemp(c.dir, ".incoming")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, sum), io.LimitReader(body, f.Size+1))
	if err == nil {
		err = out.Chmod(0o555) // one file serves all uses; it is nobody's to write
	}
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); n != f.Size || got != f.Sha256 {
		return fmt.Errorf("the object store gave something else, %d bytes with sha256 %s, for the %d bytes that were shipped", n, got, f.Size)
	}
	return os.Rename(out.Name(), path)
}

// Place puts a cached file under its name into dir: an executable as a link to the
// cached one, which no writer has open; anything else as a copy that the attempt may change.
func Place(cached, dir string, f *api.ShippedFile) error {
	if !filepath.IsLocal(f.Name) {
		return fmt.Errorf("shipped file %q: the name leads out of the attempt's directory", f.Name)
	}
	to := filepath.Join(dir, f.Name)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return fmt.Errorf("shipped file %s: %w", f.Name, err)
	}
	if f.Executable {
		if err := os.Link(cached, to); err == nil || errors.Is(err, os.ErrExist) {
			return nil
		}
	}
	return copyFile(cached, to, f)
}

func copyFile(from, to string, f *api.ShippedFile) error {
	mode := os.FileMode(0o600)
	if f.Executable {
		mode = 0o700
	}
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("shipped file %s: %w", f.Name, err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return fmt.Errorf("shipped file %s: %w", f.Name, err)
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("shipped file %s: %w", f.Name, err)
	}
	return nil
}

func validSum(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size && hex.EncodeToString(b) == s
}
