// Package shuffle keeps the segments that a node's maps have written, serves
// them to reduces, pushes those of task nodes to core nodes, and fetches what a
// reduce needs, verified. It does not know who decides where a segment lies: it
// says when one cannot be had, and waits for another place.
package shuffle

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"millrace/pkg/api"
	"millrace/pkg/record"
	"millrace/pkg/shortage"
)

// ErrMissing says that a segment is not here.
var ErrMissing = errors.New("missing")

// errDamaged says that a segment's bytes are not what was written.
var errDamaged = errors.New("damaged")

const (
	suffix     = ".seg"
	incoming   = ".incoming"
	maxIndexes = 256 << 10 // partitions' entries kept in memory, 48 bytes each
)

// Store is the segments on this node's disk: DIR/JOB/ATTEMPT.seg. They are not
// fsynced: one that is lost is made again. Safe for concurrent use.
type Store struct {
	dir string

	mu      sync.Mutex
	held    map[key]int32 // to the map's index
	indexes map[key]record.Index
	entries int // in indexes
	serial  int
}

type key struct{ job, attempt string }

// NewStore keeps segments below dir.
func NewStore(dir string) *Store {
	return &Store{dir: dir, held: map[key]int32{}, indexes: map[key]record.Index{}}
}

// Open finds what a former life has kept, and removes what it had not finished. Opened again, it
// makes its folder anew if need be, and forgets what is not there any more.
func (s *Store) Open() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("segments: %w", err)
	}
	if err := os.RemoveAll(filepath.Join(s.dir, incoming)); err != nil {
		return fmt.Errorf("segments: %w", err)
	}
	if err := os.Mkdir(filepath.Join(s.dir, incoming), 0o700); err != nil {
		return fmt.Errorf("segments: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held, s.indexes, s.entries = map[key]int32{}, map[key]record.Index{}, 0
	return filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("segments: %w", err)
		}
		if d.IsDir() {
			return nil
		}
		job, attempt := filepath.Base(filepath.Dir(path)), strings.TrimSuffix(d.Name(), suffix)
		index, ok := MapOf(job, attempt)
		if !ok || !strings.HasSuffix(d.Name(), suffix) {
			return os.Remove(path)
		}
		s.held[key{job, attempt}] = index
		return nil
	})
}

// MapOf reads the map's index from the id of its attempt: JOB-m-00003-TERM-N.
func MapOf(job, attempt string) (int32, bool) {
	rest, ok := strings.CutPrefix(attempt, job+"-m-")
	if !ok || !ValidName(job) || !ValidName(attempt) {
		return 0, false
	}
	digits, _, _ := strings.Cut(rest, "-")
	n, err := strconv.ParseInt(digits, 10, 32)
	return int32(n), err == nil && n >= 0
}

// ValidName says whether an id can be a file's name: it comes from the network.
func ValidName(s string) bool {
	if s == "" || len(s) > 128 || s[0] == '.' {
		return false
	}
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.') {
			return false
		}
	}
	return true
}

func (s *Store) path(k key) string { return filepath.Join(s.dir, k.job, k.attempt+suffix) }

// Adopt takes over a segment file that an attempt has written, by renaming it.
func (s *Store) Adopt(job, attempt, path string) (record.Index, error) {
	index, ok := MapOf(job, attempt)
	if !ok {
		return record.Index{}, fmt.Errorf("segment of %s: no map's attempt of job %s", attempt, job)
	}
	x, file, err := readIndex(path)
	if err != nil {
		return record.Index{}, fmt.Errorf("segment of %s: %w", attempt, err)
	}
	k := key{job, attempt}
	if err := os.MkdirAll(filepath.Dir(s.path(k)), 0o700); err != nil {
		return record.Index{}, fmt.Errorf("segment of %s: %w", attempt, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.Rename(path, s.path(k)); err != nil {
		return record.Index{}, fmt.Errorf("segment of %s: %w", attempt, err)
	}
	if now, err := os.Lstat(s.path(k)); err != nil || !os.SameFile(now, file) {
		return record.Index{}, errors.Join(fmt.Errorf("segment of %s: another file took its place", attempt), err, os.Remove(s.path(k)))
	}
	s.held[k] = index
	s.forgetIndex(k)
	s.keepIndex(k, x)
	return x, nil
}

func readIndex(path string) (x record.Index, file fs.FileInfo, err error) {
	f, err := openSegment(path)
	if err != nil {
		return x, nil, err
	}
	defer f.Close()
	if file, err = f.Stat(); err != nil {
		return x, nil, err
	}
	x, err = record.ReadIndex(f, file.Size())
	return x, file, err
}

// openSegment opens a file that an attempt has written. It is to be one: not a link to somebody else's, which this process might be
// let into and the attempt not, nor a pipe.
func openSegment(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s is no regular file", path), err, f.Close())
	}
	return f, nil
}

// Held lists what is here.
func (s *Store) Held() []*api.HeldSegment {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*api.HeldSegment, 0, len(s.held))
	for k, m := range s.held {
		out = append(out, &api.HeldSegment{Job: k.job, Map: m, Attempt: k.attempt})
	}
	slices.SortFunc(out, func(a, b *api.HeldSegment) int { return strings.Compare(a.Attempt, b.Attempt) })
	return out
}

