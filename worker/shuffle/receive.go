package shuffle

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
)

// errRefused says that a pushed segment is not what its sender says it is.
var errRefused = errors.New("refused")

// castagnoli is made once: tables are read-only.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// receive takes in a pushed segment: size bytes of r, whose CRC32C sum gives once
// they have been read. Nothing is kept unless all of it is right.
func (s *Store) receive(job, attempt string, r io.Reader, size int64, digest uint64, sum func() (uint32, error)) (err error) {
	if _, ok := MapOf(job, attempt); !ok {
		return fmt.Errorf("%w: %s is no map's attempt of job %s", errRefused, attempt, job)
	}
	s.mu.Lock()
	s.serial++
	path := filepath.Join(s.dir, incoming, attempt+"."+strconv.Itoa(s.serial))
	s.mu.Unlock()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("receive segment: %w", err)
	}
	defer func() {
		if err != nil {
			os.Remove(path)
		}
	}()
	h := crc32.New(castagnoli())
	n, err := io.Copy(io.MultiWriter(f, h), io.LimitReader(r, size+1))
	if cerr := f.Close(); err == nil && cerr != nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("receive segment: %w", err)
	}
	if n != size {
		return fmt.Errorf("%w: segment of %s has %d bytes, not the %d announced", errRefused, attempt, n, size)
	}
	want, err := sum()
	if err != nil || want != h.Sum32() {
		return fmt.Errorf("%w: segment of %s does not match its checksum", errRefused, attempt)
	}
	x, _, err := readIndex(path)
	if err != nil {
		return fmt.Errorf("%w: segment of %s: %w", errRefused, attempt, err)
	}
	if x.Digest() != digest {
		return fmt.Errorf("%w: segment of %s has another digest than announced", errRefused, attempt)
	}
	_, err = s.Adopt(job, attempt, path)
	return err
}
