package devcluster

import (
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
)

// prepared is a cluster that was prepared in a folder, and that is all.
func prepared(t *testing.T, dir string, conf Config) *Cluster {
	t.Helper()
	conf.Dir, conf.Binary, conf.Slots = dir, "/bin/false", 1
	c, err := New(conf)
	require.NoError(t, err)
	c.layout, err = loadLayout(dir)
	require.NoError(t, err)
	require.NoError(t, c.prepare())
	require.NoError(t, c.layout.save())
	return c
}

func (c *Cluster) names() (list []string) {
	for _, n := range c.nodes {
		list = append(list, n.name)
	}
	return list
}

// A cluster that is started again has the nodes that it had, but for roles of which it is said how many.
func TestAClusterGoesOnWithTheNodesThatItHad(t *testing.T) {
	dir := t.TempDir()
	asBefore := Config{Core: 2, Task: 1, AsBefore: []string{"core", "task", "pool"}}
	c := prepared(t, dir, asBefore)
	require.Equal(t, []string{"core-1", "core-2", "task-1"}, c.names())

	c = prepared(t, dir, Config{Core: 3, Task: 0, Pool: 2, AsBefore: []string{"task"}})
	all := []string{"core-1", "core-2", "core-3", "task-1", "pool-1", "pool-2"}
	require.Equal(t, all, c.names())
	require.Empty(t, c.left)
	require.Equal(t, []int{3, 1, 2, 4}, []int{c.Workers("core"), c.Workers("task"), c.Workers("pool"), c.Slots()})

	c = prepared(t, dir, Config{Core: 1, Pool: 1, AsBefore: []string{"task"}})
	require.Equal(t, []string{"core-1", "task-1", "pool-1"}, c.names())
	require.Equal(t, []string{"core-2", "core-3", "pool-2"}, c.left)

	c = prepared(t, dir, asBefore)
	require.Equal(t, all, c.names(), "they are its nodes, though they were not started the last time")

	delete(c.layout.Ports, "core-2") // it was taken out of the site
	require.NoError(t, c.layout.save())
	c = prepared(t, dir, asBefore)
	require.Equal(t, []string{"core-1", "core-3", "task-1", "pool-1", "pool-2"}, c.names())
	require.Equal(t, 2, c.Workers("core"))

	dir = t.TempDir()
	prepared(t, dir, Config{Core: 1})
	require.Equal(t, []string{"core-1"}, prepared(t, dir, asBefore).names(), "nor does it get more than it had")
}

// Nodes that the site has and that are not started would be lost without a word.
func TestNodesThatAreNotStartedAreNamed(t *testing.T) {
	s := newSaid()
	c := &Cluster{conf: Config{Say: s.say}, left: []string{"core-2", "core-3", "pool-2"}}
	site := &siteOf{nodes: []*api.Node{{Name: "core-1"}, {Name: "core-2"}, {Name: "pool-2"}}} // core-3 was removed
	require.NoError(t, c.sayLeft(t.Context(), site))
	require.Equal(t, []string{"the cluster has more nodes than were asked for; not started, and lost until it is started without --core, --task and --pool: core-2, pool-2 (millrace node remove NAME takes one out for good)"}, s.lines)

	c.left = []string{"core-3"}
	require.NoError(t, c.sayLeft(t.Context(), site))
	require.Len(t, s.lines, 1)
}

func TestOneMachineHasRoomForSoManyProcesses(t *testing.T) {
	_, err := New(Config{Dir: t.TempDir(), Core: 1_000_000})
	require.ErrorContains(t, err, "1000000 nodes on one machine: each is a process; at most 200")
}
