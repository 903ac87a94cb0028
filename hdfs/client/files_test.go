package client_test

import (
	"context"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
	"millrace/hdfs/client"
	"millrace/hdfs/client/clienttest"
)

func TestFilesNeedTheirParts(t *testing.T) {
	_, err := client.New(client.Config{})
	require.Error(t, err)
}

func TestFilesWithoutALeaderForAWhile(t *testing.T) {
	ops := map[string]func(*testing.T, *client.Files) error{
		"stat":   func(t *testing.T, f *client.Files) error { return second(f.Stat(t.Context(), "/f")) },
		"list":   func(t *testing.T, f *client.Files) error { return listed(t.Context(), f, "/") },
		"usage":  func(t *testing.T, f *client.Files) error { return second(f.Usage(t.Context(), "/")) },
		"open":   func(t *testing.T, f *client.Files) error { return second(f.Open(t.Context(), "/f")) },
		"mkdir":  func(t *testing.T, f *client.Files) error { return f.Mkdir(t.Context(), "/d/e") },
		"rename": func(t *testing.T, f *client.Files) error { return f.Rename(t.Context(), "/f", "/g") },
		"remove": func(t *testing.T, f *client.Files) error { return f.Remove(t.Context(), "/f", false, false) },
		"set":    func(t *testing.T, f *client.Files) error { return f.SetReplication(t.Context(), "/f", 2) },
		"create": func(t *testing.T, f *client.Files) error {
			w, err := f.Create(t.Context(), hdfs.Create{Path: "/new"})
			if err != nil {
				return err
			}
			return w.Close()
		},
	}
	for name, op := range ops {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := clienttest.New()
				f := files(t, c)
				write(t, f, "/f", []byte("x"))
				start := time.Now()
				away := func(string) error {
					if time.Since(start) < 10*time.Second {
						return fmt.Errorf("no leader: %w", hdfs.ErrUnavailable)
					}
					return nil
				}
				c.Asked = away
				require.NoError(t, op(t, f))
				require.GreaterOrEqual(t, time.Since(start), 10*time.Second)
			})
			t.Run("for ever", func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := clienttest.New()
					c.Asked = func(string) error { return hdfs.ErrUnavailable }
					start := time.Now()
					require.ErrorIs(t, op(t, files(t, c)), hdfs.ErrUnavailable)
					require.LessOrEqual(t, time.Since(start), 30*time.Second)
				})
			})
			t.Run("with an answer that is lost", func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := clienttest.New()
					f := files(t, c)
					write(t, f, "/f", []byte("x"))
					var once sync.Once
					c.Lost = func(asked string) (err error) {
						if asked != "Stat" { // before a Rename
							once.Do(func() { err = hdfs.ErrUnavailable })
						}
						return err
					}
					require.NoError(t, op(t, f), "it is done, and that is what matters")
				})
			})
		})
	}
}

func listed(ctx context.Context, f *client.Files, path string) error {
	for _, err := range f.List(ctx, path, "") {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestFilesNameTheirPath(t *testing.T) {
	f := files(t, clienttest.New())
	_, err := f.Stat(t.Context(), "/no//where/")
	require.EqualError(t, err, "stat hdfs:///no/where: file does not exist")
	require.ErrorContains(t, f.Mkdir(t.Context(), "relative"), `mkdir: path "relative": invalid argument: it must begin with /`)
	require.ErrorIs(t, f.Rename(t.Context(), "/no", "also relative"), hdfs.ErrInvalid)
}

func TestWalk(t *testing.T) {
	c := clienttest.New()
	f := files(t, c)
	for _, p := range []string{"/d/a", "/d/b/1", "/d/b/2", "/d/b-x", "/d/z", "/e"} {
		write(t, f, p, []byte(p))
	}
	walk := func(path string, seen func(hdfs.Info)) (all []string) {
		for info, err := range f.Walk(t.Context(), path) {
			require.NoError(t, err)
			all = append(all, info.Path)
			seen(info)
		}
		return all
	}
	none := func(hdfs.Info) {}
	require.Equal(t, []string{"/d", "/d/a", "/d/b", "/d/b/1", "/d/b/2", "/d/b-x", "/d/z"}, walk("/d", none))
	require.Equal(t, []string{"/e"}, walk("/e", none))
	require.Equal(t, []string{"/d", "/d/a", "/d/b", "/d/b-x", "/d/z"}, walk("/d", func(info hdfs.Info) {
		if info.Path == "/d/b" {
			require.NoError(t, f.Remove(t.Context(), "/d/b", true, true), "while it is walked")
		}
	}))
	for _, err := range f.Walk(t.Context(), "/no") {
		require.ErrorIs(t, err, hdfs.ErrNotExist)
	}
}

func TestAWriterIsTheOnlyOneOfItsPath(t *testing.T) {
	c := clienttest.New()
	f := files(t, c)
	first, err := f.Create(t.Context(), hdfs.Create{Path: "/f"})
	require.NoError(t, err)
	_, err = f.Create(t.Context(), hdfs.Create{Path: "/f"})
	require.ErrorIs(t, err, hdfs.ErrBusy)
	_, err = f.Stat(t.Context(), "/f")
	require.ErrorIs(t, err, hdfs.ErrNotExist, "unfinished")

	_, err = io.WriteString(first, "one")
	require.NoError(t, err)
	require.NoError(t, first.Close())
	_, err = f.Create(t.Context(), hdfs.Create{Path: "/f"})
	require.ErrorIs(t, err, hdfs.ErrExist)
	again, err := f.Create(t.Context(), hdfs.Create{Path: "/f", Overwrite: true})
	require.NoError(t, err)
	require.NoError(t, again.Abort())
	got, err := io.ReadAll(open(t, f, "/f"))
	require.NoError(t, err)
	require.Equal(t, "one", string(got))
	require.Zero(t, c.Unfinished())
}