// Drop removes one segment; it is no error if it is not there.
func (s *Store) Drop(job, attempt string) error {
	k := key{job, attempt}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.held[k]; !ok {
		return nil
	}
	delete(s.held, k)
	s.forgetIndex(k)
	if err := os.Remove(s.path(k)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("drop segment: %w", err)
	}
	return nil
}

// Forget removes all segments of a job.
func (s *Store) Forget(job string) error {
	if !ValidName(job) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.held {
		if k.job == job {
			delete(s.held, k)
			s.forgetIndex(k)
		}
	}
	if err := os.RemoveAll(filepath.Join(s.dir, job)); err != nil {
		return fmt.Errorf("forget job %s: %w", job, err)
	}
	return nil
}

// part is one partition of one segment, open for reading.
type part struct {
	*os.File
	record.PartitionIndex
	digest uint64
}

// open gives a partition: ErrMissing if the segment is not here, errDamaged if its
// index cannot be believed, another error if this node cannot open files at the moment.
func (s *Store) open(job, attempt string, partition int) (*part, error) {
	k := key{job, attempt}
	s.mu.Lock()
	_, ok := s.held[k]
	x, cached := s.indexes[k]
	s.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("%w: no segment of %s here", ErrMissing, attempt)
	}
	f, err := os.Open(s.path(k))
	if shortage.Of(err) == shortage.Descriptors {
		return nil, fmt.Errorf("segment of %s: %w", attempt, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMissing, err)
	}
	p := &part{File: f}
	st, err := f.Stat()
	if err == nil && !cached {
		if x, err = record.ReadIndex(f, st.Size()); err == nil {
			s.mu.Lock()
			if _, still := s.held[k]; still {
				s.keepIndex(k, x)
			}
			s.mu.Unlock()
		}
	}
	if err == nil && (partition < 0 || partition >= len(x.Partitions)) {
		err = fmt.Errorf("no partition %d of %d", partition, len(x.Partitions))
	}
	if err == nil {
		p.PartitionIndex, p.digest = x.Partitions[partition], x.Digest()
		if p.Offset+p.Length > st.Size() {
			err = io.ErrUnexpectedEOF
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: segment of %s: %w", errDamaged, attempt, err)
	}
	return p, nil
}

// keepIndex and forgetIndex are called with mu held.
func (s *Store) keepIndex(k key, x record.Index) {
	if _, there := s.indexes[k]; there || len(x.Partitions) > maxIndexes {
		return
	}
	for old := range s.indexes { // whichever comes first: reading one again is cheap
		if s.entries+len(x.Partitions) <= maxIndexes {
			break
		}
		s.forgetIndex(old)
	}
	s.indexes[k] = x
	s.entries += len(x.Partitions)
}

func (s *Store) forgetIndex(k key) {
	s.entries -= len(s.indexes[k].Partitions)
	delete(s.indexes, k)
}

// Locate gives a partition in place, after reading all of it to verify it.
func (s *Store) Locate(job, attempt string, partition int) (*api.ChildSegment, error) {
	p, err := s.open(job, attempt, partition)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	v := record.NewPartitionVerifier(partition)
	if _, err := io.Copy(v, io.NewSectionReader(p, p.Offset, p.Length)); err != nil {
		return nil, fmt.Errorf("%w: segment of %s: %w", errDamaged, attempt, err)
	}
	if err := checkEnd(v, p.Records); err != nil {
		return nil, fmt.Errorf("%w: segment of %s: %w", errDamaged, attempt, err)
	}
	index, _ := MapOf(job, attempt)
	return &api.ChildSegment{Map: index, MapAttempt: attempt, Path: p.Name(), Offset: p.Offset, Length: p.Length,
		Ledger: ledger(p.Ledger), Digest: p.digest}, nil
}

// checkEnd says whether a partition has ended where it should.
func checkEnd(v *record.Verifier, records int64) error {
	if err := v.Close(); err != nil {
		return err
	}
	if v.Records() != records {
		return fmt.Errorf("%w: %d records of %d", record.ErrCorrupt, v.Records(), records)
	}
	return nil
}

func ledger(l record.Ledger) *api.Ledger {
	return &api.Ledger{Records: l.Records, Bytes: l.Bytes, Checksum: l.Checksum}
}
