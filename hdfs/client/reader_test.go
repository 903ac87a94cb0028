package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"millrace/hdfs"
	"millrace/hdfs/client"
	"millrace/hdfs/client/clienttest"
)

const block = hdfs.MinBlockSize

func random(n int) []byte {
	data := make([]byte, n)
	r := rand.NewChaCha8([32]byte{})
	r.Read(data)
	return data
}

func files(t testing.TB, c *clienttest.Cluster) *client.Files {
	t.Helper()
	f, err := client.New(client.Config{Names: c, Blocks: c})
	require.NoError(t, err)
	return f
}

func write(t testing.TB, f *client.Files, path string, data []byte) hdfs.Info {
	t.Helper()
	w, err := f.Create(t.Context(), hdfs.Create{Path: path, BlockSize: block, Overwrite: true})
	require.NoError(t, err)
	_, err = w.Write(data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return w.Info()
}

func open(t testing.TB, f *client.Files, path string) *client.Reader {
	t.Helper()
	r, err := f.Open(t.Context(), path)
	require.NoError(t, err)
	t.Cleanup(func() { r.Close() })
	return r
}

// A reader is a bytes.Reader over the file, however it is used and whatever nodes do, as long as one of them is well.
func TestReaderIsTheFile(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := clienttest.New()
		f := files(t, c)
		data := random(rapid.OneOf(rapid.IntRange(0, 5*block), rapid.SampledFrom([]int{0, 1, block - 1, block, block + 1, 3 * block})).Draw(rt, "size"))
		write(t, f, "/f", data)
		faulty := rapid.IntRange(0, 1<<30).Draw(rt, "faults")
		c.Reads = func(node string, b hdfs.Block, offset int64) *clienttest.Fault {
			r := rand.New(rand.NewPCG(uint64(faulty), uint64(b.ID)<<32+uint64(offset)))
			if well := fmt.Sprintf("i-%d", 1+r.IntN(3)); node == well || faulty%4 == 0 {
				return nil
			}
			causes := []error{hdfs.ErrCorrupt, io.ErrUnexpectedEOF, io.EOF, hdfs.ErrStale}
			return &clienttest.Fault{After: r.Int64N(block), Err: causes[r.IntN(len(causes))]}
		}
		same(rt, open(t, f, "/f"), bytes.NewReader(data))
	})
}

// same uses both in the same way, and finds no difference.
func same(rt *rapid.T, r *client.Reader, twin *bytes.Reader) {
	size := twin.Size()
	alike := func(what string, got, want any, err, wantErr error) {
		require.Equal(rt, want, got, what)
		if wantErr == io.EOF {
			require.Equal(rt, io.EOF, err, what)
			return
		}
		require.Equal(rt, wantErr == nil, err == nil, "%s: %v, %v", what, err, wantErr)
	}
	rt.Repeat(map[string]func(*rapid.T){
		"read": func(rt *rapid.T) {
			n := rapid.IntRange(0, 2*block).Draw(rt, "n")
			got, want := make([]byte, n), make([]byte, n)
			k, err := io.ReadFull(r, got)
			k2, err2 := io.ReadFull(twin, want)
			alike("read", got[:k], want[:k2], err, err2)
		},
		"read at": func(rt *rapid.T) {
			n, at := rapid.IntRange(0, 2*block).Draw(rt, "n"), rapid.Int64Range(-1, size+2).Draw(rt, "at")
			got, want := make([]byte, n), make([]byte, n)
			k, err := r.ReadAt(got, at)
			k2, err2 := twin.ReadAt(want, at)
			alike("read at", got[:k], want[:k2], err, err2)
		},
		"seek": func(rt *rapid.T) {
			to, whence := rapid.Int64Range(-size-1, size+2).Draw(rt, "to"), rapid.IntRange(0, 3).Draw(rt, "whence")
			at, err := r.Seek(to, whence)
			at2, err2 := twin.Seek(to, whence)
			alike("seek", at, at2, err, err2)
		},
		"the rest": func(rt *rapid.T) {
			var got, want bytes.Buffer
			n, err := r.WriteTo(&got)
			n2, err2 := twin.WriteTo(&want)
			alike("the rest", n, n2, err, err2)
			alike("the rest", got.Bytes(), want.Bytes(), nil, nil)
		},
	})
}

