package cli

import (
	"context"
	"strings"
	"time"

	"connectrpc.com/connect"

	"millrace/cmd/cli/files"
	"millrace/jobs"
	"millrace/jobs/builtin"
	"millrace/pkg/api"
	"millrace/pkg/client"
)

const (
	// completeWithin bounds what a person waits for after Tab.
	completeWithin = 2 * time.Second
	// completeMost bounds the answers: nobody chooses from more.
	completeMost = 200
)

// completeValue says what a word may become that is an argument, or a flag's value. Nothing is what the shell takes
// for "a file, perhaps"; so is whatever cannot be found out.
func (c *call) completeValue(p *parser, last string) []string {
	ctx, cancel := context.WithTimeout(c.Context.Context, completeWithin)
	defer cancel()
	if f := p.waitingFlag(); f != "" {
		return starting(c.valuesOf(ctx, f, last), last)
	}
	if name, value, ok := strings.Cut(last, "="); ok && strings.HasPrefix(last, "-") {
		f, _ := p.find(strings.TrimLeft(name, "-"))
		if f == nil {
			return nil
		}
		var found []string
		for _, v := range starting(c.valuesOf(ctx, f.Names()[0], value), value) {
			found = append(found, name+"="+v)
		}
		return found
	}
	return starting(c.argumentsOf(ctx, p, last), last)
}

func (p *parser) waitingFlag() string {
	if len(p.words) == 1 {
		if f := p.waiting(); f != nil {
			return f.Names()[0]
		}
	}
	return ""
}

func (c *call) valuesOf(ctx context.Context, flag, value string) []string {
	switch flag {
	case "input", "output":
		return c.objects(ctx, value)
	case "context":
		return c.contexts()
	case "input-format":
		return jobs.InputFormats()
	case "output-format":
		return jobs.OutputFormats()
	case "compress":
		return jobs.Codecs()
	case "state":
		return jobStates
	case "role":
		return []string{"core", "task", "master"}
	case "cluster":
		return c.clusterNames(ctx)
	}
	return nil
}

func (c *call) argumentsOf(ctx context.Context, p *parser, last string) []string {
	command := p.leaf()
	if strings.HasPrefix(last, "s3:") && (strings.Contains(command.ArgsUsage, "URL") || strings.Contains(command.ArgsUsage, "INPUT") || strings.Contains(command.ArgsUsage, "TO")) {
		return c.objects(ctx, last)
	}
	if strings.HasSuffix(command.ArgsUsage, "…") || len(p.inv.args) == 0 {
		switch strings.Trim(strings.Fields(command.ArgsUsage + " -")[0], "[]") {
		case "JOB":
			return c.jobNames(ctx)
		case "NODE":
			return c.nodeNames(ctx)
		case "CLUSTER":
			return c.clusterNames(ctx)
		case "NAME":
			return c.contexts()
		case "PROGRAM":
			return programs()
		case "SHELL":
			return []string{"bash", "fish", "zsh"}
		}
	}
	return nil
}

func programs() (names []string) {
	for _, p := range builtin.List() {
		names = append(names, p.Name)
	}
	return names
}

func (c *call) contexts() []string {
	home, err := c.home()
	if err != nil {
		return nil
	}
	names, err := client.ListContexts(home)
	if err != nil {
		return nil
	}
	return names
}

func (c *call) jobNames(ctx context.Context) []string {
	conn, err := c.connect()
	if err != nil {
		return nil
	}
	resp, err := conn.api().ListJobs(ctx, connect.NewRequest(&api.ListJobsRequest{Cluster: conn.cluster, Limit: completeMost}))
	if err != nil {
		return nil
	}
	names := []string{"last"}
	for i, j := range resp.Msg.GetJobs() {
		if i == completeMost {
			break
		}
		names = append(names, j.GetId())
		if n := j.GetName(); n != "" && n == clean(n) {
			names = append(names, n)
		}
	}
	return names
}

func (c *call) nodeNames(ctx context.Context) (names []string) {
	conn, err := c.connect()
	if err != nil {
		return nil
	}
	resp, err := conn.api().ListNodes(ctx, connect.NewRequest(&api.ListNodesRequest{}))
	if err != nil {
		return nil
	}
	for _, n := range resp.Msg.GetNodes() {
		names = append(names, n.GetId(), n.GetName())
	}
	return names
}

func (c *call) clusterNames(ctx context.Context) (names []string) {
	conn, err := c.connect()
	if err != nil {
		return nil
	}
	resp, err := conn.api().ListClusters(ctx, connect.NewRequest(&api.ListClustersRequest{}))
	if err != nil {
		return nil
	}
	for _, cl := range resp.Msg.GetClusters() {
		if !over(cl.GetState()) {
			names = append(names, cl.GetName())
		}
	}
	return names
}

// objects are the buckets, folders and objects at the level at which a URL ends.
func (c *call) objects(ctx context.Context, url string) (found []string) {
	const scheme = "s3://"
	if strings.HasPrefix(scheme, url) && url != scheme {
		return []string{scheme}
	}
	folder := url[:strings.LastIndexByte(url, '/')+1]
	if !strings.HasPrefix(folder, scheme) {
		return nil
	}
	place, err := files.Parse(folder)
	if err != nil {
		return nil
	}
	for e, err := range c.files().List(ctx, place, false) {
		if err != nil || len(found) == completeMost {
			return found
		}
		name := e.Place.String()
		if name != clean(name) || !strings.HasPrefix(name, url) {
			continue
		}
		if e.Dir && !strings.HasSuffix(name, "/") {
			name += "/"
		}
		found = append(found, name)
	}
	return found
}
