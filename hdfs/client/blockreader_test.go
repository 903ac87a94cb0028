package client

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"millrace/hdfs"
	"millrace/hdfs/datanode"
	"millrace/hdfs/wire"
)

// written writes one block to a cluster of one node, and gives it with its node.
func written(t T, c *cluster, data []byte) (hdfs.Block, hdfs.Node) {
	w := c.writer(context.Background(), func(c *WriterConfig) { c.Create.BlockSize = hdfs.DefaultBlockSize })
	_, err := w.Write(data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	f := c.names.files[w.file]
	return f.blocks[0], c.names.located(f.blocks[0], []string{"i-1"}).Nodes[0]
}

// local is a Dialer of the node itself.
type local struct{ *cluster }

func (l local) LocalReplica(node string, b hdfs.Block) (LocalReplica, bool, error) {
	if node != "i-1" {
		return nil, false, nil
	}
	r, err := datanode.Blocks(l.nodes[0].store).Open(b.ID, b.Stamp)
	return r, true, err
}

func TestAnyPieceOfAReplicaCanBeRead(t *testing.T) {
	c := newCluster(t, 1)
	defer c.close()
	for _, size := range []int{1, hdfs.ChunkSize, 3*wire.MaxData + 12345} {
		data := content(1, size)
		b, n := written(t, c, data)
		rapid.Check(t, func(t *rapid.T) {
			offset := rapid.IntRange(0, size).Draw(t, "offset")
			length := rapid.IntRange(0, size+100).Draw(t, "length")
			for _, d := range []Dialer{c, local{c}} {
				r, err := openReplica(context.Background(), d, n, b, int64(offset), int64(length))
				require.NoError(t, err)
				require.NoError(t, iotest.TestReader(r, data[offset:min(size, offset+length)]))
				require.NoError(t, r.Close())
				require.NoError(t, r.Close())
				_, err = r.Read(make([]byte, 1))
				require.Error(t, err)
			}
		})
	}
}

func TestConnectionsAreUsedAgainByReaders(t *testing.T) {
	c := newCluster(t, 1)
	defer c.close()
	b, n := written(t, c, content(1, wire.MaxData+1))
	read := func() int {
		r, err := openReplica(context.Background(), c, n, b, 0, b.Size)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, r)
		require.NoError(t, err)
		require.NoError(t, r.Close())
		c.nodes[0].mu.Lock()
		defer c.nodes[0].mu.Unlock()
		return c.nodes[0].accepts
	}
	require.Equal(t, read(), read())
}

func TestWhatCannotBeRead(t *testing.T) {
	c := newCluster(t, 1)
	defer c.close()
	b, n := written(t, c, content(1, wire.MaxData+1))
	for _, d := range []Dialer{c, local{c}} {
		for name, ask := range map[string]struct {
			b      hdfs.Block
			offset int64
			err    error
		}{
			"another block": {hdfs.Block{ID: b.ID + 1, Stamp: b.Stamp, Size: b.Size}, 0, hdfs.ErrNoBlock},
			"another stamp": {hdfs.Block{ID: b.ID, Stamp: b.Stamp + 1, Size: b.Size}, 0, hdfs.ErrStale},
			"behind it":     {b, b.Size + 1, hdfs.ErrInvalid},
		} {
			_, err := openReplica(context.Background(), d, n, ask.b, ask.offset, 10)
			require.ErrorIs(t, err, ask.err, name)
			require.ErrorContains(t, err, "from node i-1")
		}
		for _, size := range []int64{b.Size - 1, b.Size + 1, b.Size + wire.MaxData} {
			r, err := openReplica(context.Background(), d, n, hdfs.Block{ID: b.ID, Stamp: b.Stamp, Size: size}, 0, size)
			if err == nil {
				_, err = io.Copy(io.Discard, r)
				require.NoError(t, r.Close())
			}
			require.ErrorIs(t, err, hdfs.ErrCorrupt, "it has %d bytes, not %d", b.Size, size)
		}
	}
	c.nodes[0].die()
	_, err := openReplica(context.Background(), c, n, b, 0, 10)
	require.Error(t, err)
}

func TestOnlyVerifiedBytesAreGiven(t *testing.T) {
	c := newCluster(t, 1)
	defer c.close()
	data := content(1, 2*wire.MaxData)
	b, n := written(t, c, data)
	at := int64(wire.MaxData + hdfs.ChunkSize + 7)
	f, err := c.nodes[0].fs.OpenFile(find(t, c.nodes[0].fs, c.nodes[0].dir, "data"), os.O_RDWR)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{data[at] ^ 128}, at)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	for _, d := range []Dialer{c, local{c}} {
		r, err := openReplica(context.Background(), d, n, b, 0, b.Size)
		require.NoError(t, err)
		got, err := io.ReadAll(r)
		require.ErrorIs(t, err, hdfs.ErrCorrupt)
		require.ErrorContains(t, err, fmt.Sprintf("offset %d", at-7))
		require.True(t, bytes.HasPrefix(data, got))
		require.Len(t, got, wire.MaxData)
		require.NoError(t, r.Close())
		// What is not damaged can be read.
		r, err = openReplica(context.Background(), d, n, b, 2*wire.MaxData-hdfs.ChunkSize, hdfs.ChunkSize)
		require.NoError(t, err)
		got, err = io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, data[2*wire.MaxData-hdfs.ChunkSize:], got)
		require.NoError(t, r.Close())
	}
}

func TestANodeThatFallsSilentIsNotWaitedFor(t *testing.T) {
	noGoroutinesLeft(t)
	data := content(1, 4*wire.MaxData)
	b := hdfs.Block{ID: 1, Stamp: 1, Size: int64(len(data))}
	for _, packets := range []int{0, 1} {
		end := make(chan struct{})
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(wire.HeaderSize, strconv.Itoa(len(data)))
			p := wire.NewPacket()
			for i := range packets {
				p.Reset(int64(i) * wire.MaxData)
				p.Append(data[i*wire.MaxData:], wire.MaxData)
				p.Seal()
				_, _ = p.WriteTo(w)
				_ = http.NewResponseController(w).Flush()
			}
			<-end
		}))
		d := one{srv.Client()}
		r, err := open(context.Background(), d, hdfs.Node{ID: "i-1", Address: srv.URL}, b, 0, b.Size, 100*time.Millisecond)
		got := 0
		if err == nil {
			var all []byte
			all, err = io.ReadAll(r)
			got = len(all)
			require.NoError(t, r.Close())
		}
		require.ErrorContains(t, err, "nothing came for 100ms")
		require.Equal(t, packets*wire.MaxData, got)
		close(end)
		srv.Close()
		d.c.CloseIdleConnections()
	}
}

type one struct{ c *http.Client }

func (o one) Client(string) (*http.Client, error) { return o.c, nil }

func TestAReadEndsWithItsContext(t *testing.T) {
	c := newCluster(t, 1)
	defer c.close()
	b, n := written(t, c, content(1, 40*wire.MaxData))
	ctx, cancel := context.WithCancel(context.Background())
	r, err := openReplica(ctx, c, n, b, 0, b.Size)
	require.NoError(t, err)
	cancel()
	_, err = io.Copy(io.Discard, r)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, r.Close())
}
