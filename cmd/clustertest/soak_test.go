//go:build cluster && soak

package clustertest

import (
	"cmp"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var soakJobs = flag.Int("soak.jobs", 500, "how many jobs TestSoak runs")

// What a process holds. Each measure has a margin: what its trend over the last two thirds of a soak may add up to, as a
// part of what it was, and at least so much. Memory is what is anonymous: pages of a mapped file are the kernel's to keep.
var measures = []struct {
	name  string
	part  float64
	least float64
}{
	{"threads", 0.2, 4},
	{"descriptors", 0.1, 4},
	{"memory MB", 0.2, 6},
	{"disk kB", 0.1, 256},
}

// A master's log grows by each job until it is compacted, which so few entries do not bring about, and of each job a stub stays in
// its state: 1.1 kB alive, of which the collector of garbage makes some four. So much a job, not more.
const (
	logPerJob  = 24.0 // kB
	stubPerJob = 5.0  // kB
)

// sample is what the processes held after some jobs: a value per measure.
type sample map[string][]float64

// TestSoak runs small jobs of all kinds of ends one after the other, on three masters and two workers, and looks at what each process holds
// after every few of them. After a third of the jobs, which fill caches and pools, nothing may rise any more.
//
// What counts as a rise must show twice: as Theil and Sen's slope (the median of the slopes between all pairs of samples, which a third of outliers does not
// move) times the length of the window, and as the difference of the medians of the last and of the middle third. One alone may be a sawtooth of the collector of garbage.
func TestSoak(t *testing.T) {
	c := startCluster(t, "--masters", "3", "--core", "1", "--task", "1", "--slots", "2", "--keep-jobs", "20")
	newCorpus(1, 64<<10).put(t, c, "data")
	voters(c, 3)
	every := max(1, *soakJobs/100)
	var samples []sample
	began := time.Now()
	for i := range *soakJobs {
		soakJob(t, c, i)
		if i%every == every-1 {
			samples = append(samples, c.sample())
		}
	}
	t.Logf("%d jobs in %s, %d samples", *soakJobs, time.Since(began).Round(time.Second), len(samples))
	c.trends(samples)
	c.goroutines()
}

// soakJob runs the i-th job.
func soakJob(t *testing.T, c *cluster, i int) {
	t.Helper()
	kinds := [][]string{
		{"wordcount", "--reduces", "2", "--split-size", "16KiB"},
		{"cat"},
		{"--mapper", "cat", "--reducer", "cat"},
		{"--mapper", "echo no luck >&2; exit 3", "--reducer", "cat", "--max-attempts", "1"},
		{"distinct"},
		{"--mapper", "cat; sleep 60", "--reducer", "cat"}, // to be cancelled
		{"wordcount", "--priority", "1"},
	}
	kind := i % len(kinds)
	args := slices.Concat([]string{"--input", "s3://data/in", "--output", fmt.Sprintf("s3://data/out/%d", kind), "--overwrite"}, kinds[kind])
	want := "COMPLETED"
	switch kind {
	case 3:
		want = "FAILED"
	case 5:
		want = "CANCELLED"
	}
	id := c.submit(args...)
	if want == "CANCELLED" {
		c.waitJobUntil(id, "runs", func(o object) bool { return o.num("maps", "running") > 0 })
		c.mr("job", "cancel", id)
	}
	job := c.waitJob(id)
	require.Equal(t, want, job.str("state"), "job %d: %v", i, job)
	if i%10 == 0 {
		c.mr("job", "list", "--limit", "50")
		c.mr("job", "tasks", id)
		c.mr("node", "list")
	}
}

// processes are the cluster's, by name.
func (c *cluster) processes() map[string]int {
	found := map[string]int{"dev": c.dev.Process.Pid}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		line, _ := os.ReadFile(filepath.Join(d, "cmdline"))
		argv := strings.Split(string(line), "\x00")
		if i := slices.Index(argv, "--dir"); i >= 0 && i+1 < len(argv) && filepath.Dir(argv[i+1]) == c.dir {
			found[filepath.Base(argv[i+1])], _ = strconv.Atoi(filepath.Base(d))
		}
	}
	return found
}

func (c *cluster) sample() sample {
	c.t.Helper()
	s := sample{}
	for name, pid := range c.processes() {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		require.NoError(c.t, err, "%s is gone", name)
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		require.NoError(c.t, err)
		values := []float64{statusOf(status, "Threads"), float64(len(fds)), statusOf(status, "RssAnon") / 1024, 0}
		if name != "dev" && name != "object-store" { // what jobs leave in the store is theirs
			values[3] = diskOf(filepath.Join(c.dir, name)) / 1024
		}
		s[name] = values
	}
	return s
}

// statusOf reads a number of /proc/PID/status.
func statusOf(status []byte, field string) float64 {
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			n, _ := strconv.ParseFloat(strings.Fields(value)[0], 64)
			return n
		}
	}
	return 0
}

