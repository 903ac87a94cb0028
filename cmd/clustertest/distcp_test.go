//go:build cluster

package clustertest

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
	"millrace/pkg/objectstore/faultproxy"
)

// oddFiles are some hundred files of odd names and sizes, by their names below a folder.
func oddFiles() map[string]string {
	random := rand.NewChaCha8([32]byte{7})
	data := func(size int) string {
		b := make([]byte, size)
		_, _ = random.Read(b)
		return string(b)
	}
	files := map[string]string{
		"empty": "", "_SUCCESS": "{}", "_x/y": "1", ".hidden": "2", ".x/.y": "3", "a b/c d": "4", "ä/ö-日本語": "5", "x.gz": "no gzip",
		"a+b&c=d?e#f": "6", "100%/%41": "7", "it's \"so\"": "8", "back\\slash": "9", "[a]{b}*": "10", strings.Repeat("n", 200): "11",
		"big": data(20<<20 + 7), "eight": data(8 << 20), "held": data(9 << 20),
	}
	for i := range 300 {
		files[fmt.Sprintf("many/%d/%03d", i%7, i)] = data(i * i)
	}
	return files
}

// gate holds the reading of one object.
type gate struct {
	mu     sync.Mutex
	key    string
	opened chan struct{}
}

// hold closes the gate for a key.
func (g *gate) hold(key string) (open func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.key, g.opened = key, make(chan struct{})
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.key = ""
		close(g.opened)
	})
}

