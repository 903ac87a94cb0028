package devcluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
	"millrace/pkg/api/apiconnect"
)

// siteOf answers about clusters as a master does.
type siteOf struct {
	apiconnect.MillraceServiceClient
	clusters []*api.Cluster
	tokens   []string // the roles they were made for
	nodes    []*api.Node
}

func (s *siteOf) ListNodes(context.Context, *connect.Request[api.ListNodesRequest]) (*connect.Response[api.ListNodesResponse], error) {
	return connect.NewResponse(&api.ListNodesResponse{Nodes: s.nodes}), nil
}

func (s *siteOf) ListClusters(context.Context, *connect.Request[api.ListClustersRequest]) (*connect.Response[api.ListClustersResponse], error) {
	return connect.NewResponse(&api.ListClustersResponse{Clusters: s.clusters}), nil
}

func (s *siteOf) CreateCluster(_ context.Context, r *connect.Request[api.CreateClusterRequest]) (*connect.Response[api.Cluster], error) {
	c := &api.Cluster{Id: "j-NEW", Name: r.Msg.GetName(), State: "STARTING"}
	s.clusters = append(s.clusters, c)
	return connect.NewResponse(c), nil
}

func (s *siteOf) CreateJoinToken(_ context.Context, r *connect.Request[api.CreateJoinTokenRequest]) (*connect.Response[api.JoinToken], error) {
	s.tokens = append(s.tokens, fmt.Sprintf("%s %d", r.Msg.GetRole(), r.Msg.GetUses()))
	return connect.NewResponse(&api.JoinToken{Token: "a token"}), nil
}

// worker is a program that, as a worker does, ends for good if it has joined a cluster that has ended, and else reports its token.
const worker = `#!/bin/sh
case "$*" in *"--token -"*) echo "joins with $(cat)" > %s; exec sleep 100;; esac
exit 4
`

// devOf is a cluster with a core and a task node, whose core node has joined j-OLD before.
func devOf(t *testing.T, s *said) (c *Cluster, heard func() string) {
	fifo, heard := events(t)
	dir := t.TempDir()
	binary := filepath.Join(dir, "millrace")
	require.NoError(t, os.WriteFile(binary, fmt.Appendf(nil, worker, fifo), 0o755))
	c, err := New(Config{Dir: filepath.Join(dir, "dev"), Binary: binary, Core: 1, Task: 1, Slots: 1, Say: s.say, Environ: os.Environ()})
	require.NoError(t, err)
	c.layout = &layout{Ports: map[string]map[string]int{}}
	for _, sub := range []string{"logs", "core-1/blocks"} {
		require.NoError(t, os.MkdirAll(filepath.Join(c.Dir(), sub), 0o700))
	}
	require.NoError(t, os.WriteFile(filepath.Join(c.Dir(), "core-1", nodeFile), []byte(`{"id":"i-1","cluster":"j-OLD"}`), 0o600))
	t.Cleanup(func() { c.Close() })
	return c, heard
}

// begin does what a start does once the master answers.
func begin(t *testing.T, c *Cluster, site *siteOf) {
	for _, n := range c.nodes {
		c.launch(n.process)
	}
	require.NoError(t, c.rejoin(t.Context(), site))
	require.NoError(t, c.ensureHome(t.Context(), site))
	require.NoError(t, c.giveTokens(t.Context(), site))
}

func TestNodesOfAClusterThatWasTerminatedJoinDefaultAnew(t *testing.T) {
	for name, site := range map[string]*siteOf{
		"which was made anew meanwhile": {clusters: []*api.Cluster{{Id: "j-OLD", Name: "default", State: "TERMINATED"}, {Id: "j-NEW", Name: "default", State: "WAITING"}}},
		"which is made anew":            {clusters: []*api.Cluster{{Id: "j-OLD", Name: "default", State: "TERMINATED_WITH_ERRORS"}, {Id: "j-B", Name: "nightly", State: "WAITING"}}},
		"whose end was forgotten":       {},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSaid()
			c, heard := devOf(t, s)
			require.NoError(t, c.prepareWorker("core", "core-1", 0))
			begin(t, c, site)
			require.Equal(t, "joins with a token", heard())
			require.NoDirExists(t, filepath.Join(c.Dir(), "core-1"), "a fresh folder")
			require.Equal(t, []string{"core 1"}, site.tokens)
			require.Contains(t, s.lines, "nodes whose cluster has ended join cluster default anew: core-1")
			defaults := 0
			for _, cl := range site.clusters {
				if cl.GetName() == "default" && cl.GetState() != "TERMINATED" && cl.GetState() != "TERMINATED_WITH_ERRORS" {
					defaults++
				}
			}
			require.Equal(t, 1, defaults)
		})
	}
}

// A node that was taken out of a cluster that goes on, by a resize or by name, stays out of it.
func TestNodesOfAClusterThatGoesOnStayWhoTheyAre(t *testing.T) {
	s := newSaid()
	c, heard := devOf(t, s)
	require.NoError(t, c.prepareWorker("core", "core-1", 0))
	require.NoError(t, c.prepareWorker("task", "task-1", 0))
	site := &siteOf{clusters: []*api.Cluster{{Id: "j-OLD", Name: "default", State: "WAITING"}}}
	begin(t, c, site)
	require.Equal(t, "joins with a token", heard(), "the task node, which is new")
	require.Equal(t, []string{"task 1"}, site.tokens)
	require.FileExists(t, filepath.Join(c.Dir(), "core-1", nodeFile))
	require.Len(t, site.clusters, 1)
	<-c.nodes[0].ended
	require.True(t, c.nodes[0].gone())

	c.layout.path = filepath.Join(c.Dir(), "dev.json")
	require.NoError(t, c.forgetGone())
	again, err := loadLayout(c.Dir())
	require.NoError(t, err)
	require.Equal(t, map[string][]int{"task": {1}}, again.workers(), "nor is it started the next time")
}
