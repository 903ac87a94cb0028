package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/record"
)

var errDisk = errors.New("no space left on device")

// faultyDisk is a disk in memory whose n-th operation fails, and every later one too if it stays broken.
type faultyDisk struct {
	fail    int
	forever bool
	ops     int
	made    int
	opened  int
	files   map[string]*bytes.Buffer
	removes int // that failed
}

func (d *faultyDisk) op() error {
	d.ops++
	if d.ops == d.fail || d.forever && d.ops > d.fail {
		return errDisk
	}
	return nil
}

type faultyFile struct {
	disk *faultyDisk
	name string
	data *bytes.Buffer
}

func (d *faultyDisk) create(dir string) (file, error) {
	if err := d.op(); err != nil {
		return nil, err
	}
	d.made++
	name := filepath.Join(dir, fmt.Sprint("spill-", d.made))
	d.files[name] = new(bytes.Buffer)
	d.opened++
	return &faultyFile{d, name, d.files[name]}, nil
}

func (d *faultyDisk) open(path string) (file, error) {
	if err := d.op(); err != nil {
		return nil, err
	}
	b := d.files[path]
	if b == nil {
		return nil, os.ErrNotExist
	}
	d.opened++
	return &faultyFile{d, path, b}, nil
}

func (d *faultyDisk) remove(path string) error {
	if err := d.op(); err != nil {
		d.removes++
		return err
	}
	if d.files[path] == nil {
		return os.ErrNotExist
	}
	delete(d.files, path)
	return nil
}

func (f *faultyFile) Name() string { return f.name }

func (f *faultyFile) Write(p []byte) (int, error) {
	if err := f.disk.op(); err != nil {
		n, _ := f.data.Write(p[:len(p)/2])
		return n, err
	}
	return f.data.Write(p)
}

func (f *faultyFile) ReadAt(p []byte, at int64) (int, error) {
	if err := f.disk.op(); err != nil {
		return 0, err
	}
	return bytes.NewReader(f.data.Bytes()).ReadAt(p, at)
}

func (f *faultyFile) Close() error {
	f.disk.opened--
	return f.disk.op()
}

// everyFault runs f with each of its disk operations failing in turn, until none fails any more.
func everyFault(t *testing.T, f func(d disk) error) {
	t.Helper()
	for _, forever := range []bool{false, true} {
		for n := 1; ; n++ {
			d := &faultyDisk{fail: n, forever: forever, files: map[string]*bytes.Buffer{}}
			err := f(d)
			require.Zero(t, d.opened, "operation %d", n)
			require.LessOrEqual(t, len(d.files), d.removes, "operation %d: only what cannot be removed is left", n)
			if d.ops < n {
				require.NoError(t, err)
				require.Greater(t, n, 40, "that was too easy")
				break
			}
			require.ErrorIs(t, err, errDisk, "operation %d", n)
		}
	}
}

func TestCollectorTellsEveryDiskFault(t *testing.T) {
	join := func(key []byte, values *Values, emit EmitFunc) error {
		n := 0
		for _, ok := values.Next(); ok; _, ok = values.Next() {
			n++
		}
		return emit(key, fmt.Appendf(nil, "%d", n))
	}
	for name, config := range map[string]Config{
		"sort": {}, "fold": {Fold: addFold}, "combine": {Combine: join},
	} {
		t.Run(name, func(t *testing.T) {
			everyFault(t, func(d disk) (err error) {
				config.Partitions, config.Memory, config.disk = 2, 1<<10, d
				c, err := NewCollector(config)
				require.NoError(t, err)
				defer func() { err = errors.Join(err, c.Close()) }()
				for i := range 150 {
					if err := c.Collect(i%2, fmt.Appendf(nil, "key %03d", i), make([]byte, 8)); err != nil {
						require.Error(t, c.Collect(0, nil, nil), "the error stays")
						return err
					}
				}
				_, err = c.Finish(context.Background(), io.Discard)
				return err
			})
		})
	}
}

func TestMergeTellsEveryDiskFault(t *testing.T) {
	parts := make([][]rec, 12)
	for i := range parts {
		for j := range 10 {
			parts[i] = append(parts[i], rec{0, fmt.Appendf(nil, "key %d", j), fmt.Appendf(nil, "%d", i)})
		}
	}
	everyFault(t, func(d disk) error {
		open, most := 0, 0
		defer func() { require.Zero(t, open) }()
		m, err := Merge(context.Background(), makeRuns(parts, nil, &open, &most), MergeConfig{FanIn: 3, disk: d})
		if err != nil {
			return err
		}
		_, err = readRun(m)
		return errors.Join(err, m.Close())
	})
}

func TestErrorsNameThePath(t *testing.T) {
	notADir := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(notADir, nil, 0o600))
	c, err := NewCollector(Config{Partitions: 1, Memory: 1 << 10, Dir: notADir})
	require.NoError(t, err)
	require.ErrorContains(t, c.Collect(0, nil, make([]byte, 2000)), notADir)
	require.NoError(t, c.Close())

	dir := filepath.Join(t.TempDir(), "made", "when", "needed")
	c, err = NewCollector(Config{Partitions: 1, Memory: 1 << 10, Dir: dir})
	require.NoError(t, err)
	require.NoError(t, c.Collect(0, nil, make([]byte, 2000)))
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	data, err := os.ReadFile(files[0])
	require.NoError(t, err)
	data[40] ^= 1
	require.NoError(t, os.WriteFile(files[0], data, 0o600))
	_, err = c.Finish(context.Background(), io.Discard)
	require.ErrorIs(t, err, record.ErrCorrupt)
	require.ErrorContains(t, err, files[0])
	require.NoError(t, c.Close())
	requireEmpty(t, dir)
}

func TestAFullDiskUnderTheOutput(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	c, err := NewCollector(Config{Partitions: 1})
	require.NoError(t, err)
	require.NoError(t, c.Collect(0, []byte("k"), []byte("v")))
	_, err = c.Finish(context.Background(), full)
	require.ErrorContains(t, err, "/dev/full")
	require.NoError(t, c.Close())
}
