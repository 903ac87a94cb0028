//go:build cluster

package clustertest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
	hdfsclient "millrace/hdfs/client"
	masters "millrace/pkg/client"
)

// benchBytes is how long the file is that BenchmarkFiles writes and reads.
const benchBytes = 512 << 20

// randomFile makes a file that nothing compresses.
func randomFile(b testing.TB, size int64) string {
	name := filepath.Join(b.TempDir(), "random")
	f, err := os.Create(name)
	require.NoError(b, err)
	_, err = io.CopyN(f, rand.Reader, size)
	require.NoError(b, err)
	require.NoError(b, f.Close())
	return name
}

// BenchmarkFiles writes and reads one file: to a bare disk (written and synced), to MinIO, and to the block store with one, two
// and three replicas, all on the one disk of this machine, in turns; medians of five. Each is a whole process (fs put, fs get
// to /dev/null), but the bare disk's.
func BenchmarkFiles(b *testing.B) {
	m := startMinIO(b)
	c := startClusterEnv(b, m.environ(), "--s3", m.endpoint, "--core", "3", "--task", "0")
	c.mr("fs", "mb", "s3://bench")
	from := randomFile(b, benchBytes)
	bare := filepath.Join(b.TempDir(), "bare")
	type way struct {
		name        string
		write, read func(round int)
	}
	ways := []way{{"bare disk",
		func(int) { copySynced(b, from, bare) },
		func(int) { drain(b, bare) },
	}, {"minio",
		func(i int) { c.mr("fs", "put", from, fmt.Sprintf("s3://bench/%d", i)) },
		func(i int) { c.toNull("fs", "cat", fmt.Sprintf("s3://bench/%d", i)) },
	}}
	for n := 1; n <= 3; n++ {
		ways = append(ways, way{fmt.Sprintf("hdfs %d", n),
			func(i int) {
				c.mr("fs", "put", "--replication", fmt.Sprint(n), from, fmt.Sprintf("hdfs:///bench/%d-%d", n, i))
			},
			func(i int) { c.toNull("fs", "cat", fmt.Sprintf("hdfs:///bench/%d-%d", n, i)) },
		})
	}
	writes, reads := make([][]time.Duration, len(ways)), make([][]time.Duration, len(ways))
	for i := range 5 {
		for k, w := range ways {
			began := time.Now()
			w.write(i)
			wrote := time.Now()
			w.read(i)
			writes[k], reads[k] = append(writes[k], wrote.Sub(began)), append(reads[k], time.Since(wrote))
		}
		c.mr("fs", "rm", "-r", "s3://bench/")
		c.mr("fs", "rm", "-r", "--skip-trash", "hdfs:///bench")
	}
	b.ReportMetric(0, "ns/op")
	for k, w := range ways {
		b.Logf("%-10s write %6.0f MB/s (%.2f of the bare disk)  read %6.0f MB/s (%.2f)", w.name, rate(writes[k]), rate(writes[k])/rate(writes[0]), rate(reads[k]), rate(reads[k])/rate(reads[0]))
	}
}

// rate is the median's in MB/s.
func rate(d []time.Duration) float64 { return benchBytes / 1e6 / median(d).Seconds() }

// toNull runs a command whose output nobody keeps.
func (c *cluster) toNull(args ...string) {
	c.t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	require.NoError(c.t, err)
	defer null.Close()
	cmd := exec.Command(binary(c.t), args...)
	cmd.Env, cmd.Stdout = c.environ(), null
	require.NoError(c.t, cmd.Run())
}

func copySynced(b testing.TB, from, to string) {
	in, err := os.Open(from)
	require.NoError(b, err)
	defer in.Close()
	out, err := os.Create(to)
	require.NoError(b, err)
	_, err = io.Copy(out, struct{ io.Reader }{in}) // through memory, as everybody else
	require.NoError(b, err)
	require.NoError(b, out.Sync())
	require.NoError(b, out.Close())
}

func drain(b testing.TB, name string) {
	f, err := os.Open(name)
	require.NoError(b, err)
	defer f.Close()
	_, err = io.Copy(struct{ io.Writer }{io.Discard}, f)
	require.NoError(b, err)
}

// BenchmarkNames is what changes of a name space go through per second with one and with three masters on this machine, asked for by
// 128 at once: an empty file is two entries of the log, a folder one.
func BenchmarkNames(b *testing.B) {
	const askers, each = 128, 5 * time.Second
	for _, n := range []string{"1", "3"} {
		c := startCluster(b, "--masters", n, "--core", "1", "--task", "0")
		settings, err := masters.LoadContext(c.home, "")
		require.NoError(b, err)
		cl, err := masters.New(masters.Config{Servers: settings.Servers, Credential: settings.Credential()})
		require.NoError(b, err)
		names := hdfsclient.Remote(cl.Files(), "")
		for _, what := range []struct {
			name string
			do   func(ctx context.Context, path string) error
		}{
			{"folders made", names.Mkdir},
			{"empty files written", func(ctx context.Context, path string) error {
				id, err := names.Create(ctx, hdfs.Create{Path: path, Lease: path})
				if err == nil {
					_, err = names.Complete(ctx, id, path, nil)
				}
				return err
			}},
			{"paths looked at", func(ctx context.Context, _ string) error { _, err := names.Stat(ctx, "/"); return err }},
		} {
			var done atomic.Int64
			var wg sync.WaitGroup
			until := time.Now().Add(each)
			for range askers {
				wg.Go(func() {
					for time.Now().Before(until) {
						if err := what.do(context.Background(), fmt.Sprintf("/%s/%d", what.name, done.Add(1))); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.Logf("%s masters: %.0f %s a second", n, float64(done.Load())/each.Seconds(), what.name)
		}
		require.NoError(b, cl.Close())
		c.stop()
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkRepair is how fast the blocks of a core node that is gone for good are copied, from the moment on at which it is given up.
func BenchmarkRepair(b *testing.B) {
	c := startCluster(b, "--core", "4", "--task", "0")
	from := randomFile(b, 256<<20)
	const files = 6
	for i := range files {
		c.mr("fs", "put", "--replication", "2", from, fmt.Sprintf("hdfs:///bench/%d", i))
	}
	gone := c.nodeNamed("core-4")
	lost := int64(0)
	for i := range files {
		for _, block := range c.json("fs", "stat", fmt.Sprintf("hdfs:///bench/%d", i))["blocks"].([]any) {
			b := object(block.(map[string]any))
			if slices.Contains(b["replicas"].([]any), any(gone.str("id"))) {
				lost += b.num("size")
			}
		}
	}
	var began time.Time
	killed := time.Now()
	pid := int(gone.num("pid"))
	require.NoError(b, syscall.Kill(pid, syscall.SIGSTOP)) // dev would start it again if it ended
	b.Cleanup(func() { syscall.Kill(pid, syscall.SIGCONT) })
	waitFor(b, "all blocks have their replicas again", func() (bool, string) {
		var o object
		require.NoError(b, json.Unmarshal([]byte(c.try("fs", "fsck", "--json").out), &o))
		if under, _ := o["underReplicated"].([]any); began.IsZero() && len(under) > 0 {
			began = time.Now()
		}
		return !began.IsZero() && o["healthy"] == true, fmt.Sprint(o["underReplicated"])
	})
	b.ReportMetric(0, "ns/op")
	b.Logf("%d MB had one replica left %.1f s after their node was gone, and two again %.1f s later: %.0f MB/s over 3 nodes", lost/1e6, began.Sub(killed).Seconds(),
		time.Since(began).Seconds(), float64(lost)/1e6/time.Since(began).Seconds())
}
