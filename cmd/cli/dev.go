package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"millrace/cmd/cli/devcluster"
	"millrace/cmd/cli/s3source"
	"millrace/pkg/client"
	"millrace/pkg/objectstore"
)

func (a *app) devCommand() *cli.Command {
	return a.leaf(spec{name: "dev", usage: "a whole cluster on this machine, to work with; Ctrl-C ends it, its data stays", example: "millrace dev\nmillrace dev --core 3 --task 0 --slots 2 --dir ./cluster\nAWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… millrace dev --s3 http://minio:9000",
		flags: []cli.Flag{
			&cli.IntFlag{Name: "masters", Usage: "masters, `N`: 1, 3 or 5; default: as many as the cluster had, 1 at first"},
			&cli.IntFlag{Name: "core", Usage: "core nodes, `N`: they run tasks and keep data; default: as many as the cluster had, 2 at first"},
			&cli.IntFlag{Name: "task", Usage: "task nodes, `N`: they run tasks only; default: as many as the cluster had, 1 at first"},
			&cli.IntFlag{Name: "pool", Usage: "free nodes, `N`, for further clusters (millrace cluster create --provider pool); default: as many as there were, none at first"},
			&cli.StringFlag{Name: "provider", Usage: "`P` that clusters get further nodes from: process (millrace starts them here) or pool", Value: "process"},
			&cli.IntFlag{Name: "slots", Usage: "attempts at once per node, `N`; default: the machine's CPUs divided over the nodes"},
			&cli.StringFlag{Name: "dir", Usage: "`DIR` that keeps everything; default $MILLRACE_HOME/dev"},
			keepJobsFlag(), keepHistoryFlag(), trashFlag(),
		}, do: dev})
}

// devWorkers is how many workers of each role a new cluster has.
var devWorkers = map[string]int{"core": 2, "task": 1}

// devConfig reads what dev and demo have in common.
func (c *call) devConfig(dir string) (devcluster.Config, error) {
	conf := devcluster.Config{Dir: dir, Core: c.Int("core"), Task: c.Int("task"), Pool: c.Int("pool"), Slots: c.Int("slots"), Environ: os.Environ(), Say: c.sayer()}
	if conf.Masters = c.Int("masters"); c.IsSet("masters") && !slices.Contains([]int{1, 3, 5}, conf.Masters) {
		return conf, usagef("--masters 3", "--masters %d: 1, 3 or 5; an even number survives no more losses than one less", conf.Masters)
	}
	if c.IsSet("s3") || c.IsSet("s3-access-key") {
		s, err := s3source.Resolve(s3source.Flags{Endpoint: c.String("s3"), AccessKey: c.String("s3-access-key"), SecretKey: c.String("s3-secret-key"),
			SessionToken: c.String("s3-session-token"), Region: c.String("s3-region"), CAFile: c.String("s3-ca")}, c.env.Getenv, c.env.Home, nil)
		var mistake *s3source.Error
		if errors.As(err, &mistake) {
			return conf, usagef(mistake.Next, "%s", mistake.Message)
		}
		if err != nil {
			return conf, err
		}
		conf.S3 = &s.S3
	}
	binary, err := os.Executable()
	if err != nil {
		return conf, err
	}
	conf.Binary = binary
	return conf, nil
}

// sayer writes lines to standard error, one message at a time. In a pipe none begins with blanks.
func (a *app) sayer() func(string, ...any) {
	var mu sync.Mutex
	return func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		said := fmt.Sprintf(format, args...)
		if !a.isTerminal(a.env.Stderr) {
			said = indents.ReplaceAllString(said, "")
		}
		fmt.Fprintln(a.env.Stderr, said)
	}
}

var indents = regexp.MustCompile(`(?m)^ +`)

