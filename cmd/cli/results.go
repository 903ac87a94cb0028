package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"millrace/cmd/cli/view"
	"millrace/jobs"
	"millrace/pkg/objectstore"
)

func (a *app) resultsCommand() *cli.Command {
	return a.leaf(spec{name: "results", usage: "a job's result as text, parts in order", args: "JOB", min: 1, max: 1,
		example: "millrace results last | head\nmillrace results last --top 20\nmillrace results last --share 24h",
		flags: []cli.Flag{
			&cli.IntFlag{Name: "part", Usage: "only part `N`, from 0", Value: -1},
			&cli.StringFlag{Name: "to", Usage: "write the parts, decoded, as files to `DIR`"},
			&cli.IntFlag{Name: "top", Usage: "the `N` records with the highest values"},
			&cli.DurationFlag{Name: "share", Usage: "print URLs by which anybody can read the parts for this `TIME`, at most 168h"},
		}, do: results})
}

func results(c *call) error {
	chosen := 0
	for _, f := range []string{"to", "top", "share"} {
		if c.IsSet(f) {
			chosen++
		}
	}
	switch {
	case chosen > 1:
		return usagef("give one of them", "--to, --top and --share do not go together")
	case c.IsSet("top") && c.Int("top") < 1:
		return usagef("--top 20", "--top %d: at least 1", c.Int("top"))
	case c.IsSet("part") && c.Int("part") < 0:
		return usagef("--part 0", "--part %d: parts are numbered from 0", c.Int("part"))
	case c.IsSet("share") && (c.Duration("share") < time.Second || c.Duration("share") > 7*24*time.Hour):
		return usagef("--share 24h", "--share %s: from 1s to 168h", c.Duration("share"))
	}
	conn, err := c.connect()
	if err != nil {
		return err
	}
	job, err := c.job(conn)
	if err != nil {
		return err
	}
	if job.State != "COMPLETED" {
		next := "millrace job wait " + job.ID
		if ended(job.State) {
			next = "millrace job why " + job.ID
		}
		return faultf(exitFailed, next, "job %s is %s: it has no result", job.ID, job.State)
	}
	if out, err := objectstore.ParseURL(job.Output); c.IsSet("share") && err == nil && objectstore.IsHDFS(out.Bucket) {
		return usagef("millrace fs cp -r "+job.Output+" s3://BUCKET/PREFIX/, and share that; or millrace results "+job.ID+" --to DIR",
			"--share: %s is in a cluster's block store, which has no URLs that anybody can read", job.Output)
	}
	if job.Program == jobs.Distcp && job.Parts == 0 {
		return faultf(exitFailed, "millrace fs ls "+job.Output+"; millrace job logs "+job.ID+" --attempt ID has a line for each file", "job %s has copied files: its result is what lies at %s", job.ID, job.Output)
	}
	store, err := c.storeOf(job.Output, job.Cluster)
	if err != nil {
		return err
	}
	return c.showResults(c.Context.Context, store, job)
}

func (c *call) showResults(ctx context.Context, store objectstore.Store, job view.Job) error {
	bucket, parts, err := listParts(ctx, store, job.ID, job.Output, c.Int("part"))
	if err != nil {
		return err
	}
	switch {
	case c.IsSet("to"):
		all := parts // one of them may come beside others of the same result
		if c.Int("part") >= 0 {
			if _, all, err = listParts(ctx, store, job.ID, job.Output, -1); err != nil {
				return err
			}
		}
		return c.saveParts(ctx, store, bucket, parts, all, c.String("to"))
	case c.IsSet("top"):
		top, err := topRecords(ctx, store, bucket, parts, c.Int("top"))
		if err != nil {
			return err
		}
		if len(top) == 0 && !c.json {
			fmt.Fprintln(c.env.Stderr, "no record has a number as its value: --top has nothing to show (millrace results JOB shows all)")
		}
		return quiet(c.print(top, func(w io.Writer) {
			for _, r := range top {
				fmt.Fprintf(w, "%s\t%s\n", r.Key, r.Value)
			}
		}))
	case c.IsSet("share"):
		return c.shareParts(ctx, store, bucket, parts, c.Duration("share"))
	case c.json:
		return quiet(jsonRecords(ctx, store, bucket, parts, c.env.Stdout))
	}
	return quiet(eachPart(ctx, store, bucket, parts, func(_ successPart, r io.Reader) error {
		_, err := io.Copy(c.env.Stdout, r)
		return err
	}))
}

type savedPart struct {
	Path    string `json:"path"`
	Size    int64  `json:"size"`
	Records int64  `json:"records"`
}

func (c *call) saveParts(ctx context.Context, store objectstore.Store, bucket string, parts, all []successPart, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return usagef("name a folder that can be made", "--to: %s", err)
	}
	if err := strangers(dir, all); err != nil {
		return err
	}
	saved := []savedPart{}
	err := eachPart(ctx, store, bucket, parts, func(p successPart, r io.Reader) error {
		name := filepath.Join(dir, decodedName(p.Key))
		n, err := saveFile(name, r)
		saved = append(saved, savedPart{name, n, p.Records})
		return err
	})
	if err != nil {
		return err
	}
	return c.print(saved, func(io.Writer) { fmt.Fprintf(c.env.Stderr, "%s in %s\n", plural(len(saved), "file"), dir) })
}

// strangers refuses a folder with parts of another result in it: nobody could tell them apart afterwards.
func strangers(dir string, parts []successPart) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return usagef("name a folder that can be read", "--to: %s", err)
	}
	for _, e := range entries {
		ours := slices.ContainsFunc(parts, func(p successPart) bool { return decodedName(p.Key) == e.Name() })
		if strings.HasPrefix(e.Name(), "part-") && !ours {
			return usagef("name an empty folder, or remove it", "--to %s has %s in it, which is not of this result", dir, e.Name())
		}
	}
	return nil
}

func saveFile(name string, r io.Reader) (n int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(name), ".part-*")
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if n, err = io.Copy(f, r); err != nil {
		return n, err
	}
	if err = f.Chmod(0o644); err != nil {
		return n, err
	}
	if err = f.Close(); err != nil {
		return n, err
	}
	return n, os.Rename(f.Name(), name)
}

type sharedPart struct {
	Path      string    `json:"path"`
	URL       string    `json:"url"`
	Size      int64     `json:"size"`
	ExpiresAt view.Time `json:"expiresAt"`
}

func (c *call) shareParts(ctx context.Context, store objectstore.Store, bucket string, parts []successPart, ttl time.Duration) error {
	signer, ok := store.(objectstore.Presigner)
	if !ok {
		return fmt.Errorf("the store of %s cannot presign URLs", objectstore.URL{Bucket: bucket})
	}
	now := time.Now()
	shared := []sharedPart{}
	for _, p := range parts {
		url, err := signer.PresignGet(ctx, bucket, p.Key, ttl)
		if err != nil {
			return err
		}
		shared = append(shared, sharedPart{objectstore.URL{Bucket: bucket, Key: p.Key}.String(), url, p.Size, view.Time{Time: now.Add(ttl)}})
	}
	return c.print(shared, func(w io.Writer) {
		for _, s := range shared {
			fmt.Fprintln(w, s.URL)
		}
	})
}