func (g *gate) hook(reached chan<- struct{}) func(faultproxy.Request) faultproxy.Fault {
	return func(r faultproxy.Request) faultproxy.Fault {
		g.mu.Lock()
		defer g.mu.Unlock()
		if r.Op != faultproxy.Get || g.key == "" || r.Key != g.key {
			return faultproxy.Fault{}
		}
		opened := g.opened
		return faultproxy.Fault{Before: func(ctx context.Context) error {
			select {
			case reached <- struct{}{}:
			case <-opened:
			case <-ctx.Done():
			}
			select {
			case <-opened:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}}
	}
}

// copied is how many files a job has copied, and how many it has skipped.
func copied(job object) (copied, skipped int64) {
	return job.num("counters", "millrace", "filesCopied"), job.num("counters", "millrace", "filesSkipped")
}

// TestDistcp copies from the object store to a block store and back, while a node is killed and sources change.
func TestDistcp(t *testing.T) {
	g, reached := &gate{}, make(chan struct{})
	s := startStore(t, "minio", g.hook(reached))
	c := s.cluster("--core", "3", "--slots", "1")
	c.mr("fs", "mb", "s3://data")
	files, total := oddFiles(), int64(0)
	for name, data := range files {
		s.put("data", "in/"+name, data)
		total += int64(len(data))
	}
	n := int64(len(files))
	below := func(prefix string) map[string]string {
		found := map[string]string{}
		for key, data := range contents(t, s, prefix) {
			found[strings.TrimPrefix(key, prefix)] = data
		}
		return found
	}
	same := func(want, got map[string]string) {
		t.Helper()
		require.Len(t, got, len(want))
		for name, data := range want {
			other, there := got[name]
			require.True(t, there && data == other, "%q: there %v, %d bytes of %d", name, there, len(other), len(data))
		}
	}

	wait := func() { // until the gate holds somebody
		t.Helper()
		select {
		case <-reached:
		case <-time.After(patience):
			t.Fatal("nobody has come to the gate")
		}
	}

	// A node is killed in the midst of it.
	open := g.hold("in/held")
	id := c.submit("distcp", "--input", "s3://data/in/", "--output", "hdfs:///copy/")
	wait()
	var at string
	waitFor(t, "only the task that is held still runs", func() (bool, string) {
		tasks := c.jsonList("job", "tasks", id)
		open := 0
		for _, task := range tasks {
			list, _ := task["attempts"].([]any)
			for _, a := range list {
				if o := object(a.(map[string]any)); o.str("state") == "RUNNING" {
					at = o.str("node")
				}
			}
			if task.str("state") != "COMPLETED" {
				open++
			}
		}
		return open == 1 && at != "", fmt.Sprint(tasks)
	})
	i := slices.IndexFunc(c.nodes("CORE"), func(n object) bool { return n.str("id") == at || n.str("name") == at })
	require.GreaterOrEqual(t, i, 0, "%q of %v", at, c.jsonList("job", "tasks", id))
	c.kill(c.node("CORE", i))
	wait() // for another attempt
	open()
	job := c.waitJob(id)
	require.Equal(t, "COMPLETED", job.str("state"), job)
	require.Positive(t, job.num("attempts", "lost"), job)
	require.Equal(t, n, job.num("outputRecords"))
	require.Equal(t, total, job.num("outputBytes"))
	made, left := copied(job)
	require.Equal(t, n, made+left, "each file once")
	dir := t.TempDir()
	c.mr("fs", "get", "-r", "hdfs:///copy/", dir)
	got := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		got[filepath.ToSlash(strings.TrimPrefix(path, dir+"/"))] = string(data)
		return err
	}))
	same(files, got)

	// Once more there is nothing to do.
	job = c.json("run", "distcp", "s3://data/in/", "hdfs:///copy/")
	made, left = copied(job)
	require.Equal(t, []int64{0, n}, []int64{made, left})

	// Back, as fs cp has it.
	doc := c.json("fs", "cp", "-r", "--distributed", "hdfs:///copy", "s3://data/back/")
	require.Equal(t, []int64{n, total}, []int64{doc.num("files"), doc.num("bytes")}, doc)
	require.NotEmpty(t, doc.str("job"))
	same(files, below("back/"))
	job = c.json("run", "distcp", "hdfs:///copy", "s3://data/back/")
	made, left = copied(job)
	require.Equal(t, []int64{0, n}, []int64{made, left})
	c.mr("fs", "mkdir", "hdfs:///copy/none/at/all")
	doc = c.json("fs", "cp", "-r", "--distributed", "hdfs:///copy", "hdfs:///again")
	require.Equal(t, []int64{n, 0}, []int64{doc.num("files"), doc.num("skipped")}, doc)
	doc = c.json("fs", "cp", "-r", "--distributed", "hdfs:///copy", "hdfs:///again")
	require.Equal(t, []int64{0, 0, n}, []int64{doc.num("files"), doc.num("bytes"), doc.num("skipped")}, doc)
	require.Equal(t, true, c.json("fs", "stat", "hdfs:///again/none/at/all")["directory"], "a folder that holds nothing is made")
	c.mr("fs", "rm", "-r", "hdfs:///copy/none")

	// A file that changes at the source while it is copied is noticed, and copied by the next try.
	open = g.hold("in/held")
	id = c.submit("distcp", "--input", "s3://data/in", "--output", "s3://data/changed/")
	wait()
	files["held"] = "another"
	s.put("data", "in/held", files["held"])
	open()
	job = c.waitJob(id)
	require.Equal(t, "FAILED", job.str("state"), job)
	require.Contains(t, job.str("reason"), "s3://data/in/held")
	for name := range below("changed/") {
		require.NotEqual(t, "held", name)
	}
	uploads, err := s.direct.ListUploads(t.Context(), "data", "changed/held")
	require.NoError(t, err)
	require.Empty(t, uploads)
	job = c.json("run", "distcp", "s3://data/in", "s3://data/changed/")
	_, left = copied(job)
	require.Positive(t, left)
	same(files, below("changed/"))

	// What is there and differs is replaced only when that is asked for.
	r := c.try("run", "distcp", "s3://data/in/", "hdfs:///copy/")
	require.Equal(t, 1, r.code, r.err)
	require.Contains(t, r.err, "hdfs://"+job.str("cluster")+"/copy/held is there already and differs from s3://data/in/held")
	job = c.json("run", "distcp", "--overwrite", "s3://data/in/", "hdfs:///copy/")
	made, left = copied(job)
	require.Equal(t, []int64{1, n - 1}, []int64{made, left})
	require.Equal(t, "another", c.mr("fs", "cat", "hdfs:///copy/held"))
	_, err = s.direct.Head(t.Context(), "data", "changed/_SUCCESS")
	require.NoError(t, err, "one of the files, and no mark of a job")
	require.NotErrorIs(t, err, objectstore.ErrNotExist)
}
