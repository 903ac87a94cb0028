//go:build cluster

package clustertest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// fillUp takes all room on a node's disk, but for some KiB; the file is to be removed again.
func fillUp(t *testing.T, c *cluster, node string) (file string) {
	t.Helper()
	file = filepath.Join(c.dir, node, "somebody-elses")
	f, err := os.Create(file)
	require.NoError(t, err)
	_, err = io.Copy(f, zeros{})
	require.True(t, errors.Is(err, syscall.ENOSPC), "%v", err)
	require.NoError(t, f.Close())
	return file
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestMastersDiskFills: a leader, then a follower, has no room for its log. The others go on; what was acknowledged is there in
// the end, on the one that had no room, too; nothing of it is said any more then, and it can lead.
func TestMastersDiskFills(t *testing.T) {
	c := startOnDisks(t, map[string]string{"master-1": "24m", "master-2": "24m", "master-3": "24m"},
		"--masters", "3", "--core", "1", "--task", "0", "--slots", "2")
	in := newCorpus(1, 1<<20)
	in.put(t, c, "data")
	voters(c, 3)
	for name, leads := range map[string]bool{"leader": true, "follower": false} {
		t.Run(name, func(t *testing.T) {
			sick := leader(c)
			if !leads {
				sick = follower(c)
			}
			file := fillUp(t, c, sick.str("name"))
			var jobs []string
			written := 0
			named := func() (bool, string) { // until there is no room for one more: the log has some in its file, at times megabytes
				mkdir := []string{"fs", "mkdir"}
				for range 20 {
					written++
					mkdir = append(mkdir, fmt.Sprintf("hdfs:///%s/%s%d", name, strings.Repeat(strings.Repeat("n", 200)+"/", 15), written))
				}
				c.try(mkdir...)
				r := c.try("cluster", "show", "--json")
				return r.code == 0 && strings.Contains(r.out, "MASTER node "+sick.str("id")) && strings.Contains(r.out, "no space left on device"), r.out + r.err
			}
			waitFor(t, sick.str("name")+" is named with its trouble", named)
			require.NotEqual(t, sick.str("id"), leader(c).str("id"))
			job := c.json("run", "wordcount", "s3://data/in", "s3://data/"+name)
			require.Equal(t, "COMPLETED", job.str("state"))
			jobs = append(jobs, job.str("id"))
			log, err := os.ReadFile(filepath.Join(c.dir, "logs", sick.str("name")+".log"))
			require.NoError(t, err)
			require.Contains(t, string(log), "this master takes no part in anything until its disk takes the log again")
			require.NotContains(t, string(log), "panic: ")

			require.NoError(t, os.Remove(file))
			waitFor(t, "nothing is wrong", func() (bool, string) {
				o := c.json("cluster", "show")["problems"]
				return fmt.Sprint(o) == "[]", fmt.Sprint(o)
			})
			for _, n := range c.nodes("MASTER") {
				if n.str("id") == sick.str("id") {
					require.Equal(t, sick.num("pid"), n.num("pid"), "its process went on")
				}
			}
			// The other two go one after the other: what it has missed it has now, or nobody could lead.
			for _, n := range c.nodes("MASTER") {
				if n.str("id") != sick.str("id") {
					c.kill(n)
					waitFor(t, n.str("name")+" is started again", func() (bool, string) {
						m := c.nodeNamed(n.str("name")) // it has told the leader who it is now
						return m.num("pid") > 0 && m.num("pid") != n.num("pid"), fmt.Sprint(m)
					})
					voters(c, 3)
				}
			}
			for _, id := range jobs {
				require.Equal(t, "COMPLETED", c.json("job", "show", id).str("state"))
			}
		})
	}
}
