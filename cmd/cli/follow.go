package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"connectrpc.com/connect"

	"millrace/cmd/cli/files"
	"millrace/cmd/cli/view"
	"millrace/jobs"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

func ended(state string) bool {
	return state == "COMPLETED" || state == "FAILED" || state == "CANCELLED"
}

// follow shows a job's progress until it has ended and returns its last state.
func (c *call) follow(ctx context.Context, conn *connection, job string) (view.Job, error) {
	var last view.Job
	defer func() { c.sayNotes(last) }()
	progress := c.newJobProgress()
	defer progress.close()
	for j, err := range conn.Watch(ctx, &api.GetJobRequest{Job: job, Cluster: conn.cluster}, retryFor) {
		if err != nil {
			return last, err
		}
		last = view.OfJob(j)
		progress.update(last)
	}
	return last, ctx.Err()
}

// sayNotes says what people should know of a job.
func (c *call) sayNotes(j view.Job) {
	if c.json { // it is in the document
		return
	}
	for _, n := range j.Notes {
		fmt.Fprintln(c.env.Stderr, clean(n))
	}
}

// interrupted says, after Ctrl-C, that the job goes on and how to follow or stop it.
func (c *call) interrupted(ctx context.Context, id string, err error) error {
	if ctx.Err() == nil || id == "" {
		return lost(ctx, id, err)
	}
	return faultf(exitInterrupted, fmt.Sprintf("millrace job wait %s follows it, millrace job cancel %s stops it", id, id), "interrupted; job %s goes on", id)
}

// lost says, when the cluster does not answer any more, that the job goes on without this command.
func lost(ctx context.Context, id string, err error) error {
	f := explain(ctx, err)
	if f.code != exitUnreachable || id == "" {
		return err
	}
	f.lines = append(f.lines, fmt.Sprintf("job %s was submitted: it goes on, or will, when the cluster is back", id))
	f.next = "millrace job wait " + id
	return f
}

// followAndPrint waits for a job that was just submitted, prints it, and turns its end into an exit code.
func (c *call) followAndPrint(ctx context.Context, conn *connection, job *api.Job) error {
	if !c.json {
		fmt.Fprintf(c.env.Stderr, "job %s submitted\n", job.GetId())
	}
	last, err := c.follow(ctx, conn, job.GetId())
	if err != nil {
		return c.interrupted(ctx, job.GetId(), err)
	}
	if err := c.print(last, func(w io.Writer) { summary(w, conn.placed(last)) }); err != nil {
		return err
	}
	return verdict(last)
}

// placed is a job for people whose output in a cluster's block store names the cluster, if the command has named it.
func (c *connection) placed(j view.Job) view.Job {
	if rest, ok := strings.CutPrefix(j.Output, "hdfs:///"); ok && c.cluster != "" && c.cluster != c.context.Cluster {
		j.Output = "hdfs://" + c.cluster + "/" + rest
	}
	return j
}

// summary is the one line people get of a job that has ended.
func summary(w io.Writer, j view.Job) {
	took := formatDuration(j.EndedAt.Sub(j.SubmittedAt.Time))
	name := j.ID
	if j.Cluster == "local" {
		name = "local" // the cluster's commands do not know its id
	}
	if j.State != "COMPLETED" {
		fmt.Fprintf(w, "%s %s after %s\n", name, j.State, took)
		return
	}
	if j.Program == jobs.Distcp && j.Parts == 0 {
		fmt.Fprintf(w, "%s COMPLETED in %s: %s, %s at %s%s\n", name, took, plural(int(j.OutputRecords), "file"), formatSize(j.OutputBytes), j.Output, ofThem(j))
		return
	}
	fmt.Fprintf(w, "%s COMPLETED in %s: %s, %s in %s at %s\n", name, took, plural(int(j.OutputRecords), "record"), formatSize(j.OutputBytes), plural(int(j.Parts), "part"), j.Output)
}

// ofThem says of a job that copies files how many it found to be there, if any.
func ofThem(j view.Job) string {
	own := j.Counters["millrace"]
	if own["filesSkipped"] == 0 {
		return ""
	}
	return fmt.Sprintf(": %d copied, %d there already", own["filesCopied"], own["filesSkipped"])
}

// timedOut begins the reason of a job that has had its time (--timeout).
const timedOut = "timed out after "

// verdict is nil for a job that completed; else what went wrong, with its exit code.
func verdict(j view.Job) error {
	switch {
	case j.State == "COMPLETED":
		return nil
	case j.State == "CANCELLED" && strings.HasPrefix(j.Reason, timedOut): // whoever waits for it
		return faultf(exitTimeout, "repeat with a longer --timeout", "job %s %s and was cancelled", j.ID, clean(j.Reason))
	case j.State == "CANCELLED":
		return faultf(exitFailed, "millrace job show "+j.ID, "job %s was cancelled%s", j.ID, because(j.Reason))
	}
	return &fault{lines: append([]string{fmt.Sprintf("job %s failed%s", j.ID, because(j.Reason))}, append(failureLines(j.Failure, j.Reason), lastWordsOf(j.Failure)...)...),
		next: "millrace job why " + j.ID, code: exitFailed}
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + clean(reason)
}

