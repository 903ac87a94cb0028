package devcluster

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"connectrpc.com/connect"

	"millrace/pkg/api"
	"millrace/pkg/api/apiconnect"
	"millrace/pkg/client"
)

// home is the cluster that dev's own nodes are of.
const home = "default"

// nodeFile is in the folder of a node that has joined.
const nodeFile = "node.json"

// arm makes a node's process anew, by what its folder holds.
func (c *Cluster) arm(n *node) {
	argv := n.base
	if _, err := os.Stat(filepath.Join(c.dir(n.name), nodeFile)); err != nil {
		// It starts at once and waits for its token on standard input, so that its start
		// and the first master's go side by side.
		n.token = make(chan string, 1)
		argv = append(slices.Clone(argv), "--token", "-")
	}
	n.process = c.process(n.name, nil, argv...)
	n.last = client.ExitNotFound // it was removed from the site
	if n.token != nil {
		n.stdin = n.token
	}
}

// rejoin has the nodes whose cluster has ended begin anew, in a fresh folder: the site takes none of them back as
// who they were. One that was taken out of a cluster that goes on stays out.
func (c *Cluster) rejoin(ctx context.Context, svc apiconnect.MillraceServiceClient) error {
	live, err := clusters(ctx, svc)
	if err != nil {
		return err
	}
	var anew []string
	for _, n := range c.nodes {
		of, err := c.clusterOf(n)
		if err != nil {
			return err
		}
		if of == "" || slices.ContainsFunc(live, func(l *api.Cluster) bool { return l.GetId() == of }) {
			continue
		}
		n.stop()
		c.wait(n.process)
		if err := os.RemoveAll(c.dir(n.name)); err != nil {
			return err
		}
		c.arm(n)
		c.launch(n.process)
		anew = append(anew, n.name)
	}
	if len(anew) > 0 {
		c.conf.Say("nodes whose cluster has ended join cluster %s anew: %s", home, strings.Join(anew, ", "))
	}
	return nil
}

// clusterOf is the cluster that a node's folder is of; "" for a master, for a node of the pool, and for one that has not joined yet.
func (c *Cluster) clusterOf(n *node) (string, error) {
	if n.token != nil || n.role != "core" && n.role != "task" {
		return "", nil
	}
	var known struct {
		Cluster string `json:"cluster"`
	}
	data, err := os.ReadFile(filepath.Join(c.dir(n.name), nodeFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err == nil {
		err = json.Unmarshal(data, &known)
	}
	if err != nil {
		return "", fmt.Errorf("read %s of %s: %w", nodeFile, n.name, err)
	}
	return known.Cluster, nil
}

// clusters are those of the site that have not ended.
func clusters(ctx context.Context, svc apiconnect.MillraceServiceClient) ([]*api.Cluster, error) {
	resp, err := svc.ListClusters(ctx, connect.NewRequest(&api.ListClustersRequest{}))
	if err != nil {
		return nil, fmt.Errorf("list clusters: %w", err)
	}
	return slices.DeleteFunc(resp.Msg.GetClusters(), func(l *api.Cluster) bool { return strings.HasPrefix(l.GetState(), "TERMINATED") }), nil
}

// ensureHome makes the cluster that dev's nodes join, if it was terminated; one that is being terminated is waited for.
func (c *Cluster) ensureHome(ctx context.Context, svc apiconnect.MillraceServiceClient) error {
	for _, n := range c.nodes {
		if n.token == nil || n.role != "core" && n.role != "task" {
			continue
		}
		return poll(ctx, func() (bool, error) {
			live, err := clusters(ctx, svc)
			if err != nil {
				return false, fatal(err)
			}
			i := slices.IndexFunc(live, func(l *api.Cluster) bool { return l.GetName() == home })
			if i >= 0 {
				return live[i].GetState() != "TERMINATING", nil
			}
			none := int64(0) // its groups grow with the nodes that join
			_, err = svc.CreateCluster(ctx, connect.NewRequest(&api.CreateClusterRequest{Name: home, RequestId: rand.Text(),
				Groups: []*api.GroupTarget{{Role: "core", Target: &none}, {Role: "task", Target: &none}}}))
			if err != nil {
				return false, fmt.Errorf("make cluster %s anew: %w", home, err)
			}
			c.conf.Say("cluster %s was terminated: it is made anew", home)
			return true, nil
		})
	}
	return nil
}
