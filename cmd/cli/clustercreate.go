package cli

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	"millrace/cmd/cli/view"
	"millrace/pkg/api"
)

func (a *app) clusterCreateCommand() *cli.Command {
	return a.leaf(spec{name: "create", usage: "make a cluster; its nodes come from the pool, or from another provider", gathers: true,
		example: "millrace cluster create --name nightly --core 3 --task 2 --wait\nmillrace cluster create --name etl --core 2 --bootstrap-action ./setup.sh,pandas --auto-terminate 10m",
		flags: append(append(groupFlags(), bootstrapFlags()...),
			&cli.StringFlag{Name: "name", Usage: "`NAME` of the cluster"},
			&cli.StringFlag{Name: "provider", Usage: "`P` that nodes come from; default: the site's usual one"},
			&cli.IntFlag{Name: "step-concurrency", Usage: "`N` jobs at once, the others wait; 0: no limit"},
			&cli.StringSliceFlag{Name: "tag", Usage: "`KEY=VALUE` (repeatable)"},
			&cli.BoolFlag{Name: "termination-protected", Usage: "terminate refuses, until that is taken away"},
			&cli.DurationFlag{Name: "auto-terminate", Usage: "end after `TIME` without a job"},
			&cli.BoolFlag{Name: "terminate-after-steps", Usage: "end when the jobs that it has got have ended"},
			&cli.StringFlag{Name: "request-id", Usage: "the same `ID` again is the same cluster"},
			&cli.BoolFlag{Name: "wait", Usage: "follow it, until all its nodes are there"},
		), do: clusterCreate})
}

// groupFlags say how many nodes a cluster is to have.
func groupFlags() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "core", Usage: "core nodes, `N`: they run tasks and keep data"},
		&cli.IntFlag{Name: "task", Usage: "task nodes, `N`: they run tasks only"},
		&cli.IntFlag{Name: "task-min", Usage: "the task group scales by itself, with `N` nodes at least"},
		&cli.IntFlag{Name: "task-max", Usage: "… and `N` at most; both 0: no more"},
	}
}

// groupTargets are what the flags say of the groups.
func (c *call) groupTargets(m *mistakes) (targets []*api.GroupTarget) {
	number := func(flag string) *int64 {
		if !c.IsSet(flag) {
			return nil
		}
		n := int64(c.Int(flag))
		if n < 0 {
			m.wrong(c.inv.name()+" --help", "--%s %d: a number of nodes cannot be negative", flag, n)
		}
		return &n
	}
	if n := number("core"); n != nil {
		targets = append(targets, &api.GroupTarget{Role: "core", Target: n})
	}
	task := &api.GroupTarget{Role: "task", Target: number("task"), Min: number("task-min"), Max: number("task-max")}
	if task.Min != nil && task.Max != nil && *task.Min > *task.Max {
		m.wrong("--task-min 0 --task-max 20", "--task-min %d is more than --task-max %d", *task.Min, *task.Max)
	}
	if task.Target != nil || task.Min != nil || task.Max != nil {
		targets = append(targets, task)
	}
	return targets
}

func clusterCreate(c *call) error {
	var m mistakes
	for _, f := range c.inv.wrong {
		m.take(f)
	}
	req := &api.CreateClusterRequest{
		Name: c.String("name"), Groups: c.groupTargets(&m), Provider: c.String("provider"), StepConcurrency: int32(c.Int("step-concurrency")),
		Tags: c.tags("tag", &m), TerminationProtected: c.Bool("termination-protected"), AutoTerminateMs: c.Duration("auto-terminate").Milliseconds(),
		TerminateAfterSteps: c.Bool("terminate-after-steps"), RequestId: c.String("request-id"),
	}
	if req.Name == "" {
		m.wrong("millrace cluster create --name NAME --core 2", "a cluster needs a --name")
	}
	if !c.IsSet("core") {
		one := int64(1) // without one it does nothing
		req.Groups = append(req.Groups, &api.GroupTarget{Role: "core", Target: &one})
	}
	if c.IsSet("auto-terminate") && c.Duration("auto-terminate") < time.Second {
		m.wrong("--auto-terminate 10m", "--auto-terminate %s: at least a second", c.Duration("auto-terminate"))
	}
	var scripts *shipped
	var err error
	if req.BootstrapActions, scripts, err = c.bootstrapActions(&m); err != nil {
		return err
	}
	if err := m.fault(); err != nil {
		return err
	}
	if req.RequestId == "" {
		req.RequestId = rand.Text() // so that the call may be repeated
	}
	conn, err := c.connect()
	if err != nil {
		return err
	}
	ctx := c.Context.Context
	if err := shipScripts(ctx, conn, req.BootstrapActions, scripts); err != nil {
		return err
	}
	resp, err := conn.api().CreateCluster(ctx, connect.NewRequest(req))
	if err != nil {
		return err
	}
	v := view.OfCluster(resp.Msg)
	if c.Bool("wait") {
		if v, err = c.followCluster(ctx, conn, v, isSettled); err != nil {
			return err
		}
	}
	return c.print(v, func(w io.Writer) {
		fmt.Fprintln(w, clusterLine(v))
		if c.IsSet("core") && c.Int("core") == 0 {
			fmt.Fprintf(w, "it does nothing until it has a core node: millrace cluster resize %s --core 1, or millrace join-token create --role core --cluster %[1]s\n", clean(v.Name))
		}
		if !c.Bool("wait") {
			fmt.Fprintf(w, "next: millrace cluster show %s; jobs may be submitted: millrace run … --cluster %[1]s\n", clean(v.Name))
		}
	})
}