// failureLines says the cause of a failed attempt, as invariants want it: where, how, at which input. What was said before is not repeated.
func failureLines(f *view.Failure, before string) []string {
	if f == nil {
		return nil
	}
	line := "task " + f.Task
	if f.Attempt != "" {
		line += ", attempt " + f.Attempt
	}
	if f.Node != "" {
		line += ", on node " + f.Node
	}
	switch {
	case f.Signal != "":
		line += ", ended by signal " + f.Signal
	case f.ExitCode != 0:
		line += fmt.Sprintf(", exit code %d", f.ExitCode)
		if hint := exitHint(f.ExitCode); hint != "" && !strings.Contains(f.Message, hint) {
			line += " (" + hint + ")"
		}
	}
	if f.Input != "" {
		line += fmt.Sprintf(", at %s offset %d", f.Input, f.Offset)
	}
	if f.Message != "" && !strings.HasSuffix(before, f.Message) {
		line += ": " + f.Message
	}
	return []string{clean(line)}
}

// exitHint says what the shell means by an exit code.
func exitHint(code int32) string {
	switch code {
	case 126:
		return "not executable: chmod +x, or run it through its interpreter"
	case 127:
		return "command not found on the node"
	}
	return ""
}

// lastWordsOf is the last line that a failed attempt has written, if it says more than the cause does.
func lastWordsOf(f *view.Failure) []string {
	if f == nil {
		return nil
	}
	tail := strings.TrimSpace(f.StderrTail)
	last := strings.TrimSpace(clean(tail[strings.LastIndexByte(tail, '\n')+1:]))
	if last == "" || strings.HasSuffix(f.Message, last) {
		return nil
	}
	return []string{"its last words: " + last}
}

// Where the result of a job lies until it has been printed: below the site's own folder, or else one of these in the input's bucket.
const (
	scratchFolder = "stdout/"
	scratchOfOwn  = "_millrace/"
	scratchName   = "output-"
)

// isScratch says whether an output was one to be printed.
func isScratch(u objectstore.URL) bool {
	folder, name := path.Split(strings.TrimSuffix(u.Key, "/"))
	return strings.HasPrefix(name, scratchName) && (strings.HasSuffix("/"+folder, "/"+scratchFolder) || folder == scratchOfOwn)
}

// mayRead makes sure that the key here reads where a result will lie: what the job may is another matter.
func (c *call) mayRead(ctx context.Context, output string) error {
	store, err := c.openStore()
	if err != nil {
		return err
	}
	u, err := objectstore.ParseURL(output)
	if err != nil {
		return err
	}
	for _, err := range store.List(ctx, u.Bucket, u.Key, objectstore.ListOptions{Max: 1}) {
		if errors.Is(err, objectstore.ErrDenied) && objectstore.Advice(err) == "" { // else the key itself will not do
			return usagef("have the result kept where you may read it: hdfs:///FOLDER/ or s3://BUCKET/PREFIX/ instead of -, then millrace results JOB",
				"the result could not be printed: the key that is used here may not read %s", u)
		}
		if errors.Is(err, objectstore.ErrNoSuchBucket) { // which is for the master to say
			break
		}
		return err
	}
	return nil
}

// scratchOutput is where a job's result lies until it has been printed.
func (c *call) scratchOutput(ctx context.Context, spec *api.JobSpec) (string, error) {
	name := scratchName + strings.ToLower(rand.Text())
	if spec.GetStore() == nil {
		resp, err := c.conn.api().GetSite(ctx, connect.NewRequest(&api.GetSiteRequest{}))
		if err != nil {
			return "", err
		}
		if p := resp.Msg.GetSystemPrefix(); p != "" {
			return under(p, scratchFolder+name) + "/", nil
		}
	}
	for _, in := range spec.GetInput() {
		if u, err := objectstore.ParseURL(in); err == nil {
			return objectstore.URL{Bucket: u.Bucket, Key: scratchOfOwn + name + "/"}.String(), nil
		}
	}
	return "", errors.New("no place to keep the result until it is printed")
}

// followToStdout waits, prints the result, and removes it from the store. Unlike
// other jobs it is cancelled at Ctrl-C: nobody could read what it makes.
func (c *call) followToStdout(ctx context.Context, conn *connection, job *api.Job, spec *api.JobSpec) (err error) {
	store, err := c.storeOf(spec.GetOutput(), conn.cluster)
	if err != nil {
		return err
	}
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		place, parseErr := files.Parse(spec.GetOutput())
		if parseErr != nil {
			return
		}
		f := c.files()
		f.SkipTrash = true
		var missing *files.NotFoundError
		if _, removeErr := f.Remove(clean, place, true); removeErr != nil && !errors.As(removeErr, &missing) && err == nil {
			err = fmt.Errorf("remove the kept result: %w", removeErr)
		}
	}()
	last, err := c.follow(ctx, conn, job.GetId())
	if err != nil {
		if ctx.Err() != nil {
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			if _, cancelErr := conn.api().CancelJob(stop, connect.NewRequest(&api.CancelJobRequest{Job: job.GetId(), Cluster: conn.cluster, Reason: "interrupted"})); cancelErr != nil {
				return errors.Join(err, cancelErr)
			}
			return err
		}
		return lost(ctx, job.GetId(), err)
	}
	if err := verdict(last); err != nil {
		return err
	}
	return quiet(readParts(ctx, store, last.ID, last.Output, -1, c.env.Stdout))
}