// diskOf is the bytes that a folder takes.
func diskOf(dir string) (bytes float64) {
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if info, statErr := os.Lstat(path); err == nil && statErr == nil {
			bytes += float64(info.Sys().(*syscall.Stat_t).Blocks) * 512
		}
		return nil // what has just gone counts no more
	})
	return bytes
}

// trends shows and judges what the processes held.
func (c *cluster) trends(samples []sample) {
	c.t.Helper()
	n := len(samples)
	require.GreaterOrEqual(c.t, n, 12, "too few samples to see a trend")
	jobs := float64(*soakJobs) / float64(n) // between two samples
	var lines []string
	for name := range samples[n-1] {
		for m, measure := range measures {
			var values []float64
			for _, s := range samples {
				require.Contains(c.t, s, name, "it was started again")
				values = append(values, s[name][m])
			}
			first, middle, last := medianOf(values[:n/3]), medianOf(values[n/3:n-n/3]), medianOf(values[n-n/3:])
			rise := riseOf(values)
			margin := max(measure.least, measure.part*middle)
			if window := jobs * float64(n-n/3); strings.HasPrefix(name, "master") {
				switch measure.name {
				case "disk kB":
					margin = logPerJob * window
				case "memory MB":
					margin += stubPerJob * window / 1024
				}
			}
			verdict := ""
			if rises(values, margin) {
				verdict = "  RISES"
				c.t.Errorf("%s of %s rise: by %.1f over the last two thirds, more than %.1f", measure.name, name, rise, margin)
			}
			lines = append(lines, fmt.Sprintf("%-13s %-12s %10.1f %10.1f %10.1f %10.1f %10.1f%s", name, measure.name, first, middle, last, rise, margin, verdict))
		}
	}
	slices.Sort(lines)
	c.t.Logf("medians of each third, the rise by Theil and Sen over the last two, and its margin:\n%-13s %-12s %10s %10s %10s %10s %10s\n%s",
		"process", "", "first", "middle", "last", "rise", "margin", strings.Join(lines, "\n"))
}

// riseOf is what the trend of the last two thirds adds up to.
func riseOf(values []float64) float64 {
	warm := values[len(values)/3:]
	return slope(warm) * float64(len(warm))
}

// rises judges a series. Half of the window lies between the medians of the last two thirds; half of that again is noise.
func rises(values []float64, margin float64) bool {
	n := len(values)
	return riseOf(values) > margin && medianOf(values[n-n/3:])-medianOf(values[n/3:n-n/3]) > margin/4
}

func TestATrendIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		value func(i int) float64
		want  bool
	}{
		"flat":                      {func(int) float64 { return 20 }, false},
		"filled in the first third": {func(i int) float64 { return float64(min(i, 30)) }, false},
		"a sawtooth":                {func(i int) float64 { return 20 + float64(i%17) }, false},
		"a few outliers":            {func(i int) float64 { return 20 + float64(i%10/9*500) }, false},
		"it falls":                  {func(i int) float64 { return 200 - float64(i) }, false},
		"one in ten samples":        {func(i int) float64 { return 20 + float64(i/10) }, true},
		"with noise":                {func(i int) float64 { return 20 + float64(i)/5 + float64(i*7919%13) }, true},
		"in steps":                  {func(i int) float64 { return 20 + float64(i/25*8) }, true},
	} {
		var values []float64
		for i := range 100 {
			values = append(values, c.value(i))
		}
		require.Equal(t, c.want, rises(values, 5), "%s: it rises by %.1f", name, riseOf(values))
	}
}

// slope is Theil and Sen's, per sample.
func slope(values []float64) float64 {
	var all []float64
	for i := range values {
		for k := i + 1; k < len(values); k++ {
			all = append(all, (values[k]-values[i])/float64(k-i))
		}
	}
	return medianOf(all)
}

func medianOf[T cmp.Ordered](values []T) T {
	return slices.Sorted(slices.Values(values))[len(values)/2]
}

var goroutine = regexp.MustCompile(`(?m)^goroutine \d+ `)

// goroutines ends each node by SIGQUIT, by which a Go program tells what all of its goroutines do: a leak of one a job would be hundreds.
func (c *cluster) goroutines() {
	const most = 100
	c.t.Helper()
	for name, pid := range c.processes() {
		if name == "dev" {
			continue
		}
		file := filepath.Join(c.dir, "logs", name+".log")
		before, err := os.ReadFile(file)
		require.NoError(c.t, err)
		require.NoError(c.t, syscall.Kill(pid, syscall.SIGQUIT))
		var dump []byte
		waitFor(c.t, name+" has told what it does", func() (bool, string) {
			whole, _ := os.ReadFile(file)
			dump = whole[len(before):]
			return syscall.Kill(pid, 0) != nil, string(dump)
		})
		n := len(goroutine.FindAll(dump, -1))
		c.t.Logf("%-13s %d goroutines", name, n)
		if n == 0 || n > most {
			c.t.Errorf("%s has %d goroutines after the last job, at most %d are expected:\n%s", name, n, most, dump[:min(len(dump), 20_000)])
		}
	}
}
