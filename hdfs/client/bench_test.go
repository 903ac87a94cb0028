package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"millrace/hdfs"
	"millrace/hdfs/wire"
)

// benchBytes is what each round writes or reads: two blocks.
const benchBytes = 256 << 20

// BenchmarkWrite writes files of two blocks with 1, 2 and 3 replicas, all on this machine's one disk, beside the same
// bytes written to as many bare files, which are synced too.
func BenchmarkWrite(b *testing.B) {
	data := content(1, 1<<20)
	for n := 1; n <= 3; n++ {
		b.Run(fmt.Sprintf("bare-%d", n), func(b *testing.B) {
			dir := b.TempDir()
			b.SetBytes(benchBytes)
			for b.Loop() {
				var files []*os.File
				for i := range n {
					f, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
					require.NoError(b, err)
					files = append(files, f)
				}
				for range benchBytes / len(data) {
					for _, f := range files {
						_, err := f.Write(data)
						require.NoError(b, err)
					}
				}
				for _, f := range files {
					require.NoError(b, f.Sync())
					require.NoError(b, f.Close())
				}
			}
		})
		for _, tls := range []bool{false, true} {
			b.Run(fmt.Sprintf("replicas-%d/TLS-%v", n, tls), func(b *testing.B) {
				c := makeCluster(b, b, n, tls, true)
				defer c.close()
				c.timing = wire.Timing{}
				b.SetBytes(benchBytes)
				for b.Loop() {
					w := c.benchFile(data)
					b.StopTimer()
					c.forget(w)
					b.StartTimer()
				}
			})
		}
	}
}

func (c *cluster) benchFile(piece []byte) *Writer {
	w := c.writer(context.Background(), func(c *WriterConfig) {
		c.Create.BlockSize, c.Window = hdfs.DefaultBlockSize, 0
	})
	for range benchBytes / len(piece) {
		_, err := w.Write(piece)
		require.NoError(c.t, err)
	}
	require.NoError(c.t, w.Close())
	return w
}

// forget deletes a file's blocks everywhere.
func (c *cluster) forget(w *Writer) {
	for _, b := range c.names.files[w.file].blocks {
		for _, n := range c.nodes {
			require.NoError(c.t, n.store.Delete(b.ID, b.Stamp))
		}
	}
}

// BenchmarkRead reads what is in memory already: from the node itself, and over a connection.
func BenchmarkRead(b *testing.B) {
	for _, tls := range []bool{false, true} {
		c := makeCluster(b, b, 1, tls, true)
		w := c.benchFile(content(1, 1<<20))
		at := c.names.located(hdfs.Block{}, []string{"i-1"}).Nodes[0]
		read := func(name string, d Dialer) {
			b.Run(name, func(b *testing.B) {
				buf := make([]byte, 256<<10)
				b.SetBytes(benchBytes)
				for b.Loop() {
					for _, block := range c.names.files[w.file].blocks {
						r, err := openReplica(context.Background(), d, at, block, 0, block.Size)
						require.NoError(b, err)
						_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, buf)
						require.NoError(b, err)
						require.NoError(b, r.Close())
					}
				}
			})
		}
		if !tls {
			read("local", local{c})
		}
		read(fmt.Sprintf("remote/TLS-%v", tls), c)
		c.close()
	}
}

// BenchmarkSmallFiles writes files of 20 KB, one at a time and eight at once.
func BenchmarkSmallFiles(b *testing.B) {
	data := content(1, 20_000)
	for _, replicas := range []int{1, 3} {
		for _, atOnce := range []int{1, 8} {
			b.Run(fmt.Sprintf("replicas-%d/at-once-%d", replicas, atOnce), func(b *testing.B) {
				c := makeCluster(b, b, replicas, true, true)
				defer c.close()
				c.timing = wire.Timing{}
				var g errgroup.Group
				g.SetLimit(atOnce)
				for b.Loop() {
					g.Go(func() error {
						w, err := NewWriter(context.Background(), c.config(func(c *WriterConfig) { c.Create.BlockSize = hdfs.BlockSizeFor(int64(len(data)), 0) }))
						if err == nil {
							_, err = w.Write(data)
						}
						return errors.Join(err, w.Close())
					})
				}
				require.NoError(b, g.Wait())
			})
		}
	}
}
