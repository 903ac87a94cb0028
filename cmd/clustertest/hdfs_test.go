//go:build cluster

package clustertest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	hdfsBlock = 128 << 20 // the default
	hdfsChunk = 64 << 10  // what a checksum is of
)

// storing is a cluster whose core nodes are there for their blocks.
var storing = []string{"--core", "3", "--task", "0", "--slots", "1"}

// noise is content that nothing compresses: the same for the same seed, whatever its length.
func noise(seed byte, size int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{seed}), size)
}

// noiseFile is a local file of noise.
func noiseFile(t *testing.T, seed byte, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), fmt.Sprintf("noise-%d", size))
	f, err := os.Create(path)
	require.NoError(t, err)
	_, err = io.Copy(f, noise(seed, size))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return path
}

// digest is what a reader gave: its length, and a hash of it.
func digest(t *testing.T, r io.Reader) string {
	t.Helper()
	h := sha256.New()
	n, err := io.Copy(h, r)
	require.NoError(t, err)
	return fmt.Sprintf("%d bytes, %x", n, h.Sum(nil))
}

// requireFile reads a file back and compares it with noise.
func (c *cluster) requireFile(t *testing.T, url string, seed byte, size int64) {
	t.Helper()
	require.Equal(t, digest(t, noise(seed, size)), digest(t, strings.NewReader(c.mr("fs", "cat", url))), url)
}

// put makes a file of noise.
func (c *cluster) put(t *testing.T, url string, seed byte, size int64, flags ...string) {
	t.Helper()
	r := c.tryIn(noise(seed, size), append([]string{"fs", "put", "-", url}, flags...)...)
	require.Zero(t, r.code, "put %s: %s", url, r.err)
}

// stored is a file as `fs stat` tells of it.
type stored struct {
	Size        int64
	Replication int
	Blocks      []struct {
		ID       string
		Size     int64
		Replicas []string // ids of nodes
	}
}

func (c *cluster) stat(url string) (s stored) {
	c.t.Helper()
	out := c.mr("fs", "stat", url, "--json")
	require.NoError(c.t, json.Unmarshal([]byte(out), &s), out)
	return s
}

// awaitHealthy waits until fsck finds every block with all of its replicas.
func (c *cluster) awaitHealthy() object {
	c.t.Helper()
	var found object
	waitFor(c.t, "the block store is healthy", func() (bool, string) {
		r := c.try("fs", "fsck", "--json")
		found = nil
		_ = json.Unmarshal([]byte(r.out), &found) // what it says instead is the state
		return r.code == 0 && found["healthy"] == true, r.out + r.err
	})
	return found
}

// replicas are the folders of the replicas on the nodes' disks: below "blocks" final ones, below "writing" others.
func (c *cluster) replicas(kind string) []string {
	c.t.Helper()
	pattern := filepath.Join(c.dir, "core-*", "blocks", kind, "b-*")
	if kind == "blocks" {
		pattern = filepath.Join(c.dir, "core-*", "blocks", kind, "*", "b-*")
	}
	found, err := filepath.Glob(pattern)
	require.NoError(c.t, err)
	return found
}

// replicasOf are those of one block.
func (c *cluster) replicasOf(id string) []string {
	c.t.Helper()
	return slices.DeleteFunc(c.replicas("blocks"), func(path string) bool { return !strings.HasPrefix(filepath.Base(path), id+".") })
}

// TestBlockStoreSizes: files of sizes around the limits of chunks and blocks come back bit for bit, by every way of writing
// and reading, and stat says how they lie.
func TestBlockStoreSizes(t *testing.T) {
	c := startCluster(t, storing...)
	for _, size := range []int64{0, 1, hdfsChunk - 1, hdfsChunk, hdfsChunk + 1, 5<<20 + 3} {
		url := fmt.Sprintf("hdfs:///sizes/%d", size)
		c.mr("fs", "put", noiseFile(t, 1, size), url)
		c.requireFile(t, url, 1, size)
		s := c.stat(url)
		require.Equal(t, size, s.Size)
		require.Equal(t, 3, s.Replication)
		require.Len(t, s.Blocks, min(1, int(size)), "%d bytes", size)
		for _, b := range s.Blocks {
			require.Len(t, b.Replicas, 3)
		}
	}
	require.Len(t, c.replicas("blocks"), 5*3, "one folder for each replica")
	for size, blocks := range map[int64][]int64{hdfsBlock: {hdfsBlock}, hdfsBlock + 1: {hdfsBlock, 1}} {
		url := fmt.Sprintf("hdfs:///sizes/%d", size)
		c.put(t, url, 2, size, "--replication", "1")
		to := filepath.Join(t.TempDir(), "back")
		c.mr("fs", "get", url, to)
		back, err := os.Open(to)
		require.NoError(t, err)
		require.Equal(t, digest(t, noise(2, size)), digest(t, back))
		require.NoError(t, back.Close())
		var sizes []int64
		for _, b := range c.stat(url).Blocks {
			sizes = append(sizes, b.Size)
			require.Len(t, b.Replicas, 1)
		}
		require.Equal(t, blocks, sizes)
	}
	c.awaitHealthy()
	var total int64
	for _, e := range c.jsonList("fs", "ls", "hdfs:///sizes") {
		total += e.num("size")
	}
	du := c.json("fs", "du", "hdfs:///sizes")
	require.Equal(t, total, du.num("size"))
	require.EqualValues(t, 8, du.num("files"))
}

