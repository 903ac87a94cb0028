//go:build cluster

package clustertest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
	"millrace/pkg/objectstore/fakes3"
	"millrace/pkg/objectstore/faultproxy"
	"millrace/pkg/objectstore/objectstoretest"
)

// moody is a cluster on a real MinIO that it reaches through two proxies: one that breaks
// TCP, and behind it one that breaks HTTP.
type moody struct {
	*cluster
	tcp  *toxiproxy.Proxy
	http atomic.Pointer[func(faultproxy.Request) faultproxy.Fault]
}

func startMoody(t *testing.T) *moody {
	m := &moody{}
	m.calm()
	minio := startMinIO(t)
	proxy, err := faultproxy.New(minio.endpoint, func(r faultproxy.Request) faultproxy.Fault { return (*m.http.Load())(r) })
	require.NoError(t, err)
	t.Cleanup(func() { proxy.Close() })
	zerolog.SetGlobalLevel(zerolog.Disabled) // its toxics log by themselves
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	m.tcp = toxiproxy.NewProxy(server, "store", "127.0.0.1:0", strings.TrimPrefix(proxy.URL, "http://"))
	require.NoError(t, m.tcp.Start())
	t.Cleanup(m.tcp.Stop)
	minio.endpoint = "http://" + m.tcp.Listen
	m.cluster = startClusterEnv(t, minio.environ(), "--s3", minio.endpoint, "--core", "2", "--task", "0", "--slots", "2")
	return m
}

func (m *moody) when(f func(faultproxy.Request) faultproxy.Fault) { m.http.Store(&f) }

func (m *moody) calm() {
	m.when(func(faultproxy.Request) faultproxy.Fault { return faultproxy.Fault{} })
}

// every does it to every nth request of these kinds, of all kinds if none is named.
func every(n int64, f faultproxy.Fault, ops ...faultproxy.Op) func(faultproxy.Request) faultproxy.Fault {
	var count atomic.Int64
	return func(r faultproxy.Request) faultproxy.Fault {
		named := len(ops) == 0
		for _, op := range ops {
			named = named || op == r.Op
		}
		if named && count.Add(1)%n == 0 {
			return f
		}
		return faultproxy.Fault{}
	}
}

// once does it to the first request of a kind.
func once(f faultproxy.Fault, op faultproxy.Op) func(faultproxy.Request) faultproxy.Fault {
	var done atomic.Bool
	return func(r faultproxy.Request) faultproxy.Fault {
		if r.Op == op && strings.HasPrefix(r.Key, "in") && !done.Swap(true) {
			return f
		}
		return faultproxy.Fault{}
	}
}

