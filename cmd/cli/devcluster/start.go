package devcluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"millrace/pkg/api"
	"millrace/pkg/api/apiconnect"
	"millrace/pkg/client"
	"millrace/pkg/embeddedstore"
)

// systemBucket is where a site keeps its own things, unless told otherwise; dev never does.
const systemBucket = "millrace-system"

// sayAfter is how long a start waits for nodes before it says which.
const sayAfter = 10 * time.Second

// start launches the processes, side by side where order allows, and waits until all nodes run.
func (c *Cluster) start(ctx context.Context) error {
	store, err := c.openStore()
	if err != nil {
		return err
	}
	if c.store != nil {
		c.launch(c.store)
		if err := embeddedstore.Ready(ctx, c.s3.Endpoint); err != nil {
			return fmt.Errorf("object store: %w", err)
		}
	}
	c.launch(c.master)
	for _, n := range c.nodes {
		c.launch(n.process)
	}
	admin, err := c.waitForMaster(ctx)
	if err != nil {
		return err
	}
	defer admin.Close()
	if err := c.rejoin(ctx, admin.API()); err != nil {
		return err
	}
	if err := c.ensureHome(ctx, admin.API()); err != nil {
		return err
	}
	if err := c.giveTokens(ctx, admin.API()); err != nil {
		return err
	}
	if err := c.waitForNodes(ctx, admin.API()); err != nil {
		return err
	}
	if err := c.sayLeft(ctx, admin.API()); err != nil {
		return err
	}
	return poll(ctx, func() (bool, error) { return store.BucketExists(ctx, systemBucket) }) // the master makes it
}

// poll calls done every 20 ms until it says so. Only the start does this: nothing in a job's path polls.
func poll(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// waitForMaster waits until the master has written the administrator's credential and answers to it.
func (c *Cluster) waitForMaster(ctx context.Context) (*client.Client, error) {
	var admin *client.Client
	file := filepath.Join(c.dir(c.master.name), "admin.json")
	err := poll(ctx, func() (bool, error) {
		found, err := client.ReadContext(file)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		found.Servers = c.servers
		found.S3 = &c.s3
		c.context = found
		admin, err = client.New(client.Config{Servers: found.Servers, Credential: found.Credential(), RetryFor: -1})
		return err == nil, err
	})
	if err != nil {
		return nil, err
	}
	err = poll(ctx, func() (bool, error) {
		one, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		_, err := admin.API().GetSite(one, connect.NewRequest(&api.GetSiteRequest{}))
		return err == nil, fatal(err)
	})
	if err != nil {
		return nil, errors.Join(err, admin.Close())
	}
	return admin, nil
}

// fatal keeps errors that waiting does not help with.
func fatal(err error) error {
	switch connect.CodeOf(err) {
	case connect.CodePermissionDenied, connect.CodeUnauthenticated, connect.CodeUnimplemented, connect.CodeInvalidArgument:
		return err
	}
	return nil
}

func (c *Cluster) giveTokens(ctx context.Context, svc apiconnect.MillraceServiceClient) error {
	need := map[string]int32{} // by role: those without a certificate of their own
	for _, n := range c.nodes {
		if n.token != nil {
			need[n.role]++
		}
	}
	tokens := map[string]string{}
	for _, n := range c.nodes {
		if n.token == nil {
			continue
		}
		if tokens[n.role] == "" {
			resp, err := svc.CreateJoinToken(ctx, connect.NewRequest(&api.CreateJoinTokenRequest{Role: n.role, TtlMs: time.Hour.Milliseconds(), Uses: need[n.role]}))
			if err != nil {
				return fmt.Errorf("make a join token: %w", err)
			}
			tokens[n.role] = resp.Msg.GetToken()
		}
		n.token <- tokens[n.role]
	}
	return nil
}

// sayLeft names nodes of the site that run in this folder and were not asked for this time.
func (c *Cluster) sayLeft(ctx context.Context, svc apiconnect.MillraceServiceClient) error {
	if len(c.left) == 0 {
		return nil
	}
	resp, err := svc.ListNodes(ctx, connect.NewRequest(&api.ListNodesRequest{}))
	if err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	known := slices.DeleteFunc(slices.Clone(c.left), func(name string) bool {
		return !slices.ContainsFunc(resp.Msg.GetNodes(), func(n *api.Node) bool { return n.GetName() == name })
	})
	if len(known) > 0 {
		c.conf.Say("the cluster has more nodes than were asked for; not started, and lost until it is started without --core, --task and --pool: %s (millrace node remove NAME takes one out for good)", strings.Join(known, ", "))
	}
	return nil
}

func (c *Cluster) waitForNodes(ctx context.Context, svc apiconnect.MillraceServiceClient) error {
	missing, said, began := "", "", time.Now()
	err := poll(ctx, func() (bool, error) {
		resp, err := svc.ListNodes(ctx, connect.NewRequest(&api.ListNodesRequest{}))
		if err != nil {
			return false, fatal(err)
		}
		running := map[string]bool{}
		for _, n := range resp.Msg.GetNodes() {
			if (n.GetState() == "RUNNING" || n.GetState() == "DRAINING") && (n.GetRole() != "MASTER" || n.GetMember() != "LEARNER") { // one that was taken out stays out
				running[n.GetName()] = true
			}
		}
		var left []string
		for _, n := range c.nodes {
			if !running[n.name] && !n.gone() {
				left = append(left, n.name)
			}
		}
		missing = strings.Join(left, ", ")
		if missing != "" && missing != said && time.Since(began) > sayAfter {
			said = missing
			c.conf.Say("still waiting for %s (logs: %s)", missing, filepath.Join(c.conf.Dir, "logs"))
		}
		return len(left) == 0, nil
	})
	if err != nil && missing != "" {
		return fmt.Errorf("not running: %s: %w", missing, err)
	}
	return err
}
