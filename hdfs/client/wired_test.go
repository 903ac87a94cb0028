package client_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
	"millrace/hdfs/blockstore"
	"millrace/hdfs/client"
	"millrace/hdfs/client/clienttest"
	"millrace/hdfs/datanode"
)

// wired is real datanodes, with disks and sockets, under a name space in memory.
type wired struct {
	*clienttest.Cluster
	servers map[string]*httptest.Server
	dirs    map[string]string
}

func (w *wired) Client(node string) (*http.Client, error) {
	if s := w.servers[node]; s != nil {
		return s.Client(), nil
	}
	return nil, fmt.Errorf("there is no node %s", node)
}

func startWired(t testing.TB) (*wired, *client.Files) {
	ids := []string{"i-1", "i-2", "i-3"}
	w := &wired{clienttest.New(ids...), map[string]*httptest.Server{}, map[string]string{}}
	w.Address = func(node string) string { return w.servers[node].URL }
	for _, id := range ids {
		w.dirs[id] = t.TempDir()
		store, err := blockstore.Open(blockstore.Config{Dirs: []string{w.dirs[id]}, Cluster: "j-TEST"})
		require.NoError(t, err)
		node, err := datanode.New(datanode.Config{Node: id, Store: datanode.Blocks(store), Dialer: w})
		require.NoError(t, err)
		mux := http.NewServeMux()
		node.Register(mux)
		w.servers[id] = httptest.NewServer(mux)
		ctx, cancel := context.WithCancel(context.Background())
		var run sync.WaitGroup
		run.Go(func() { node.Run(ctx) })
		t.Cleanup(func() {
			cancel()
			run.Wait()
			w.servers[id].Close()
			require.NoError(t, store.Close())
		})
	}
	f, err := client.New(client.Config{Names: w, Dialer: w})
	require.NoError(t, err)
	return w, f
}

func TestStoreOverDatanodes(t *testing.T) {
	clienttest.RunStore(t, func(t *testing.T) *client.Files {
		_, f := startWired(t)
		return f
	})
}

// Of each block one replica is whole, the others are damaged on their disks: the reader gives the file all the same, and
// tells of those that it met.
func TestReaderOverDamagedDisks(t *testing.T) {
	w, f := startWired(t)
	const blocks = 20
	data := random(blocks*block + 5)
	write(t, f, "/f", data)
	for n, id := range []string{"i-1", "i-2", "i-3"} {
		replicas := largeFiles(t, w.dirs[id])
		require.Len(t, replicas, blocks)
		for i, path := range replicas {
			if i%3 != n {
				require.NoError(t, flip(path, int64(i*1000)))
			}
		}
	}
	r := open(t, f, "/f")
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	require.NoError(t, r.Close())
	require.NotEmpty(t, w.Reports())
	for _, report := range w.Reports() {
		require.Contains(t, report.Reason, hdfs.ErrCorrupt.Error())
	}
}

// Of a block all of whose replicas are damaged on their disks, in different ways, a reader says so at once.
func TestReaderOverDisksThatHaveNothingGood(t *testing.T) {
	w, f := startWired(t)
	write(t, f, "/f", random(block))
	w.Settled = true
	path := func(node string) string { return largeFiles(t, w.dirs[node])[0] }
	require.NoError(t, flip(path("i-1"), 100))
	require.NoError(t, os.Truncate(path("i-2"), 1000))
	require.NoError(t, os.Remove(path("i-3")))
	r := open(t, f, "/f")
	_, err := io.ReadAll(r)
	require.ErrorIs(t, err, hdfs.ErrLost)
	for _, node := range []string{"i-1", "i-2", "i-3"} {
		require.Equal(t, 1, strings.Count(err.Error(), "node "+node+": damaged"), "%v", err)
	}
	require.NoError(t, r.Close())
	require.Len(t, w.Reports(), 3)
}

// largeFiles lists the files of whole blocks below a folder by their names, which begin with the block's.
func largeFiles(t *testing.T, dir string) (paths []string) {
	require.NoError(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		st, err := e.Info()
		if err == nil && st.Size() >= block {
			paths = append(paths, path)
		}
		return err
	}))
	slices.SortFunc(paths, func(a, b string) int { return strings.Compare(filepath.Base(a), filepath.Base(b)) })
	return paths
}

// flip changes one bit of a file.
func flip(path string, at int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		return err
	}
	b[0] ^= 1
	_, err = f.WriteAt(b, at)
	return err
}
