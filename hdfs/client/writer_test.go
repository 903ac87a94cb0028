package client

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"millrace/hdfs"
	"millrace/hdfs/wire"
)

func TestWhatIsWrittenIsOnAllNodes(t *testing.T) {
	for _, tls := range []bool{false, true} {
		for nodes := 1; nodes <= 3; nodes++ {
			t.Run(fmt.Sprintf("%d nodes, TLS %v", nodes, tls), func(t *testing.T) {
				noGoroutinesLeft(t)
				c := makeCluster(t, t, nodes, tls, nodes == 3 && tls)
				defer c.close()
				block := 4 * wire.MaxData
				for _, size := range []int{0, 1, block - 1, block, block + 1, 2 * block, 2*block + wire.MaxData, 3*block - 12345} {
					data := content(uint64(size), size)
					w := c.writer(context.Background())
					n, err := w.Write(data)
					require.NoError(t, err)
					require.Equal(t, size, n)
					require.NoError(t, w.Close())
					require.NoError(t, w.Close(), "again")
					require.NoError(t, w.Abort(), "too late")
					_, err = w.Write(data)
					require.ErrorIs(t, err, errClosed)
					c.holds(w, data, nodes)
				}
			})
		}
	}
}

func TestSmallWritesAndCopies(t *testing.T) {
	c := newCluster(t, 2)
	defer c.close()
	data := content(1, 2*wire.MaxData+5)
	w := c.writer(context.Background())
	for at := 0; at < len(data); at += 1000 {
		_, err := w.Write(data[at:min(len(data), at+1000)])
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	c.holds(w, data, 2)

	w = c.writer(context.Background())
	n, err := io.Copy(w, struct{ io.Reader }{bytes.NewReader(data)})
	require.NoError(t, err)
	require.EqualValues(t, len(data), n)
	require.NoError(t, w.Close())
	c.holds(w, data, 2)
}

func TestAnAnswerThatGetsLostIsAskedForAgain(t *testing.T) {
	for _, after := range []bool{false, true} {
		for _, op := range []string{"create", "add", "restamp", "complete"} {
			t.Run(fmt.Sprintf("%s, lost after it was done: %v", op, after), func(t *testing.T) {
				c := newCluster(t, 2)
				defer c.close()
				left := 3
				c.names.fault = func(asked string, then bool) error {
					if asked == op && then == after && left > 0 {
						left--
						return fmt.Errorf("%w: no leader", hdfs.ErrUnavailable)
					}
					return nil
				}
				faults()["is full"](c.nodes[0])
				data := content(1, size)
				w := c.writer(context.Background())
				_, err := w.Write(data)
				require.NoError(t, err)
				require.NoError(t, w.Close())
				require.Zero(t, left)
				c.holds(w, data, 1)
				require.Len(t, c.names.files, 1)
			})
		}
	}
}

func TestWithoutALeaderForTooLong(t *testing.T) {
	c := newCluster(t, 1)
	defer c.close()
	gone := false
	c.names.fault = func(op string, _ bool) error {
		if gone && op != "abandon" {
			return fmt.Errorf("%w: no leader", hdfs.ErrUnavailable)
		}
		return nil
	}
	w := c.writer(context.Background(), func(c *WriterConfig) { c.Patience = 100 * time.Millisecond })
	c.names.mu.Lock()
	gone = true
	c.names.mu.Unlock()
	_, err := w.Write(content(1, 10))
	require.NoError(t, err)
	err = w.Close()
	require.ErrorIs(t, err, hdfs.ErrUnavailable)
	require.ErrorContains(t, err, "add a block: not available now: no leader")
	require.True(t, c.names.files[w.file].abandoned)
	_, err = NewWriter(context.Background(), c.config(func(c *WriterConfig) { c.Patience = 100 * time.Millisecond }))
	require.ErrorIs(t, err, hdfs.ErrUnavailable)
}

func TestALeaseThatIsOver(t *testing.T) {
	c := newCluster(t, 1)
	defer c.close()
	w := c.writer(context.Background(), func(c *WriterConfig) { c.RenewEvery = time.Millisecond })
	c.names.mu.Lock()
	c.names.over = true
	c.names.mu.Unlock()
	<-w.ended
	_, err := w.Write([]byte("x"))
	require.ErrorIs(t, err, hdfs.ErrLease)
	require.ErrorIs(t, w.Close(), hdfs.ErrLease)
	require.ErrorIs(t, w.Abort(), hdfs.ErrLease)
}

// lateAnswer completes files, after which there is no lease any more, and says so only when that was heard of twice.
type lateAnswer struct {
	*names
	renewals chan struct{}
}

func (l *lateAnswer) Complete(ctx context.Context, id hdfs.FileID, lease string, last *hdfs.Block) (hdfs.Info, error) {
	info, err := l.names.Complete(ctx, id, lease, last)
	l.mu.Lock()
	l.over = true
	l.mu.Unlock()
	for range 2 {
		select {
		case l.renewals <- struct{}{}:
		case <-ctx.Done():
			return info, ctx.Err()
		}
	}
	return info, err
}

func (l *lateAnswer) Renew(ctx context.Context, leases []string) ([]string, error) {
	over, err := l.names.Renew(ctx, leases)
	if len(over) > 0 {
		select {
		case <-l.renewals:
		default:
		}
	}
	return over, err
}

func TestAFileThatIsCompleteHasNoLeaseToLose(t *testing.T) {
	c := newCluster(t, 1)
	defer c.close()
	w := c.writer(context.Background(), func(wc *WriterConfig) {
		wc.Names, wc.RenewEvery = &lateAnswer{c.names, make(chan struct{})}, time.Millisecond
	})
	_, err := w.Write([]byte("x"))
	require.NoError(t, err)
	require.NoError(t, w.Close())
}

func TestAnUploadHasNoLeaseToRenew(t *testing.T) {
	c := newCluster(t, 1)
	defer c.close()
	c.names.over = true
	w := c.writer(context.Background(), func(c *WriterConfig) {
		c.RenewEvery = time.Microsecond
		c.Create.Group, c.Create.Task = "s-1", "r-0"
	})
	data := content(1, size)
	_, err := w.Write(data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	c.holds(w, data, 1)
	require.Zero(t, c.names.count("renew"))
}

func TestAbandonedFiles(t *testing.T) {
	for name, end := range map[string]func(*Writer, context.CancelFunc) error{
		"aborted":      func(w *Writer, _ context.CancelFunc) error { require.NoError(t, w.Abort()); return errAborted },
		"context over": func(w *Writer, cancel context.CancelFunc) error { cancel(); return context.Canceled },
	} {
		for _, size := range []int{0, 5, size} {
			t.Run(fmt.Sprintf("%s after %d bytes", name, size), func(t *testing.T) {
				c := newCluster(t, 2)
				defer c.close()
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				w := c.writer(ctx)
				_, err := w.Write(content(1, size))
				require.NoError(t, err)
				want := end(w, cancel)
				require.ErrorIs(t, w.Close(), want)
				_, err = w.Write(content(1, size+1))
				require.Error(t, err)
				f := c.names.files[w.file]
				require.True(t, f.abandoned)
				require.False(t, f.complete)
			})
		}
	}
}

func TestAbortEndsAWriteThatWaits(t *testing.T) {
	c := newCluster(t, 1)
	defer c.close()
	reached, hang := make(chan struct{}), make(chan struct{})
	defer close(hang)
	c.nodes[0].hooks(nil, func(*node, int64, bool) error {
		close(reached)
		<-hang
		return errStruck
	})
	w := c.writer(context.Background())
	go func() {
		<-reached
		_ = w.Abort()
	}()
	_, err := w.Write(content(1, 100*wire.MaxData)) // far more than the window
	require.ErrorIs(t, err, errAborted)
	require.ErrorIs(t, w.Close(), errAborted)
}

func TestWritersThatCannotBe(t *testing.T) {
	_, err := NewWriter(context.Background(), WriterConfig{})
	require.ErrorContains(t, err, "names or dialer is missing")
	c := &cluster{names: &names{}}
	for _, size := range []int64{1, hdfs.MinBlockSize - 1, hdfs.MaxBlockSize + 1, -1} {
		_, err := NewWriter(context.Background(), WriterConfig{Names: c.names, Dialer: c, Create: hdfs.Create{Path: "/f", BlockSize: size}})
		require.ErrorIs(t, err, hdfs.ErrInvalid)
		require.ErrorContains(t, err, "it must be from 65536 to 4294967296")
	}
}

// Whatever is written in whatever pieces while whatever happens to the nodes: what Close has acknowledged is there,
// bit for bit, on every node of the last pipelines that is; otherwise the file is abandoned.
func TestRandomFaults(t *testing.T) {
	kinds := faults()
	names := slices.Sorted(maps.Keys(kinds))
	rapid.Check(t, func(rt *rapid.T) {
		nodes := rapid.IntRange(1, 4).Draw(rt, "nodes")
		c := makeCluster(t, rt, nodes, false, false, hurried())
		defer c.close()
		for _, n := range c.nodes {
			if rapid.Bool().Draw(rt, "fails") {
				kinds[rapid.SampledFrom(names).Draw(rt, "how")](n)
			}
		}
		data := content(rapid.Uint64().Draw(rt, "seed"), rapid.IntRange(0, 12*wire.MaxData).Draw(rt, "size"))
		w := c.writer(context.Background(), func(cfg *WriterConfig) {
			cfg.Create.Replication = rapid.IntRange(1, 3).Draw(rt, "replication")
			cfg.Create.BlockSize = int64(rapid.IntRange(hdfs.MinBlockSize, 6*wire.MaxData).Draw(rt, "block size"))
			cfg.Window = int64(rapid.IntRange(1, 8).Draw(rt, "window")) * wire.MaxData
			cfg.Recovery = 500 * time.Millisecond
		})
		rest, err := data, error(nil)
		for len(rest) > 0 && err == nil {
			n := rapid.IntRange(1, len(rest)).Draw(rt, "piece")
			_, err = w.Write(rest[:n])
			rest = rest[n:]
		}
		if cerr := w.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			require.True(rt, c.names.files[w.file].abandoned, err.Error())
			return
		}
		for _, n := range c.nodes {
			n.hooks(nil, nil)
			n.thaw()
			if n.gone() {
				n.restart()
			}
		}
		c.holds(w, data, 1)
	})
}