func dev(c *call) error {
	home, err := c.home()
	if err != nil {
		return err
	}
	name := cmp.Or(c.String("context"), "dev")
	if err := client.ProbeContexts(home, name); err != nil { // before anything is started
		return c.contextFault(home, err)
	}
	dir := c.String("dir")
	if dir == "" {
		dir = filepath.Join(home, "dev")
	}
	conf, err := c.devConfig(dir)
	if err != nil {
		return err
	}
	if err := c.checkKeep(); err != nil {
		return err
	}
	switch p := c.String("provider"); p {
	case "process", "pool":
		conf.Processes = p == "process"
	default:
		return usagef("--provider process, or pool and --pool 2", "--provider %s is neither process nor pool", shown(p))
	}
	for role, n := range map[string]*int{"core": &conf.Core, "task": &conf.Task, "pool": &conf.Pool} {
		if !c.IsSet(role) {
			*n = devWorkers[role]
			conf.AsBefore = append(conf.AsBefore, role)
		}
	}
	conf.Keep = []string{"--keep-jobs", fmt.Sprint(c.Int("keep-jobs")), "--keep-history", c.Duration("keep-history").String(),
		"--trash-age", c.Duration("trash-age").String()}
	cluster, err := devcluster.New(conf)
	if err != nil {
		return usagef("millrace dev --help", "%s", err)
	}
	ctx := c.Context.Context
	started := time.Now()
	if err := c.openCluster(ctx, cluster); err != nil {
		return err
	}
	defer cluster.Close()
	if err := c.keepContext(home, name, cluster); err != nil {
		return err
	}
	masters := ""
	if n := cluster.Masters(); n > 1 {
		masters = plural(n, "master") + ", "
	}
	pool := ""
	if n := cluster.Workers("pool"); n > 0 {
		pool = fmt.Sprintf(", and %s in the pool,", plural(n, "node"))
	}
	conf.Say("cluster of %s%s and %s with %s%s is ready after %s", masters, plural(cluster.Workers("core"), "core node"), plural(cluster.Workers("task"), "task node"), plural(cluster.Slots(), "slot"), pool, formatDuration(time.Since(started)))
	conf.Say("  object store  %s  (keys: millrace context env)\n  data and logs %s\n  context       %s, now the current one", cluster.S3().Endpoint, cluster.Dir(), name)
	conf.Say("in another terminal:\n  millrace fs mb s3://input\n  millrace fs mb s3://output\n  millrace fs put FILE s3://input/\n  millrace run wordcount s3://input/ s3://output/words/\nCtrl-C ends the cluster; millrace dev goes on where it was")
	if err := c.print(map[string]any{"ready": cluster.Server(), "context": name, "dir": cluster.Dir(), "s3Endpoint": cluster.S3().Endpoint},
		func(w io.Writer) { fmt.Fprintf(w, "ready: %s\n", cluster.Server()) }); err != nil {
		return err
	}
	<-ctx.Done()
	conf.Say("ending the cluster")
	if err := cluster.Close(); err != nil {
		return err
	}
	return silent{exitInterrupted}
}

// openCluster starts the cluster; errors say what to do.
func (c *call) openCluster(ctx context.Context, cluster *devcluster.Cluster) error {
	err := cluster.Open(ctx)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, devcluster.ErrInUse):
		return usagef("use that one, end it, or choose another folder: millrace dev --dir DIR --context NAME", "%s", err)
	case errors.Is(err, devcluster.ErrStore):
		return usagef("add --s3 URL (and the store's keys), or choose another folder: millrace dev --dir DIR --context NAME", "%s", err)
	case errors.Is(err, devcluster.ErrMasters):
		return usagef("start it with as many, or leave --masters away", "--masters: %s", err)
	case ctx.Err() != nil:
		return context.Canceled
	case errors.Is(err, objectstore.ErrDenied):
		return faultf(exitUnreachable, "check the key: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or --s3-access-key and --s3-secret-key", "%s: %s", cluster.S3().Endpoint, err)
	case errors.Is(err, objectstore.ErrUnreachable):
		return faultf(exitUnreachable, "check --s3, and that the object store runs", "%s: %s", cluster.S3().Endpoint, err)
	}
	// With what may be wrong with the folder itself there are no logs yet.
	var f *fault
	if errors.As(c.roleFault("millrace dev", cluster.Dir(), err), &f) && f.code == exitUsage {
		return f
	}
	return faultf(exitFailed, "look into the logs: "+filepath.Join(cluster.Dir(), "logs"), "the cluster did not start: %s", err)
}

// answers says whether somebody listens at one of the URLs.
func answers(servers []string) bool {
	for _, s := range servers {
		if conn, err := net.DialTimeout("tcp", strings.TrimPrefix(s, "https://"), time.Second); err == nil {
			conn.Close()
			return true
		}
	}
	return false
}

// keepContext writes how to reach the cluster, and makes that the current context.
func (c *call) keepContext(home, name string, cluster *devcluster.Cluster) error {
	ctx := *cluster.Context()
	ctx.Name = name
	if old, err := client.LoadContext(home, name); err == nil && !slices.ContainsFunc(old.Servers, func(s string) bool { return slices.Contains(ctx.Servers, s) }) && answers(old.Servers) {
		c.sayer()("context %s was of another cluster, which still runs at %s; it is of this one now (--context NAME keeps both)", name, strings.Join(old.Servers, ", "))
	}
	if err := client.SaveContext(home, &ctx); err != nil {
		return c.contextFault(home, err)
	}
	return client.UseContext(home, name)
}