// reads has a cluster whose one file is read whole under faults.
func reads(t *testing.T, data []byte, fault func(node string, b hdfs.Block, offset int64) *clienttest.Fault) (*clienttest.Cluster, []byte, error) {
	c := clienttest.New()
	f := files(t, c)
	write(t, f, "/dir/f", data)
	c.Reads = fault
	r := open(t, f, "/dir/f")
	got, err := io.ReadAll(r)
	require.NoError(t, r.Close())
	return c, got, err
}

func TestReaderGoesOnWithAnotherReplica(t *testing.T) {
	data := random(3*block + 17)
	for name, fault := range map[string]*clienttest.Fault{
		"refused":           {Err: errors.New("connection refused")},
		"dies in mid-chunk": {After: 1000, Err: io.ErrUnexpectedEOF},
		"ends too early":    {After: 1000, Err: io.EOF},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, got, err := reads(t, data, func(node string, _ hdfs.Block, _ int64) *clienttest.Fault {
					if node == "i-1" {
						return fault
					}
					return nil
				})
				require.NoError(t, err)
				require.True(t, bytes.Equal(data, got))
				require.Empty(t, c.Reports(), "the replica may be good")
			})
		})
	}
}

func TestReaderReportsBadReplicasOnce(t *testing.T) {
	for _, cause := range []error{hdfs.ErrCorrupt, hdfs.ErrStale, hdfs.ErrNoBlock} {
		c, got, err := reads(t, random(2*block), func(node string, b hdfs.Block, _ int64) *clienttest.Fault {
			if node == "i-1" && b.ID == 1 {
				return &clienttest.Fault{After: 100, Err: fmt.Errorf("at byte 100: %w", cause)}
			}
			return nil
		})
		require.NoError(t, err)
		require.Len(t, got, 2*block)
		require.Equal(t, []clienttest.Report{{Block: hdfs.Block{ID: 1, Stamp: 1, Size: block}, Node: "i-1", Reason: "at byte 100: " + cause.Error()}}, c.Reports())
	}
}

func TestReaderAsksAFailedNodeLast(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	_, _, err := reads(t, random(3*block), func(node string, _ hdfs.Block, _ int64) *clienttest.Fault {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, node)
		if node == "i-1" {
			return &clienttest.Fault{Err: io.ErrUnexpectedEOF}
		}
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, []string{"i-1", "i-2", "i-2", "i-2"}, asked)
}

func TestReaderWaitsForReplicasThatComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		data := random(2 * block)
		_, got, err := reads(t, data, func(string, hdfs.Block, int64) *clienttest.Fault {
			if time.Since(start) < 20*time.Second {
				return &clienttest.Fault{Err: errors.New("connection refused")}
			}
			return nil
		})
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, got))
	})
}

func TestReaderFindsReplicasThatHaveMoved(t *testing.T) {
	c := clienttest.New("i-1")
	f := files(t, c)
	data := random(3 * block)
	write(t, f, "/f", data)
	r := open(t, f, "/f")
	c.Place("i-9")
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
}

func TestReaderNamesEveryNodeWhenNothingIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		_, got, err := reads(t, random(2*block), func(node string, b hdfs.Block, _ int64) *clienttest.Fault {
			switch {
			case b.ID == 1:
				return nil
			case node == "i-2":
				return &clienttest.Fault{Err: hdfs.ErrCorrupt}
			}
			return &clienttest.Fault{Err: errors.New("connection refused by " + node)}
		})
		require.ErrorIs(t, err, hdfs.ErrNoReplica)
		require.NotErrorIs(t, err, hdfs.ErrLost, "nodes may come back")
		require.EqualError(t, err, "read hdfs:///dir/f: block b-0000000000000002 at offset 65536: no replica can be read: "+
			"node i-1: connection refused by i-1; node i-2: damaged; node i-3: connection refused by i-3")
		require.Len(t, got, block, "what could be read")
		require.LessOrEqual(t, time.Since(start), 31*time.Second)
	})
}

func TestReaderOfABlockThatNobodyHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clienttest.New()
		f := files(t, c)
		write(t, f, "/f", random(10))
		c.Place()
		_, err := io.ReadAll(open(t, f, "/f"))
		require.ErrorIs(t, err, hdfs.ErrNoReplica)
		require.NotErrorIs(t, err, hdfs.ErrLost, "this master does not say whether one may have it that is away")
		require.ErrorContains(t, err, "no node is known to have one")
	})
}

