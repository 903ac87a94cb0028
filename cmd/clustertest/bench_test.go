//go:build cluster

package clustertest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
)

// BenchmarkLatency is `job submit --wait` of a 100-byte object on a warm cluster,
// from process start to exit, and where that time goes. `version` is a command that
// asks nobody anything: the cost of starting the program.
func BenchmarkLatency(b *testing.B) {
	c := startCluster(b, small...)
	corpus{objects: map[string][]byte{"tiny": text(1, 92)[:100]}}.put(b, c, "data")
	run := func(i int) (object, time.Duration) {
		began := time.Now()
		out := c.mr("job", "submit", "wordcount", "--input", "s3://data/tiny", "--output", fmt.Sprintf("s3://data/out/%d", i), "--wait", "--json")
		took := time.Since(began)
		var o object
		require.NoError(b, json.Unmarshal([]byte(out), &o), out)
		return o, took
	}
	for i := range 3 {
		run(-1 - i)
	}
	steps := []string{"submittedAt", "plannedAt", "mapsEndedAt", "reducesEndedAt", "endedAt"}
	between := make([][]time.Duration, len(steps)-1)
	var whole, start, outside []time.Duration
	for i := range 21 {
		began := time.Now()
		c.mr("version")
		start = append(start, time.Since(began))
		job, took := run(i)
		whole = append(whole, took)
		at := make([]time.Time, len(steps))
		for k, name := range steps {
			at[k], _ = time.Parse(time.RFC3339Nano, job.str(name))
			if k > 0 {
				between[k-1] = append(between[k-1], at[k].Sub(at[k-1]))
			}
		}
		outside = append(outside, took-at[len(at)-1].Sub(at[0]))
	}
	report := func(name string, d []time.Duration) {
		b.ReportMetric(float64(median(d).Microseconds())/1000, name+"-ms")
	}
	b.ReportMetric(0, "ns/op")
	report("whole", whole)
	report("program-start", start)
	report("outside-the-job", outside)
	for k, d := range between {
		report("to-"+strings.TrimSuffix(steps[k+1], "At"), d)
	}
}

// BenchmarkWordcount is word count from object store to object store over
// MILLRACE_CORPUS (a text file), or about 300 MB of the Go source tree, and the
// most memory that each process used.
func BenchmarkWordcount(b *testing.B) {
	data := benchText(b)
	c := startCluster(b, "--core", "1", "--task", "0", "--slots", fmt.Sprint(runtime.NumCPU()))
	ctx := context.Background()
	s := c.store()
	require.NoError(b, s.MakeBucket(ctx, "data"))
	const objects = 5
	for i := range objects {
		from, to := lineStart(data, len(data)*i/objects), lineStart(data, len(data)*(i+1)/objects)
		_, err := s.Put(ctx, "data", fmt.Sprintf("in/%d", i), bytes.NewReader(data[from:to]), int64(to-from), objectstore.PutOptions{})
		require.NoError(b, err)
	}
	var rates []float64
	for i := range 3 {
		began := time.Now()
		c.mr("run", "wordcount", "s3://data/in", fmt.Sprintf("s3://data/out/%d", i), "--reduces", "2")
		rates = append(rates, float64(len(data))/1e6/time.Since(began).Seconds())
	}
	slices.Sort(rates)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(len(data))/1e6, "input-MB")
	b.ReportMetric(rates[1], "MB/s")
	b.ReportMetric(rates[1]/float64(runtime.NumCPU()), "MB/s/core")
	for _, n := range c.jsonList("node", "list") {
		b.ReportMetric(peakMemory(b, int(n.num("pid"))), strings.ToLower(n.str("role"))+"-peak-MB")
	}
}

// BenchmarkLeaderKill is the time from a SIGKILL of the leader, with a queue of short tasks, to the start of the
// first task that the next leader has scheduled. Attempts' names carry the term of their leader.
func BenchmarkLeaderKill(b *testing.B) {
	c := startCluster(b, "--masters", "3", "--core", "1", "--task", "1", "--slots", "1")
	newCorpus(1, 1<<20).put(b, c, "data")
	var took []time.Duration
	for i := range 20 {
		voters(c, 3)
		id := c.submit("--mapper", "cat; sleep 0.1", "--reducer", "cat", "--input", "s3://data/in", "--split-size", "2KiB", "--output", fmt.Sprintf("s3://data/kill/%d", i))
		c.waitJobUntil(id, "maps run", func(o object) bool { return o.num("maps", "completed") > 2 })
		old := highestTerm(c, id, time.Time{})
		struck := time.Now()
		c.kill(leader(c))
		for {
			if t := highestTerm(c, id, struck); t.term > old.term {
				took = append(took, t.at.Sub(struck))
				break
			}
			require.Less(b, time.Since(struck), patience)
			time.Sleep(50 * time.Millisecond)
		}
		c.mr("job", "cancel", id)
		c.waitJob(id)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(took).Seconds(), "median-s")
	b.ReportMetric(took[0].Seconds(), "least-s")
	b.ReportMetric(took[len(took)-1].Seconds(), "most-s")
}

type started struct {
	term int
	at   time.Time
}

// highestTerm is the first attempt of the latest leader, of those that began after a time.
func highestTerm(c *cluster, id string, after time.Time) (s started) {
	for _, task := range c.jsonList("job", "tasks", id) {
		attempts, _ := task["attempts"].([]any)
		for _, a := range attempts {
			o := object(a.(map[string]any))
			name := strings.Split(o.str("id"), "-") // s-JOB-m-INDEX-TERM-N
			term, _ := strconv.Atoi(name[len(name)-2])
			at, _ := time.Parse(time.RFC3339Nano, o.str("startedAt"))
			if at.After(after) && (term > s.term || term == s.term && at.Before(s.at)) {
				s = started{term, at}
			}
		}
	}
	return s
}

func benchText(b *testing.B) []byte {
	if path := os.Getenv("MILLRACE_CORPUS"); path != "" {
		data, err := os.ReadFile(path)
		require.NoError(b, err)
		return data
	}
	var text bytes.Buffer
	for text.Len() < 300_000_000 {
		require.NoError(b, filepath.WalkDir(filepath.Join(goEnv("GOROOT"), "src"), func(p string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(p) != ".go" {
				return err
			}
			data, err := os.ReadFile(p)
			text.Write(data)
			return err
		}))
	}
	return text.Bytes()
}

// lineStart is the first start of a line at or after i.
func lineStart(data []byte, i int) int {
	if i == 0 {
		return 0
	}
	if n := bytes.IndexByte(data[i-1:], '\n'); n >= 0 {
		return i + n
	}
	return len(data)
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
