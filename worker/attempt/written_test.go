package attempt

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
)

// place is an attempt's directory.
type place struct {
	t   *testing.T
	dir string
}

func (p place) write(size int, path ...string) string {
	file := filepath.Join(append([]string{p.dir}, path...)...)
	require.NoError(p.t, os.MkdirAll(filepath.Dir(file), 0o700))
	require.NoError(p.t, os.WriteFile(file, make([]byte, size), 0o600))
	return file
}

// takes is what the program's files take.
func (p place) takes(l *api.ChildLease, processes ...process) int64 {
	return (&ward{dir: p.dir, shipped: shipped(l)}).filesOf(processes)
}

func TestTheProgramsFiles(t *testing.T) {
	const kib, not = 1024, 1 << 20
	for name, c := range map[string]struct {
		make func(p place)
		kib  int64
	}{
		"none":              {func(p place) {}, 0},
		"files and folders": {func(p place) { p.write(8*kib, "one"); p.write(4*kib, "below", "two") }, 12},
		"hidden ones":       {func(p place) { p.write(8*kib, ".one"); p.write(4*kib, ".x", ".y", "two") }, 12},
		"those of the engine": {func(p place) {
			p.write(not, ".segment")
			p.write(not, ".spill", "x")
			p.write(not, ".shuffle", "y")
			p.write(not, ".combine", "z")
		}, 0},
		"names like the engine's":         {func(p place) { p.write(8*kib, ".segments"); p.write(4*kib, ".spill-2", "x") }, 12},
		"names of the engine's, below":    {func(p place) { p.write(8*kib, "x", ".segment"); p.write(4*kib, "x", ".spill", "y") }, 12},
		"a folder where a file should be": {func(p place) { p.write(8*kib, ".segment", "x") }, 8},
		"a file where a folder should be": {func(p place) { p.write(8*kib, ".spill") }, 8},
		"one file with three names": {func(p place) {
			one := p.write(8*kib, "one")
			require.NoError(t, os.Link(one, filepath.Join(p.dir, ".two")))
			require.NoError(t, os.Link(one, filepath.Join(p.dir, "three")))
		}, 8},
		"one with a name elsewhere":  {func(p place) { require.NoError(t, os.Link(p.write(8*kib, "one"), filepath.Join(t.TempDir(), "two"))) }, 8},
		"symbolic links, to nowhere": {func(p place) { require.NoError(t, os.Symlink("/bin/sh", filepath.Join(p.dir, "link"))) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := place{t, t.TempDir()}
			c.make(p)
			require.Equal(t, c.kib*kib, p.takes(nil))
		})
	}
	require.Zero(t, place{t, filepath.Join(t.TempDir(), "nowhere")}.takes(nil))
}

// A shipped program is a link to the node's own copy: what it has when the attempt begins is not the program's.
func TestShippedFilesAreNotTheProgramsOwn(t *testing.T) {
	p, cached := place{t, t.TempDir()}, place{t, t.TempDir()}.write(8192, "cached")
	require.NoError(t, os.Link(cached, filepath.Join(p.dir, "shipped")))
	w := &ward{dir: p.dir, shipped: shipped(&api.ChildLease{WorkDir: p.dir, Program: &api.Program{Files: []*api.ShippedFile{{Name: "shipped"}, {Name: "missing"}}}})}
	require.Zero(t, w.filesOf(nil))
	require.NoError(t, os.Remove(cached))
	require.Zero(t, w.filesOf(nil), "the node has it no more")
	p.write(8192+4096, "shipped")
	require.EqualValues(t, 4096, w.filesOf(nil), "it has been written to")
}

// A file without a name takes its room while a process has it open.
func TestDeletedFilesThatAreOpen(t *testing.T) {
	p := place{t, t.TempDir()}
	f, err := os.Open(p.write(8192, "one"))
	require.NoError(t, err)
	defer f.Close()
	holder := exec.Command("sleep", "1000")
	holder.ExtraFiles = []*os.File{f, f}
	require.NoError(t, holder.Start())
	defer func() {
		require.NoError(t, holder.Process.Kill())
		_ = holder.Wait() // it was killed
	}()
	has := process{pid: holder.Process.Pid}
	require.EqualValues(t, 8192, p.takes(nil, has), "it has its name")
	require.NoError(t, os.Remove(f.Name()))
	require.EqualValues(t, 8192, p.takes(nil, has))
	require.EqualValues(t, 8192, p.takes(nil, has, has))
	require.Zero(t, p.takes(nil), "nobody of the attempt has it")
	require.Zero(t, p.takes(nil, process{pid: 1 << 30}))
}