// TestBlockStoreNames: what fs does with files and folders, from a tree put at once to its removal.
func TestBlockStoreNames(t *testing.T) {
	c := startCluster(t, storing...)
	const n = 150
	from := t.TempDir()
	for i := range n {
		dir := filepath.Join(from, fmt.Sprint(i%7))
		require.NoError(t, os.MkdirAll(dir, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%03d", i)), bytes.Repeat([]byte{byte(i)}, i*37), 0o644))
	}
	c.mr("fs", "put", "-r", from, "hdfs:///tree")
	require.EqualValues(t, n, c.json("fs", "du", "hdfs:///tree").num("files"))
	require.Len(t, c.jsonList("fs", "ls", "-R", "hdfs:///tree"), n)
	require.Len(t, c.jsonList("fs", "ls", "hdfs:///tree"), 7)

	c.mr("fs", "mv", "hdfs:///tree", "hdfs:///moved/here")
	require.Equal(t, 4, c.try("fs", "stat", "hdfs:///tree").code)
	to := filepath.Join(t.TempDir(), "back")
	c.mr("fs", "get", "-r", "hdfs:///moved/here", to)
	for i := range n {
		got, err := os.ReadFile(filepath.Join(to, fmt.Sprint(i%7), fmt.Sprintf("f%03d", i)))
		require.NoError(t, err)
		require.Equal(t, bytes.Repeat([]byte{byte(i)}, i*37), got)
	}

	one := "hdfs:///moved/here/1/f050"
	for _, replication := range []int{1, 2} { // fewer, then more
		c.mr("fs", "setrep", fmt.Sprint(replication), one)
		id := c.stat(one).Blocks[0].ID
		waitFor(t, "a block lies as often as it shall", func() (bool, string) {
			s := c.stat(one)
			return s.Replication == replication && len(s.Blocks[0].Replicas) == replication && len(c.replicasOf(id)) == replication, fmt.Sprint(s, c.replicasOf(id))
		})
		require.Equal(t, string(bytes.Repeat([]byte{50}, 50*37)), c.mr("fs", "cat", one))
	}

	for replication, notes := range map[int]any{3: nil, 4: []any{"hdfs:/// has 3 core nodes: blocks have 3 replicas at the most until there are more"}} {
		doc := c.json("fs", "cp", "--replication", fmt.Sprint(replication), one, "hdfs:///.trash/copy")
		require.Equal(t, notes, doc["notes"])
		require.Equal(t, replication, c.stat("hdfs:///.trash/copy").Replication)
	}
	c.mr("fs", "rm", "hdfs:///.trash/copy")

	r := c.json("fs", "rm", one)
	trash, _ := r["trash"].([]any)
	require.Len(t, trash, 1, r)
	require.Equal(t, 4, c.try("fs", "cat", one).code)
	require.Equal(t, string(bytes.Repeat([]byte{50}, 50*37)), c.mr("fs", "cat", trash[0].(string)), "it can be taken back")
	require.Equal(t, 2, c.try("fs", "rm", "hdfs:///moved").code, "a folder wants -r")
	require.EqualValues(t, n-1, c.json("fs", "rm", "-r", "--skip-trash", "hdfs:///moved").num("removed"))
	require.EqualValues(t, 1, c.json("fs", "du", "hdfs:///").num("files"), "what is in the trash")
	c.awaitHealthy()
}

// TestBlockStoreWithoutCoreNodes: when no core node is up, nothing can be written or read, and that is said; what was there is there
// when one is back.
func TestBlockStoreWithoutCoreNodes(t *testing.T) {
	t.Parallel() // it waits for a node to be lost
	c := startCluster(t, "--core", "1", "--task", "0", "--slots", "1")
	c.put(t, "hdfs:///there", 1, 100)
	core := c.node("CORE", 0)
	thaw := freeze(t, core)
	c.awaitState(core.str("id"), "LOST")
	r := c.tryIn(strings.NewReader("some"), "fs", "put", "-", "hdfs:///x")
	require.NotZero(t, r.code, r)
	require.Contains(t, r.err, "no core node can take the block")
	require.Equal(t, 4, c.try("fs", "stat", "hdfs:///x").code, "nothing half there")
	c.mr("fs", "put", noiseFile(t, 1, 0), "hdfs:///empty") // which has no block
	require.Empty(t, c.mr("fs", "cat", "hdfs:///empty"))
	r = c.try("fs", "cat", "hdfs:///there")
	require.NotZero(t, r.code, r)
	require.Contains(t, r.err, "no replica can be read")
	require.Empty(t, r.out)
	thaw()
	c.awaitState(core.str("id"), "RUNNING")
	c.requireFile(t, "hdfs:///there", 1, 100)
}
