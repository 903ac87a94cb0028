package files

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
)

// kinds gives an empty folder of each kind of place.
func kinds(t *testing.T) (*Files, map[string]Place) {
	s3 := objectstore.NewMemory()
	require.NoError(t, s3.MakeBucket(t.Context(), "bkt"))
	c := newFakeCluster(t)
	store := func() (objectstore.Store, error) { return s3, nil }
	return &Files{Store: store, Cluster: func(string) (Cluster, error) { return c, nil }}, map[string]Place{
		"local": {Path: t.TempDir()}, "s3": {Bucket: "bkt", Path: "dir"}, "hdfs": {Bucket: objectstore.HDFS, Path: "dir"},
	}
}

func (f *Files) put(t *testing.T, folder Place, name, data string) Place {
	t.Helper()
	p, err := folder.join(name)
	require.NoError(t, err)
	require.NoError(t, f.Write(t.Context(), p, strings.NewReader(data), int64(len(data))))
	return p
}

func (f *Files) get(t *testing.T, p Place) string {
	t.Helper()
	r, err := f.Open(t.Context(), p)
	require.NoError(t, err)
	defer r.Close()
	data, err := io.ReadAll(r)
	require.NoError(t, err)
	return string(data)
}

// below lists what lies in a folder by its names, those of folders with a slash.
func (f *Files) below(t *testing.T, folder Place, recursive bool) (names []string) {
	t.Helper()
	for e, err := range f.List(t.Context(), folder, recursive) {
		require.NoError(t, err)
		name := strings.Trim(strings.TrimPrefix(e.Place.Path, folder.Path), "/")
		if e.Dir {
			name += "/"
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Local files, objects and files of a cluster are one to who works on places.
func TestEveryKindOfPlace(t *testing.T) {
	for kind := range map[string]bool{"local": true, "s3": true, "hdfs": true} {
		t.Run(kind, func(t *testing.T) {
			f, folders := kinds(t)
			folder := folders[kind]
			for name, data := range map[string]string{
				"empty": "", "one": "1", "sub/two parts": strings.Repeat("0123456789abcde\n", firstPart/16) + "and more", "sub/deeper/ü~%41": "x", "sub-x": "y",
			} {
				p := f.put(t, folder, name, data)
				require.Equal(t, data, f.get(t, p), name)
				e, err := f.Stat(t.Context(), p)
				require.NoError(t, err)
				require.False(t, e.Dir)
				require.EqualValues(t, len(data), e.Size)
				require.False(t, e.ModifiedAt.IsZero())
			}
			require.Equal(t, []string{"empty", "one", "sub-x", "sub/"}, f.below(t, folder, false))
			require.Equal(t, []string{"empty", "one", "sub-x", "sub/deeper/ü~%41", "sub/two parts"}, f.below(t, folder, true))
			sub, err := folder.join("sub")
			require.NoError(t, err)
			e, err := f.Stat(t.Context(), sub)
			require.NoError(t, err)
			require.True(t, e.Dir)
			_, err = f.Remove(t.Context(), sub, false)
			require.ErrorAs(t, err, new(*FolderError))

			one := f.put(t, folder, "one", "written again")
			require.Equal(t, "written again", f.get(t, one))
			_, files, err := f.Usage(t.Context(), folder)
			require.NoError(t, err)
			require.EqualValues(t, 5, files)

			n, err := f.Remove(t.Context(), sub, true)
			require.NoError(t, err)
			require.Equal(t, 2, n)
			require.NotContains(t, f.below(t, folder, true), "sub/two parts")
			no, err := folder.join("no")
			require.NoError(t, err)
			_, err = f.Open(t.Context(), no)
			require.ErrorAs(t, err, new(*NotFoundError))
			_, err = f.Stat(t.Context(), no)
			require.ErrorAs(t, err, new(*NotFoundError))
		})
	}
}

// What cannot be written whole is not there at all, and what was there before still is.
func TestEveryKindOfPlaceKeepsNothingHalf(t *testing.T) {
	broken := errors.New("the pipe broke")
	for kind := range map[string]bool{"local": true, "s3": true, "hdfs": true} {
		for _, size := range []int{100, firstPart + 100} {
			t.Run(fmt.Sprint(kind, size), func(t *testing.T) {
				f, folders := kinds(t)
				f.put(t, folders[kind], "old", "old")
				for _, name := range []string{"old", "new"} {
					p, err := folders[kind].join(name)
					require.NoError(t, err)
					err = f.Write(t.Context(), p, io.MultiReader(bytes.NewReader(make([]byte, size)), iotest.ErrReader(broken)), -1)
					require.ErrorIs(t, err, broken)
				}
				require.Equal(t, []string{"old"}, f.below(t, folders[kind], true))
				old, err := folders[kind].join("old")
				require.NoError(t, err)
				require.Equal(t, "old", f.get(t, old))
			})
		}
	}
}

// A tree goes from any kind of place to any other.
func TestCopiesBetweenAllKindsOfPlaces(t *testing.T) {
	tree := map[string]string{"a": "1", "b/c": strings.Repeat("x", firstPart+1), "b-d": "", "b/e/f": "3"}
	for from := range map[string]bool{"local": true, "s3": true, "hdfs": true} {
		for to := range map[string]bool{"local": true, "s3": true, "hdfs": true} {
			t.Run(from+" to "+to, func(t *testing.T) {
				f, folders := kinds(t)
				source, target := folders[from], folders[to]
				if from == to {
					source, _ = source.join("source")
					target, _ = target.join("target")
				}
				for name, data := range tree {
					f.put(t, source, name, data)
				}
				tasks, err := f.Plan(t.Context(), []Place{source}, target, true)
				require.NoError(t, err)
				require.NoError(t, f.Copy(t.Context(), tasks, nil))
				require.Equal(t, []string{"a", "b-d", "b/c", "b/e/f"}, f.below(t, target, true))
				for name, data := range tree {
					p, err := target.join(name)
					require.NoError(t, err)
					require.Equal(t, data, f.get(t, p))
				}
			})
		}
	}
}

// What is a file has nothing below it, and is none with a slash behind its name, whatever one does with it.
func TestAFileIsNoFolder(t *testing.T) {
	for kind := range map[string]bool{"local": true, "hdfs": true} {
		f, folders := kinds(t)
		file := f.put(t, folders[kind], "file", "x")
		slash, below := file, file
		slash.Path += "/"
		below.Path += "/a/b"
		ask := map[string]func(Place) error{
			"stat": func(p Place) error { _, err := f.Stat(t.Context(), p); return err },
			"open": func(p Place) error { _, err := f.Open(t.Context(), p); return err },
			"list": func(p Place) error {
				for _, err := range f.List(t.Context(), p, false) {
					return err
				}
				return nil
			},
			"usage":  func(p Place) error { _, _, err := f.Usage(t.Context(), p); return err },
			"remove": func(p Place) error { _, err := f.Remove(t.Context(), p, true); return err },
			"copy":   func(p Place) error { _, err := f.Plan(t.Context(), []Place{p}, folders["s3"], true); return err },
			"to":     func(p Place) error { _, err := f.Plan(t.Context(), []Place{file}, p, true); return err },
		}
		ask["write"] = func(p Place) error { return f.Write(t.Context(), p, strings.NewReader("y"), 1) }
		if kind == "hdfs" {
			ask["mkdir"] = func(p Place) error { return f.Mkdir(t.Context(), p) }
			ask["move"] = func(p Place) error { _, err := f.Rename(t.Context(), p, folders[kind]); return err }
		}
		for what, ask := range ask {
			if what != "to" && what != "write" { // there a slash means a folder to copy into
				require.EqualError(t, ask(slash), file.String()+" is a file, not a folder", "%s %s", kind, what)
			}
			require.EqualError(t, ask(below), below.String()+" lies below "+file.String()+", which is a file", "%s %s", kind, what)
		}
		require.Equal(t, "x", f.get(t, file))
	}
}

func TestACopyNamesEachPlaceOnce(t *testing.T) {
	task := Task{From: Place{Path: "a"}, To: Place{Bucket: "bkt", Path: "b"}}
	for said, want := range map[string]string{
		"the pipe broke":                          "copy a to s3://bkt/b: the pipe broke",
		"open a: permission denied":               "copy to s3://bkt/b: open a: permission denied",
		"put s3://bkt/b: access denied":           "copy a: put s3://bkt/b: access denied",
		"put s3://bkt/bb: access denied":          "copy a to s3://bkt/b: put s3://bkt/bb: access denied",
		"a would be copied onto s3://bkt/b":       "a would be copied onto s3://bkt/b",
		"s3://bkt/b.c, s3://bkt/b: no such thing": "copy a: s3://bkt/b.c, s3://bkt/b: no such thing",
	} {
		require.EqualError(t, task.about(errors.New(said)), want)
	}
}

// Folders that hold nothing are copied where there are such, and a move leaves none behind.
func TestEmptyFoldersGoAlong(t *testing.T) {
	for from := range map[string]bool{"local": true, "hdfs": true} {
		for to := range map[string]bool{"local": true, "s3": true, "hdfs": true} {
			t.Run(from+" to "+to, func(t *testing.T) {
				f, folders := kinds(t)
				source, err := folders[from].join("source")
				require.NoError(t, err)
				f.put(t, source, "a/b", "x")
				for _, name := range []string{"a/none", "none/at/all"} {
					at, err := source.join(name)
					require.NoError(t, err)
					require.NoError(t, f.makeFolder(t.Context(), at))
				}
				target, err := folders[to].join("target")
				require.NoError(t, err)
				tasks, err := f.Plan(t.Context(), []Place{source}, target, true)
				require.NoError(t, err)
				require.NoError(t, f.Copy(t.Context(), tasks, nil))
				want := []string{"a/b", "a/none/", "none/at/all/"}
				if to == "s3" {
					want = want[:1]
				}
				require.Equal(t, want, f.below(t, target, true))

				empty, err := source.join("none/at")
				require.NoError(t, err)
				_, err = f.Remove(t.Context(), empty, true)
				require.NoError(t, err)
				require.NoError(t, f.RemoveEmpty(t.Context(), source))
				require.Equal(t, []string{"a/b"}, f.below(t, source, true), "what holds something stays")
				b, err := source.join("a/b")
				require.NoError(t, err)
				_, err = f.Remove(t.Context(), b, false)
				require.NoError(t, err)
				require.NoError(t, f.RemoveEmpty(t.Context(), source))
				_, err = f.Stat(t.Context(), source)
				require.ErrorAs(t, err, new(*NotFoundError))
			})
		}
	}
}

func TestAnEmptyFolderIsCopiedItself(t *testing.T) {
	f, folders := kinds(t)
	source, err := folders["hdfs"].join("empty")
	require.NoError(t, err)
	require.NoError(t, f.Mkdir(t.Context(), source))
	target, err := folders["local"].join("new")
	require.NoError(t, err)
	tasks, err := f.Plan(t.Context(), []Place{source}, target, true)
	require.NoError(t, err)
	require.NoError(t, f.Copy(t.Context(), tasks, nil))
	e, err := f.Stat(t.Context(), target)
	require.NoError(t, err)
	require.True(t, e.Dir)
}