// A block of which every replica is damaged or gone, and of which no node is waited for, is lost: a reader asks the leader twice more
// where it lies, and says so.
func TestReaderOfALostBlockDoesNotWait(t *testing.T) {
	lost := func(node string, _ hdfs.Block, _ int64) *clienttest.Fault {
		return &clienttest.Fault{Err: map[string]error{"i-1": hdfs.ErrCorrupt, "i-2": hdfs.ErrNoBlock, "i-3": hdfs.ErrStale}[node]}
	}
	synctest.Test(t, func(t *testing.T) {
		start, asked := time.Now(), 0
		c := clienttest.New()
		f := files(t, c)
		write(t, f, "/f", random(10))
		c.Settled, c.Reads = true, lost
		r := open(t, f, "/f")
		c.Asked = func(op string) error {
			if op == "Locate" {
				asked++
			}
			return nil
		}
		_, err := io.ReadAll(r)
		require.ErrorIs(t, err, hdfs.ErrLost)
		require.ErrorIs(t, err, hdfs.ErrNoReplica)
		require.EqualError(t, err, "read hdfs:///f: block b-0000000000000001 at offset 0: no good replica: node i-1: damaged; node i-2: gone; node i-3: stale")
		require.Equal(t, 2, asked)
		require.Less(t, time.Since(start), time.Second)
		require.NoError(t, r.Close())
		require.Len(t, c.Reports(), 3)

		named, err := client.New(client.Config{Names: c, Blocks: c, Cluster: "ch"})
		require.NoError(t, err)
		_, err = io.ReadAll(open(t, named, "/f"))
		require.ErrorContains(t, err, "read hdfs://ch/f: block b-0000000000000001 at offset 0: no good replica", "as its user calls the cluster")
	})
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		c := clienttest.New()
		f := files(t, c)
		data := random(10)
		write(t, f, "/f", data)
		c.Settled, c.Away, c.Reads = true, []string{"core-4"}, lost
		_, err := io.ReadAll(open(t, f, "/f"))
		require.NotErrorIs(t, err, hdfs.ErrLost)
		require.ErrorIs(t, err, hdfs.ErrNoReplica)
		require.ErrorContains(t, err, "; node core-4 may have one, is away, and was waited for")
		require.Greater(t, time.Since(start), 20*time.Second)

		time.AfterFunc(5*time.Second, func() { c.Place("i-4") })
		c.Away = nil
		c.Reads = func(node string, b hdfs.Block, offset int64) *clienttest.Fault {
			if node == "i-4" {
				return nil
			}
			return &clienttest.Fault{Err: errors.New("connection refused")}
		}
		got, err := io.ReadAll(open(t, f, "/f"))
		require.NoError(t, err, "a node that does not answer may yet")
		require.Equal(t, data, got)
	})
}

func TestReaderPrefersItsOwnNode(t *testing.T) {
	c := clienttest.New()
	write(t, files(t, c), "/f", random(10))
	f, err := client.New(client.Config{Names: c, Blocks: c, Node: "i-3"})
	require.NoError(t, err)
	var asked []string
	c.Reads = func(node string, _ hdfs.Block, _ int64) *clienttest.Fault {
		asked = append(asked, node)
		if len(asked) > 1 {
			return &clienttest.Fault{Err: hdfs.ErrCorrupt}
		}
		return nil
	}
	_, err = io.ReadAll(open(t, f, "/f"))
	require.NoError(t, err)
	require.Equal(t, []string{"i-3"}, asked)
}

// A reader has one version of a file, whatever becomes of its path.
func TestReaderKeepsItsFile(t *testing.T) {
	long := random(40 * block) // more than is asked for at once
	for name, change := range map[string]func(f *client.Files) error{
		"renamed": func(f *client.Files) error { return f.Rename(t.Context(), "/f", "/g") },
		"renamed, and another one in its place": func(f *client.Files) error {
			err := f.Rename(t.Context(), "/f", "/g")
			write(t, f, "/f", []byte("another"))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := clienttest.New()
			f := files(t, c)
			write(t, f, "/f", long)
			r := open(t, f, "/f")
			_, err := io.ReadFull(r, make([]byte, block/2))
			require.NoError(t, err)
			require.NoError(t, change(f))
			rest, err := io.ReadAll(r)
			require.NoError(t, err)
			require.True(t, bytes.Equal(long[block/2:], rest))
		})
	}
	for name, change := range map[string]func(f *client.Files){
		"deleted":     func(f *client.Files) { require.NoError(t, f.Remove(t.Context(), "/f", false, true)) },
		"overwritten": func(f *client.Files) { write(t, f, "/f", []byte("another")) },
	} {
		t.Run(name, func(t *testing.T) {
			c := clienttest.New()
			f := files(t, c)
			write(t, f, "/f", long)
			r := open(t, f, "/f")
			change(f)
			c.Place() // its blocks are deleted, too
			_, err := io.ReadAll(r)
			require.ErrorIs(t, err, hdfs.ErrNotExist)
			require.ErrorContains(t, err, "hdfs:///f")
			require.ErrorContains(t, err, "deleted or replaced while it was being read")
		})
	}
}