// bootstrapFlags are about what nodes run before their first task.
func bootstrapFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "bootstrap-action", Usage: "`SCRIPT[,ARG…]` that every node runs before its first task: s3://BUCKET/KEY or a local file (repeatable, in order)"},
		&cli.DurationFlag{Name: "bootstrap-timeout", Usage: "`TIME` that each bootstrap action has (default: 30m)", DefaultText: "30m"},
	}
}

// bootstrapActions are the actions that the flags name, and the local scripts among them.
func (c *call) bootstrapActions(m *mistakes) (actions []*api.BootstrapAction, scripts *shipped, err error) {
	limit := c.Duration("bootstrap-timeout")
	if limit < 0 {
		m.wrong("--bootstrap-timeout 30m", "--bootstrap-timeout %s is negative", limit)
	}
	scripts = &shipped{paths: map[string]string{}, sizes: map[string]int64{}}
	for _, text := range c.StringSlice("bootstrap-action") {
		action, err := parseAction(text, scripts)
		if err := m.take(err); err != nil {
			return nil, nil, err
		}
		if action != nil {
			action.TimeoutMs = limit.Milliseconds()
			actions = append(actions, action)
		}
	}
	return actions, scripts, nil
}

// tags reads KEY=VALUE.
func (c *call) tags(flag string, m *mistakes) (tags []*api.Tag) {
	for _, text := range c.StringSlice(flag) {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			m.wrong("--"+flag+" KEY=VALUE", "--%s %s: write it KEY=VALUE", flag, shown(text))
			continue
		}
		tags = append(tags, &api.Tag{Key: key, Value: value})
	}
	return tags
}

// parseAction reads SCRIPT[,ARG…]; \, is a comma. Of a local script it takes the sum, and notes that it is to be uploaded.
func parseAction(text string, scripts *shipped) (*api.BootstrapAction, error) {
	words := splitCommas(text)
	action := &api.BootstrapAction{Url: words[0], Args: words[1:]}
	const next = "--bootstrap-action s3://BUCKET/KEY[,ARG…], or a local file"
	switch scheme, _, isURL := strings.Cut(words[0], "://"); {
	case words[0] == "":
		return nil, usagef(next, "--bootstrap-action %s names no script", shown(text))
	case isURL && strings.HasPrefix(strings.ToLower(scheme), "s3"):
		return action, nil
	case isURL:
		return nil, usagef(next, "--bootstrap-action %s: a script is an object in the object store, or a local file", words[0])
	}
	if _, err := os.Stat(words[0]); err != nil {
		return nil, usagef(next, "--bootstrap-action: %s", err)
	}
	f, err := scripts.add(filepath.Base(words[0]), words[0], false)
	if err != nil {
		return nil, err
	}
	if f.Size == 0 {
		return nil, usagef(next, "--bootstrap-action %s: the file is empty", words[0])
	}
	action.Url, action.Name, action.Sha256 = "", f.Name, f.Sha256
	return action, nil
}

func splitCommas(text string) (words []string) {
	var word strings.Builder
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '\\' && i+1 < len(text) && text[i+1] == ',':
			word.WriteByte(',')
			i++
		case text[i] == ',':
			words = append(words, word.String())
			word.Reset()
		default:
			word.WriteByte(text[i])
		}
	}
	return append(words, word.String())
}

// shipScripts uploads local scripts below the site's system prefix, under their sums, and has the actions name them there.
func shipScripts(ctx context.Context, conn *connection, actions []*api.BootstrapAction, scripts *shipped) error {
	if len(scripts.paths) == 0 {
		return nil
	}
	site, err := conn.api().GetSite(ctx, connect.NewRequest(&api.GetSiteRequest{}))
	if err != nil {
		return err
	}
	if err := scripts.upload(ctx, conn, func() error { return nil }); err != nil {
		return err
	}
	for _, a := range actions {
		if a.Url == "" {
			a.Url = under(site.Msg.GetSystemPrefix(), "programs/"+a.Sha256)
		}
	}
	return nil
}
