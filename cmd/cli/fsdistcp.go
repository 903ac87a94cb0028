package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/proto"

	"millrace/cmd/cli/files"
	"millrace/jobs"
	"millrace/pkg/api"
)

// largeCopy is from how many bytes on a folder is copied by the cluster's nodes.
const largeCopy = 1 << 30

// clusterCopyFlags are those of fs cp that say who copies.
func clusterCopyFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "distributed", Usage: "have the cluster's nodes copy a folder, as the job distcp; more than 1 GiB they do anyway, where they can"},
		&cli.BoolFlag{Name: "local", Usage: "copy through this machine, whatever the size"},
	}
}

// clusterCopy is the job that copies one folder to another: nil, and why not, if the cluster's nodes cannot do it.
func (c *call) clusterCopy(from []files.Place, to files.Place, tasks []files.Task) (spec *api.JobSpec, why string) {
	switch {
	case len(from) != 1 || !from[0].Remote() || !to.Remote():
		return nil, "the cluster's nodes copy one folder from storage to storage"
	case filesOf(tasks) < 2:
		return nil, "it is no folder with several files"
	case c.IsSet("replication"):
		return nil, "they give files the usual replication"
	}
	spec = &api.JobSpec{
		Program: &api.Program{Kind: api.ProgramKind_PROGRAM_KIND_BUILTIN, Name: jobs.Distcp},
		Input:   []string{strings.TrimSuffix(from[0].String(), "/") + "/"}, Output: to.String(), Overwrite: true,
		MapOnly: true, Reduces: proto.Int32(0),
	}
	if strings.ContainsAny(from[0].Path, `*?[{\`) {
		return nil, "a job would take the folder's name for a pattern"
	}
	if found := jobs.Validate(spec); len(found) > 0 {
		return nil, found[0].Error()
	}
	return spec, ""
}

// copyOnCluster has the nodes copy if that is asked for, or worth it and possible. done says whether it was.
func (c *call) copyOnCluster(from []files.Place, to files.Place, tasks []files.Task, total int64) (done bool, err error) {
	forced := c.Bool("distributed")
	switch {
	case forced && c.Bool("local"):
		return false, usagef("leave one of them away", "--distributed and --local exclude each other")
	case !forced && (c.Bool("local") || total <= largeCopy):
		return false, nil
	}
	spec, why := c.clusterCopy(from, to, tasks)
	if spec == nil && forced {
		return false, usagef("leave --distributed away: this machine copies then", "--distributed: %s", why)
	}
	if spec == nil {
		return false, nil
	}
	conn, job, err := c.submitCopy(spec)
	var f *fault
	switch {
	case err == nil:
		return true, c.followCopy(conn, job, to, slices.DeleteFunc(tasks, func(t files.Task) bool { return !t.Folder }))
	case forced || c.Context.Context.Err() != nil:
		return false, err
	case errors.As(err, &f) && len(f.lines) > 0:
		err = errors.New(f.lines[0])
	}
	if !c.json {
		fmt.Fprintf(c.env.Stderr, "copying through this machine, as the cluster does not: %s\n", clean(err.Error()))
	}
	return false, nil
}

// submitCopy submits the job. A store that is not the cluster's own is taken along only if that was asked for.
func (c *call) submitCopy(spec *api.JobSpec) (*connection, *api.Job, error) {
	conn, err := c.connect()
	if err != nil {
		return nil, nil, err
	}
	spec.Cluster = conn.cluster
	if spec.Store, err = c.jobStore(); err != nil {
		return nil, nil, err
	}
	if spec.Store != nil && !c.Bool("distributed") {
		return nil, nil, errors.New("the object store is not the cluster's own (--distributed lets its nodes have the key)")
	}
	resp, err := conn.api().SubmitJob(c.Context.Context, connect.NewRequest(&api.SubmitJobRequest{Spec: spec}))
	if err != nil {
		return nil, nil, err
	}
	return conn, resp.Msg, nil
}

// followCopy shows the job's progress, makes the empty folders, of which the job knows nothing, and says in the end what fs cp says.
func (c *call) followCopy(conn *connection, job *api.Job, to files.Place, folders []files.Task) error {
	ctx, id := c.Context.Context, job.GetId()
	if !c.json {
		fmt.Fprintf(c.env.Stderr, "job %s copies\n", id)
	}
	last, err := c.follow(ctx, conn, id)
	if err != nil {
		return c.interrupted(ctx, id, err)
	}
	if err := verdict(last); err != nil {
		return err
	}
	if err := c.files().Copy(ctx, folders, nil); err != nil {
		return fsFault(err)
	}
	took := last.EndedAt.Sub(last.SubmittedAt.Time)
	own := last.Counters["millrace"]
	copied, bytes, skipped := own["filesCopied"], own["bytesCopied"], own["filesSkipped"]
	doc := map[string]any{"files": copied, "bytes": bytes, "skipped": skipped, "to": to.String(), "tookMs": took.Milliseconds(), "job": id}
	return c.print(doc, func(io.Writer) {
		there := ""
		if skipped > 0 {
			there = fmt.Sprintf(" (%s there already)", plural(int(skipped), "file"))
		}
		fmt.Fprintf(c.env.Stderr, "%s, %s to %s%s in %s, by job %s\n", plural(int(copied), "file"), formatSize(bytes), to, there, formatDuration(took), id)
	})
}