func TestReaderAtFromManyAtOnce(t *testing.T) {
	c := clienttest.New()
	f := files(t, c)
	data := random(8 * block)
	write(t, f, "/f", data)
	c.Reads = func(node string, b hdfs.Block, offset int64) *clienttest.Fault {
		if node == "i-1" && b.ID%2 == 0 {
			return &clienttest.Fault{After: 10, Err: hdfs.ErrCorrupt}
		}
		return nil
	}
	r := open(t, f, "/f")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			got := make([]byte, block+100)
			for at := int64(i * 1000); at+int64(len(got)) < int64(len(data)); at += block {
				if _, err := r.ReadAt(got, at); err != nil || !bytes.Equal(got, data[at:at+int64(len(got))]) {
					t.Errorf("at %d: %v", at, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestReaderThatIsOver(t *testing.T) {
	f := files(t, clienttest.New())
	write(t, f, "/f", random(100))

	r := open(t, f, "/f")
	require.NoError(t, r.Close())
	require.NoError(t, r.Close())
	for name, use := range map[string]func() error{
		"read":     func() error { _, err := r.Read(make([]byte, 1)); return err },
		"read at":  func() error { _, err := r.ReadAt(make([]byte, 1), 0); return err },
		"seek":     func() error { _, err := r.Seek(0, 0); return err },
		"write to": func() error { _, err := r.WriteTo(io.Discard); return err },
	} {
		require.ErrorIs(t, use(), fs.ErrClosed, name)
	}

	ctx, cancel := context.WithCancel(t.Context())
	r, err := f.Open(ctx, "/f")
	require.NoError(t, err)
	defer r.Close()
	cancel()
	_, err = io.ReadAll(r)
	require.ErrorIs(t, err, context.Canceled)
	_, err = r.WriteTo(io.Discard)
	require.ErrorIs(t, err, context.Canceled)
}

func TestOpenRefuses(t *testing.T) {
	f := files(t, clienttest.New())
	require.NoError(t, f.Mkdir(t.Context(), "/dir"))
	write(t, f, "/f", nil)
	for path, want := range map[string]error{"/dir": hdfs.ErrIsDir, "/no": hdfs.ErrNotExist, "/f/x": hdfs.ErrNotDir, "x": hdfs.ErrInvalid, "/../x": hdfs.ErrInvalid} {
		_, err := f.Open(t.Context(), path)
		require.ErrorIs(t, err, want, path)
		require.ErrorContains(t, err, path)
	}
}

// A writer that stops in the middle of a read-ahead gets its own error, and all that was started ends.
func TestReaderIntoAWriterThatFails(t *testing.T) {
	f := files(t, clienttest.New())
	write(t, f, "/f", random(20*block))
	full := errors.New("disk full")
	n, err := open(t, f, "/f").WriteTo(writerFunc(func(p []byte) (int, error) { return 7, full }))
	require.ErrorIs(t, err, full)
	require.EqualValues(t, 7, n)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func BenchmarkSequentialRead(b *testing.B) {
	_, overNodes := startWired(b)
	for where, f := range map[string]*client.Files{"memory": files(b, clienttest.New()), "datanodes": overNodes} {
		w, err := f.Create(b.Context(), hdfs.Create{Path: "/f", BlockSize: 16 << 20})
		require.NoError(b, err)
		_, err = w.Write(random(64 << 20))
		require.NoError(b, err)
		require.NoError(b, w.Close())
		for name, read := range map[string]func(r *client.Reader) error{
			"read":     func(r *client.Reader) error { _, err := io.Copy(io.Discard, onlyReader{r}); return err },
			"write to": func(r *client.Reader) error { _, err := io.Copy(io.Discard, r); return err },
		} {
			b.Run(where+"/"+name, func(b *testing.B) {
				b.SetBytes(64 << 20)
				b.ReportAllocs()
				for b.Loop() {
					r := open(b, f, "/f")
					require.NoError(b, read(r))
					require.NoError(b, r.Close())
				}
			})
		}
	}
}

type onlyReader struct{ io.Reader }