// TestAStoresMoods runs a job through each of a store's moods. It always ends right, and no
// attempt fails for it; what was repeated is counted and shown.
func TestAStoresMoods(t *testing.T) {
	m := startMoody(t)
	in := newCorpus(7, 2<<20)
	in.put(t, m.cluster, "data")

	type mood struct {
		http  func(faultproxy.Request) faultproxy.Fault
		tcp   string // a toxic
		quiet bool   // whether anything is repeated is chance: net/http itself takes another connection for one that broke unused
	}
	down := func(status int, code string) faultproxy.Fault { return faultproxy.Fault{Status: status, Code: code} }
	for name, mood := range map[string]mood{
		"503 SlowDown":            {http: every(4, down(503, "SlowDown"))},
		"503 with Retry-After":    {http: every(10, faultproxy.Fault{Status: 503, Code: "SlowDown", Header: http.Header{"Retry-After": {"1"}}})},
		"500":                     {http: every(4, down(500, "InternalError"))},
		"502 without a word":      {http: every(4, down(502, ""))},
		"connections broken":      {http: every(5, faultproxy.Fault{ResetBefore: true})},
		"answers lost":            {http: every(5, faultproxy.Fault{ResetAfter: true})},
		"bodies cut short":        {http: every(2, faultproxy.Fault{CutAfter: 50_000}, faultproxy.Get)},
		"bodies cut at once":      {http: every(2, faultproxy.Fault{CutAfter: 1}, faultproxy.Get)},
		"slow bodies":             {http: every(3, faultproxy.Fault{BytesPerSec: 500_000}, faultproxy.Get), quiet: true},
		"tcp: reset":              {tcp: `{"type": "reset_peer", "attributes": {"timeout": 5}, "toxicity": 0.3}`, quiet: true},
		"tcp: so many bytes":      {tcp: `{"type": "limit_data", "attributes": {"bytes": 200000}}`},
		"tcp: so many sent bytes": {tcp: `{"type": "limit_data", "stream": "upstream", "attributes": {"bytes": 300000}}`, quiet: true},
		"tcp: bandwidth":          {tcp: `{"type": "bandwidth", "attributes": {"rate": 2000}}`, quiet: true},
		"tcp: latency":            {tcp: `{"type": "latency", "attributes": {"latency": 30, "jitter": 20}}`, quiet: true},
		"tcp: slow close":         {tcp: `{"type": "slow_close", "attributes": {"delay": 500}}`, quiet: true},
		"tcp: slices":             {tcp: `{"type": "slicer", "attributes": {"average_size": 2000, "size_variation": 1000, "delay": 10}}`, quiet: true},
		"bodies that stop coming": {http: once(faultproxy.Fault{StallAfter: 50_000}, faultproxy.Get)}, // 20 s
	} {
		t.Run(name, func(t *testing.T) {
			output := "out/" + strings.NewReplacer(" ", "-", ":", "").Replace(name)
			if mood.http != nil {
				m.when(mood.http)
			}
			if mood.tcp != "" {
				toxic, err := m.tcp.Toxics.AddToxicJson(strings.NewReader(mood.tcp))
				require.NoError(t, err)
				defer m.tcp.Toxics.RemoveToxic(context.Background(), toxic.Name)
			}
			defer m.calm()
			job := m.waitJob(m.submit("wordcount", "--input", "s3://data/in", "--output", "s3://data/"+output, "--split-size", "256KiB", "--reduces", "3",
				"-D", "mapreduce.map.speculative=false")) // a second attempt would be faster than a body that comes to a halt
			m.calm()
			if mood.tcp != "" {
				m.tcp.Toxics.ResetToxics(context.Background())
			}
			require.Equal(t, "COMPLETED", job.str("state"), job)
			require.Zero(t, job.num("attempts", "failed"), job)
			_, lines := readOutput(t, m.cluster, "data", output+"/")
			requireCounts(t, in.counts, lines)
			if !mood.quiet {
				require.NotZero(t, job.num("storeRetries"), job)
				require.NotEmpty(t, job.str("storeTrouble"))
				require.NotZero(t, job.num("counters", "millrace", "storeRetries"))
				require.Contains(t, m.mr("job", "show", job.str("id")), "repeated, last: ")
			}
		})
	}
	t.Run("down for a while", func(t *testing.T) {
		gate := newGated(t)
		job := m.submit(append(gate.args(t), "--input", "s3://data/in", "--output", "s3://data/out/down", "--split-size", "1MiB")...)
		m.waitJobUntil(job, "maps run", func(o object) bool { return o.num("maps", "running") > 0 })
		m.tcp.Stop()
		gate.open(t, gate.mapGate)
		gate.open(t, gate.reduceGate)
		shown := m.waitJobUntil(job, "repeats requests", func(o object) bool { return o.num("storeRetries") > 5 })
		require.Equal(t, "RUNNING", shown.str("state"), "it is shown while it happens")
		require.Contains(t, shown.str("storeTrouble"), "refused")
		require.Contains(t, m.mr("job", "show", job), "repeated, last: connection refused")
		r := m.try("run", "wordcount", "s3://data/in", "s3://data/out/submit")
		require.Equal(t, 3, r.code, r.err)
		require.Contains(t, r.err, m.tcp.Listen, "it says which store")
		require.NoError(t, m.tcp.Start())
		o := m.waitJob(job)
		require.Equal(t, "COMPLETED", o.str("state"), o)
		require.Zero(t, o.num("attempts", "failed"), o)
	})
	t.Run("an input changes", func(t *testing.T) { inputChanges(t, m) })
	t.Run("credentials expire", func(t *testing.T) {
		m.when(every(1, down(400, "ExpiredToken"), faultproxy.Get))
		defer m.calm()
		job := m.waitJob(m.submit("wordcount", "--input", "s3://data/in", "--output", "s3://data/out/expired"))
		require.Equal(t, "FAILED", job.str("state"))
		require.Contains(t, job.str("failure", "message")+job.str("reason"), "the session token has expired")
		m.calm()
		requireNothing(t, m.cluster, "data", "out/expired/")
	})
}

