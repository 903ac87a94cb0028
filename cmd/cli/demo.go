package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	"millrace/cmd/cli/devcluster"
	"millrace/cmd/cli/view"
	"millrace/pkg/api"
	"millrace/pkg/client"
	"millrace/pkg/objectstore"
)

const (
	demoSplit  = 8 << 20
	demoObject = 16 << 20  // bytes of one object of the demo's input
	demoMost   = 128 << 20 // bytes of all of it
	demoTop    = 20
)

func (a *app) demoCommand() *cli.Command {
	return a.leaf(spec{name: "demo", usage: "a whole cluster in a temporary folder, one real job, its result; then everything is gone", example: "millrace demo",
		flags: []cli.Flag{
			&cli.IntFlag{Name: "masters", Usage: "masters, `N`", Value: 1},
			&cli.IntFlag{Name: "core", Usage: "core nodes, `N`", Value: 2},
			&cli.IntFlag{Name: "task", Usage: "task nodes, `N`", Value: 1},
			&cli.IntFlag{Name: "slots", Usage: "attempts at once per node, `N`", Value: 2},
		}, do: demo})
}

// demoView is what demo prints as JSON.
type demoView struct {
	Job view.Job   `json:"job"`
	Top []keyValue `json:"top"`
}

func demo(c *call) (err error) {
	// A second Ctrl-C must not end this process before everything is gone: that takes
	// seconds at most. While a handler stays, the default one does not come back.
	impatient := make(chan os.Signal, 1)
	signal.Notify(impatient, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(impatient)
	dir, err := os.MkdirTemp("", "millrace-demo-")
	if err != nil {
		return err
	}
	defer func() {
		if removeErr := os.RemoveAll(dir); removeErr != nil {
			err = errors.Join(err, removeErr)
		}
	}()
	conf, err := c.devConfig(dir)
	if err != nil {
		return err
	}
	cluster, err := devcluster.New(conf)
	if err != nil {
		return usagef("millrace demo --help", "%s", err)
	}
	ctx := c.Context.Context
	started := time.Now()
	conf.Say("starting 1 master, %s, %s and an object store, each a process of its own, in %s", plural(conf.Core, "core node"), plural(conf.Task, "task node"), dir)
	if err := c.openCluster(ctx, cluster); err != nil {
		return withoutFolder(err)
	}
	defer cluster.Close() // before the folder is removed
	conf.Say("ready after %s: %d slots", formatDuration(time.Since(started)), cluster.Slots())
	s3 := cluster.S3()
	store, err := objectstore.NewS3(objectstore.Config{Endpoint: s3.Endpoint, Region: s3.Region, AccessKey: s3.AccessKey, SecretKey: s3.SecretKey, SessionToken: s3.SessionToken, CAPEM: s3.CABundle})
	if err != nil {
		return err
	}
	text, err := c.demoInput(ctx, store)
	if err != nil {
		return err
	}
	conf.Say("%s", text)
	job, err := c.demoJob(ctx, cluster)
	if err != nil {
		return err
	}
	bucket, parts, err := listParts(ctx, store, job.ID, job.Output, -1)
	if err != nil {
		return err
	}
	top, err := topRecords(ctx, store, bucket, parts, demoTop)
	if err != nil {
		return err
	}
	if err := c.print(demoView{job, top}, func(w io.Writer) { showDemo(w, job, parts, bucket, top) }); err != nil {
		return err
	}
	conf.Say("all of it took %s; ending the cluster and removing %s", formatDuration(time.Since(started)), dir)
	if err := cluster.Close(); err != nil {
		return err
	}
	conf.Say("next: millrace dev    the same cluster, to work with (then, in another terminal: millrace fs --help, millrace run --help)")
	return nil
}

// withoutFolder does not send people to logs that will be gone.
func withoutFolder(err error) error {
	var f *fault
	if errors.As(err, &f) && f.code == exitFailed {
		return faultf(exitFailed, "millrace dev keeps the logs", "%s", f.Error())
	}
	return err
}

// demoJob runs wordcount over the input and returns it as it ended.
func (c *call) demoJob(ctx context.Context, cluster *devcluster.Cluster) (view.Job, error) {
	access := cluster.Context()
	cl, err := client.New(client.Config{Servers: access.Servers, Credential: access.Credential(), UserAgent: "millrace/" + Version})
	if err != nil {
		return view.Job{}, err
	}
	conn := &connection{Client: cl, context: access}
	defer conn.close()
	fmt.Fprintf(c.env.Stderr, "$ millrace run wordcount s3://demo/input/ s3://demo/output/ --split-size 8MiB\n")
	resp, err := conn.api().SubmitJob(ctx, connect.NewRequest(&api.SubmitJobRequest{Spec: &api.JobSpec{
		Name: "demo", Program: &api.Program{Kind: api.ProgramKind_PROGRAM_KIND_BUILTIN, Name: "wordcount"},
		Input: []string{"s3://demo/input/"}, Output: "s3://demo/output/", SplitSize: demoSplit,
	}}))
	if err != nil {
		return view.Job{}, err
	}
	job, err := c.follow(ctx, conn, resp.Msg.GetId())
	if err != nil {
		return job, err
	}
	return job, verdict(job)
}

func showDemo(w io.Writer, job view.Job, parts []successPart, bucket string, top []keyValue) {
	fmt.Fprintf(w, "\nthe %d most frequent of %d words, read back from the object store:\n", len(top), job.OutputRecords)
	t := newTable(w)
	for _, r := range top {
		t.row("  "+r.Value, r.Key)
	}
	t.flush()
	fmt.Fprintf(w, "\noutput set %s\n", job.Output)
	t = newTable(w)
	for _, p := range parts {
		t.row(fmt.Sprintf("  s3://%s/%s", bucket, p.Key), formatSize(p.Size), fmt.Sprintf("%d records", p.Records))
	}
	t.flush()
	mapped := job.MapsEndedAt.Sub(job.PlannedAt.Time).Seconds()
	fmt.Fprintf(w, "\njob %s: %d splits, %d reduces, %s of text in %s%s", job.ID, job.Maps.Total, job.Reduces.Total, formatSize(job.Progress.BytesTotal), took(job), phases(job))
	if mapped > 0 {
		fmt.Fprintf(w, ", mapped at %s", formatRate(int64(float64(job.Progress.BytesTotal)/mapped)))
	}
	fmt.Fprintln(w)
}

// demoInput uploads real text found on this machine and says what it is.
func (c *call) demoInput(ctx context.Context, store objectstore.Store) (string, error) {
	if err := store.MakeBucket(ctx, "demo"); err != nil && !errors.Is(err, objectstore.ErrExists) {
		return "", err
	}
	started := time.Now()
	what, objects, bytes, err := uploadText(ctx, store, "demo", "input/", findText(c.env.Getenv))
	if err != nil {
		return "", fmt.Errorf("upload the text: %w", err)
	}
	return fmt.Sprintf("uploaded %s of text (%s) to s3://demo/input/ in %s, in %s", formatSize(bytes), what, plural(objects, "object"), formatDuration(time.Since(started))), nil
}

// textSource is a folder with text.
type textSource struct {
	name, dir string
	wanted    func(path string) bool
}

// extension wants files that end in one of these.
func extension(ext ...string) func(string) bool {
	return func(path string) bool {
		for _, e := range ext {
			if filepath.Ext(path) == e {
				return true
			}
		}
		return false
	}
}
