//go:build cluster

package clustertest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestProgramsThatTakeTooMuch: an attempt that takes more of its node than it may, or will not end, ends with that cause;
// the node stays well, another job on it completes, and nothing of the attempt is left.
func TestProgramsThatTakeTooMuch(t *testing.T) {
	c := startOnSmallDisks(t, map[string]string{"core-1": "160m", "core-2": "160m"})
	in := newCorpus(1, 1<<20)
	in.put(t, c, "data")
	before := map[string]int64{}
	for _, n := range c.nodes("CORE") {
		before[n.str("id")] = n.num("pid")
	}
	mark := filepath.Join(t.TempDir(), "of-this-test")
	for _, p := range []struct {
		name, mapper string
		flags        []string
		says         string
	}{
		{"forks without end", "bomb() { : " + mark + "; bomb | bomb & }; bomb; wait", []string{"-D", "millrace.task.processes=100"}, "it had more than 100 processes"},
		{"holds more memory", "(head -c 400M /dev/zero; sleep 777) | tail # " + mark, []string{"--memory", "64MiB"}, "out of memory: its processes held"},
		{"fills the disk", "head -c 150M /dev/zero > file; sleep 777 # " + mark, nil, "its program has filled the disk"},
		{"fails as the disk is full", "head -c 500M /dev/zero > file || exit 3 # " + mark, nil, "its program has filled the disk"},
		{"will not end", "trap '' TERM INT HUP; while :; do sleep 777; done # " + mark, []string{"-D", "mapreduce.task.timeout=1000"}, "no progress for 1s"},
	} {
		t.Run(p.name, func(t *testing.T) {
			script := script(t, "m.sh", "#!/bin/sh\n"+p.mapper+"\n")
			out := "s3://data/" + filepath.Base(t.Name())
			bad := c.submit(append([]string{"--mapper", "./m.sh", "--file", script, "--reducer", "cat", "--max-attempts", "1",
				"--input", "s3://data/in/a-large.txt", "--output", out}, p.flags...)...)
			good := c.submit("wordcount", "--input", "s3://data/in", "--split-size", "128KiB", "--output", out+"-good")
			job := c.waitJob(bad)
			require.Equal(t, "FAILED", job.str("state"), job)
			require.Contains(t, job.str("reason"), p.says, job)
			require.EqualValues(t, 1, job.num("attempts", "failed"), job)
			job = c.waitJob(good)
			require.Equal(t, "COMPLETED", job.str("state"), job)
			require.Zero(t, job.num("attempts", "failed"), job)
			_, lines := readOutput(t, c, "data", filepath.Base(t.Name())+"-good/")
			requireCounts(t, in.counts, lines)
			waitFor(t, "its processes are gone", func() (bool, string) {
				left := append(c.running("sleep\x00777"), c.running("m.sh")...)
				return len(left) == 0, ""
			})
			for _, n := range c.nodes("CORE") {
				require.Equal(t, before[n.str("id")], n.num("pid"), n)
				require.Equal(t, "RUNNING", n.str("state"), n)
			}
			waitFor(t, "the disks are free again", func() (bool, string) {
				for _, name := range []string{"core-1", "core-2"} {
					left, err := os.ReadDir(filepath.Join(c.dir, name, "attempts"))
					if err != nil || len(left) > 1 { // its .token
						return false, name
					}
				}
				return true, ""
			})
		})
	}
}