// inputChanges: an object that is replaced or deleted between plan and read fails the job,
// which names it.
func inputChanges(t *testing.T, m *moody) {
	for name, change := range map[string]func(s objectstore.Store, key string) error{
		"changed": func(s objectstore.Store, key string) error {
			_, err := s.Put(t.Context(), "data", key, strings.NewReader("other words\n"), 12, objectstore.PutOptions{})
			return err
		},
		"gone": func(s objectstore.Store, key string) error { return s.Delete(t.Context(), "data", key) },
	} {
		key := "moving/" + name + "/text"
		s := m.store()
		_, err := s.Put(t.Context(), "data", key, strings.NewReader("some words\n"), 11, objectstore.PutOptions{})
		require.NoError(t, err)
		read, changed := make(chan struct{}), make(chan struct{})
		var once sync.Once
		m.when(func(r faultproxy.Request) faultproxy.Fault {
			if r.Op != faultproxy.Get || r.Key != key {
				return faultproxy.Fault{}
			}
			return faultproxy.Fault{Before: func(ctx context.Context) error {
				once.Do(func() { close(read) })
				select {
				case <-changed:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}}
		})
		id := m.submit("wordcount", "--input", "s3://data/moving/"+name, "--output", "s3://data/out/"+name)
		<-read
		require.NoError(t, change(s, key))
		close(changed)
		job := m.waitJob(id)
		m.calm()
		require.Equal(t, "FAILED", job.str("state"), job)
		says := job.str("failure", "message") + job.str("reason")
		require.Contains(t, says, "s3://data/"+key)
		require.Contains(t, says, name+" since the job was planned")
		requireNothing(t, m.cluster, "data", "out/"+name+"/")
	}
}

// TestJobsOverAFakeStore: every key that S3 takes is read by a job as it is, and written as an
// output's prefix; and an object of 6 GiB is planned and read in ranges.
func TestJobsOverAFakeStore(t *testing.T) {
	memory := objectstore.NewMemory()
	require.NoError(t, memory.MakeBucket(t.Context(), "big"))
	require.NoError(t, memory.MakeBucket(t.Context(), "data"))
	const size = 6 << 30
	url := fakes3.Start(t, &fakes3.Server{Store: &fakes3.Synthetic{Store: memory, Bucket: "big", Count: 1, Size: size, Key: func(int) string { return "6GiB" }}})
	c := startClusterEnv(t, []string{"AWS_ACCESS_KEY_ID=key", "AWS_SECRET_ACCESS_KEY=secret", "AWS_ENDPOINT_URL=" + url}, "--s3", url, "--core", "1", "--task", "0", "--slots", "2")

	t.Run("strange keys", func(t *testing.T) {
		n := 0
		for i, key := range objectstoretest.StrangeKeys() {
			key = "in/" + key
			if len(key) > 1024 || strings.HasSuffix(key, "/") {
				continue
			}
			line := fmt.Sprintf("word%d\n", i)
			_, err := memory.Put(t.Context(), "data", key, strings.NewReader(line), int64(len(line)), objectstore.PutOptions{})
			require.NoError(t, err)
			hidden := false
			for _, segment := range strings.Split(key, "/") {
				hidden = hidden || strings.HasPrefix(segment, ".") || strings.HasPrefix(segment, "_")
			}
			if !hidden {
				n++
			}
		}
		for _, key := range []string{"in/_skipped", "in/a/.skipped", "in/a/_b/skipped"} {
			_, err := memory.Put(t.Context(), "data", key, strings.NewReader("skipped\n"), 8, objectstore.PutOptions{})
			require.NoError(t, err)
		}
		_, err := memory.Put(t.Context(), "data", "in/empty", strings.NewReader(""), 0, objectstore.PutOptions{})
		require.NoError(t, err)
		job := c.json("run", "wordcount", "s3://data/in/", "s3://data/out//a/../b %2F+&/", "--reduces", "1")
		require.Equal(t, "COMPLETED", job.str("state"))
		require.EqualValues(t, n, job.num("counters", "millrace", "mapInputRecords"))
		_, lines := readOutput(t, c, "data", "out//a/../b %2F+&/")
		require.Len(t, lines, n)
		_, err = memory.Head(t.Context(), "data", "out//a/../b %2F+&/part-r-00000")
		require.NoError(t, err)
	})
	t.Run("6 GiB", func(t *testing.T) {
		plan := c.json("job", "submit", "cat", "--input", "s3://big/6GiB", "--output", "s3://data/never", "--dry-run")
		require.EqualValues(t, size, plan.num("plan", "bytes"), plan)
		s := c.store()
		for _, offset := range []int64{0, 1<<31 - 8, 1<<32 - 8, size - fakes3.LineLength} {
			body, err := s.Get(t.Context(), "big", "6GiB", offset/fakes3.LineLength*fakes3.LineLength, fakes3.LineLength, "")
			require.NoError(t, err)
			var line [fakes3.LineLength]byte
			_, err = io.ReadFull(body, line[:])
			require.NoError(t, err)
			require.NoError(t, body.Close())
			require.Equal(t, fmt.Sprintf("%015d\n", offset/fakes3.LineLength), string(line[:]))
		}
	})
	t.Run("a million keys", func(t *testing.T) { aMillionKeys(t, c, memory) })
}

// aMillionKeys are planned, counted and printed, with memory for what is kept of each (the
// plan: about 300 bytes) or for none (fs).
func aMillionKeys(t *testing.T, c *cluster, below objectstore.Store) {
	const count, size = 1_000_000, 1600
	require.NoError(t, below.MakeBucket(t.Context(), "many"))
	key := func(i int) string { return fmt.Sprintf("in/%03d/%07d", i/10_000, i) }
	fake := &fakes3.Server{Store: &fakes3.Synthetic{Store: below, Bucket: "many", Count: count, Size: size, Key: key}}
	url := fakes3.Start(t, fake)
	master := c.node("MASTER", 0)
	plan := c.json("job", "submit", "cat", "--input", "s3://many/in/", "--output", "s3://data/never", "--dry-run",
		"--s3", url, "--s3-access-key", "key", "--s3-secret-key", "secret")
	require.EqualValues(t, count, plan.num("plan", "objects"), plan)
	require.EqualValues(t, count*size, plan.num("plan", "bytes"), plan)
	peak := peakMemory(t, int(master.num("pid")))
	t.Logf("the plan: %d requests; the master's peak: %.0f MB", fake.Requests(), peak)
	require.Less(t, peak, 1000.0)

	list := exec.Command(binary(t), "fs", "ls", "-R", "s3://many/in/")
	list.Env = append(c.environ(), "AWS_ENDPOINT_URL="+url)
	out, err := list.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, list.Start())
	lines := bufio.NewScanner(out)
	n, most := 0, 0.0
	for ; lines.Scan(); n++ {
		require.Contains(t, lines.Text(), key(n))
		if n%100_000 == 99_999 && n < count-1 { // while it runs: rusage has what the test itself had when it forked
			most = max(most, peakMemory(t, list.Process.Pid))
		}
	}
	require.NoError(t, list.Wait())
	require.Equal(t, count, n)
	t.Logf("fs ls -R: %.0f MB", most)
	require.Less(t, most, 200.0)
}
