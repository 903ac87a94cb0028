package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"millrace/cmd/cli/files"
	"millrace/cmd/cli/view"
	"millrace/pkg/objectstore"
)

func (a *app) fsCommand() *cli.Command {
	recursive := func() []cli.Flag {
		return []cli.Flag{&cli.BoolFlag{Name: "recursive", Aliases: []string{"r"}, Usage: "folders, with all below them"}}
	}
	return group("fs", "files: s3://bucket/key and local paths", "millrace fs mb s3://input\nmillrace fs put book.txt s3://input/", nil,
		a.leaf(spec{name: "ls", aliases: []string{"list"}, usage: "what a folder holds; without URL: the buckets", args: "[URL…]", max: -1, example: "millrace fs ls s3://input/\nmillrace fs ls -R s3://input/",
			flags: []cli.Flag{&cli.BoolFlag{Name: "recursive", Aliases: []string{"R", "r"}, Usage: "all files below"}}, do: fsList}),
		a.leaf(spec{name: "cat", usage: "files, one after the other, on standard output", args: "URL…", min: 1, max: -1, example: "millrace fs cat 's3://output/words/part-r-*' | sort -k2nr | head", do: fsCat}),
		a.leaf(spec{name: "put", usage: "local files to storage; - is standard input", args: "FILE… URL", min: 2, max: -1,
			example: "millrace fs put book.txt s3://input/\nmillrace fs put -r books s3://input/books/     the folder's content goes right below the URL\nzcat log.gz | millrace fs put - s3://input/log.txt", flags: recursive(), do: fsPut}),
		a.leaf(spec{name: "get", usage: "files from storage; - is standard output", args: "URL… DIR", min: 1, max: -1,
			example: "millrace fs get s3://input/book.txt .\nmillrace fs get -r s3://input/books/ books", flags: recursive(), do: fsGet}),
		a.leaf(spec{name: "cp", usage: "copy, from anywhere to anywhere", args: "FROM… TO", min: 2, max: -1, example: "millrace fs cp -r s3://input/books/ s3://backup/books/", flags: recursive(), do: fsCopy}),
		a.leaf(spec{name: "mv", usage: "copy, then remove what was copied", args: "FROM… TO", min: 2, max: -1, example: "millrace fs mv s3://input/a.txt s3://input/b.txt", flags: recursive(), do: fsMove}),
		a.leaf(spec{name: "rm", aliases: []string{"remove"}, usage: "delete files", args: "URL…", min: 1, max: -1, example: "millrace fs rm s3://input/a.txt\nmillrace fs rm -r s3://output/words/", flags: recursive(), do: fsRemove}),
		a.leaf(spec{name: "mb", usage: "make a bucket", args: "s3://BUCKET…", min: 1, max: -1, example: "millrace fs mb s3://input", do: fsMakeBucket}),
		a.leaf(spec{name: "rb", usage: "remove an empty bucket", args: "s3://BUCKET…", min: 1, max: -1, example: "millrace fs rm -r s3://input/ && millrace fs rb s3://input", do: fsRemoveBucket}),
		a.leaf(spec{name: "stat", usage: "one file's size and age", args: "URL…", min: 1, max: -1, example: "millrace fs stat s3://input/book.txt --json", do: fsStat}),
		a.leaf(spec{name: "du", usage: "how much lies there", args: "URL…", min: 1, max: -1, example: "millrace fs du s3://input/", do: fsUsage}),
	)
}

func (c *call) files() *files.Files {
	var store objectstore.Store
	return &files.Files{Store: func() (objectstore.Store, error) {
		if store != nil {
			return store, nil
		}
		s, err := c.openStore()
		store = s
		return s, err
	}}
}

// fsFault says what an error of the files means on a command line.
func fsFault(err error) error {
	var bucket *files.MissingBucketError
	var missing *files.NotFoundError
	var folder *files.FolderError
	var itself *files.OntoItselfError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &bucket):
		return faultf(exitNotFound, "millrace fs mb s3://"+bucket.Bucket, "%s", bucket)
	case errors.As(err, &missing):
		return faultf(exitNotFound, "millrace fs ls "+parentOf(missing.Place), "%s", missing)
	case errors.As(err, &folder):
		return usagef("repeat with -r", "%s", folder)
	case errors.As(err, &itself):
		return usagef("name another place to copy to", "%s", itself)
	case errors.Is(err, files.ErrNoHDFS):
		return usagef("use an s3:// URL: millrace fs ls", "%s", err)
	}
	return err
}

func parentOf(place string) string {
	if scheme, rest, ok := strings.Cut(place, "://"); ok {
		if i := strings.LastIndex(strings.TrimRight(rest, "/"), "/"); i > 0 {
			return scheme + "://" + rest[:i+1]
		}
		return scheme + "://"
	}
	if i := strings.LastIndex(strings.TrimRight(place, "/"), "/"); i > 0 {
		return place[:i+1]
	}
	return "."
}

// places reads the arguments and resolves globs.
func (c *call) places(f *files.Files, args []string) ([]files.Place, error) {
	var out []files.Place
	for _, s := range args {
		p, err := c.place(s)
		if err != nil {
			return nil, err
		}
		more, err := f.Expand(c.Context.Context, p)
		if err != nil {
			return nil, fsFault(err)
		}
		out = append(out, more...)
	}
	return out, nil
}

func (c *call) place(s string) (files.Place, error) {
	p, err := files.Parse(s)
	if err == nil {
		return p, nil
	}
	var scheme *files.SchemeError
	if errors.As(err, &scheme) {
		return p, usagef(scheme.Meant+"  (was that meant? a local file of that name is ./"+s+")", "%s", err)
	}
	if errors.Is(err, files.ErrNoHDFS) {
		return p, fsFault(err)
	}
	return p, usagef("write s3://BUCKET/KEY or a local path", "%s", err)
}

func entryView(e files.Entry) view.Entry {
	return view.Entry{Path: e.Place.String(), Size: e.Size, ModifiedAt: view.Time{Time: e.ModifiedAt}, Directory: e.Dir}
}

func fsList(c *call) error {
	f := c.files()
	if len(c.args) == 0 {
		c.args = []string{"s3://"}
	}
	places, err := c.places(f, c.args)
	if err != nil {
		return err
	}
	t := newTable(c.env.Stdout)
	entries, rows := []view.Entry{}, 0
	for _, p := range places {
		for e, err := range f.List(c.Context.Context, p, c.Bool("recursive")) {
			if err != nil {
				return errors.Join(t.flush(), fsFault(err))
			}
			v := entryView(e)
			switch {
			case c.json:
				entries = append(entries, v)
			case v.Directory:
				t.row("dir", formatTime(v.ModifiedAt), v.Path)
			default:
				t.row(fmt.Sprint(v.Size), formatTime(v.ModifiedAt), v.Path)
			}
			// A table holds its rows until it knows how wide they are: of a million, a screenful at a time.
			if rows++; rows%1000 == 0 {
				if err := t.flush(); err != nil {
					return quiet(err)
				}
			}
		}
	}
	if c.json {
		return c.print(entries, nil)
	}
	return quiet(t.flush())
}

func fsCat(c *call) error {
	if c.json {
		return usagef("leave --json away, or: millrace fs stat URL --json", "fs cat prints the files themselves, not JSON")
	}
	f := c.files()
	places, err := c.places(f, c.args)
	if err != nil {
		return err
	}
	for _, p := range places {
		if err := catOne(c.Context.Context, f, p, c.env.Stdout); err != nil {
			return quiet(fsFault(err))
		}
	}
	return nil
}

func catOne(ctx context.Context, f *files.Files, p files.Place, w io.Writer) error {
	r, err := f.Open(ctx, p)
	if err != nil {
		var missing *files.NotFoundError
		if errors.As(err, &missing) {
			if e, statErr := f.Stat(ctx, p); statErr == nil && e.Dir {
				return usagef("millrace fs ls "+p.String(), "%s is a folder", p)
			}
		}
		return err
	}
	defer r.Close()
	_, err = io.Copy(w, r)
	return err
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func fsRemove(c *call) error {
	f := c.files()
	places, err := c.places(f, c.args)
	if err != nil {
		return err
	}
	total := 0
	for _, p := range places {
		if p.Buckets() {
			return usagef("name a bucket: millrace fs rm -r s3://BUCKET/", "s3:// alone means every bucket: refused")
		}
		n, err := f.Remove(c.Context.Context, p, c.Bool("recursive"))
		if err != nil {
			return fsFault(err)
		}
		total += n
	}
	return c.print(map[string]int{"removed": total}, func(io.Writer) { fmt.Fprintf(c.env.Stderr, "removed %s\n", plural(total, "file")) })
}

// buckets reads arguments that must each name a bucket and nothing below it.
func (c *call) buckets() ([]string, error) {
	var out []string
	for _, s := range c.args {
		if !strings.Contains(s, "://") {
			s = "s3://" + s
		}
		p, err := c.place(s)
		if err != nil {
			return nil, err
		}
		if p.Bucket == "" || p.Path != "" {
			return nil, usagef("write s3://BUCKET", "%s is not a bucket", s)
		}
		out = append(out, p.Bucket)
	}
	return out, nil
}

func fsMakeBucket(c *call) error {
	names, err := c.buckets()
	if err != nil {
		return err
	}
	s, err := c.openStore()
	if err != nil {
		return err
	}
	made := []string{}
	for _, b := range names {
		err := s.MakeBucket(c.Context.Context, b)
		if errors.Is(err, objectstore.ErrExists) && !c.json {
			fmt.Fprintf(c.env.Stderr, "s3://%s is there already\n", b)
		}
		if err != nil && !errors.Is(err, objectstore.ErrExists) {
			return err
		}
		made = append(made, "s3://"+b)
	}
	return c.print(map[string][]string{"buckets": made}, func(io.Writer) {})
}

func fsRemoveBucket(c *call) error {
	names, err := c.buckets()
	if err != nil {
		return err
	}
	s, err := c.openStore()
	if err != nil {
		return err
	}
	for _, b := range names {
		for range s.List(c.Context.Context, b, "", objectstore.ListOptions{Max: 1}) {
			if ok, err := s.BucketExists(c.Context.Context, b); err == nil && ok {
				return faultf(exitFailed, "millrace fs rm -r s3://"+b+"/", "the bucket s3://%s is not empty", b)
			}
		}
		err := s.RemoveBucket(c.Context.Context, b)
		if errors.Is(err, objectstore.ErrNoSuchBucket) {
			return faultf(exitNotFound, "millrace fs ls", "there is no bucket s3://%s", b)
		}
		if err != nil {
			return err
		}
	}
	return c.print(map[string]int{"removed": len(names)}, func(io.Writer) {})
}

func fsStat(c *call) error {
	f := c.files()
	places, err := c.places(f, c.args)
	if err != nil {
		return err
	}
	views := []view.Entry{}
	for _, p := range places {
		e, err := f.Stat(c.Context.Context, p)
		if err != nil {
			return fsFault(err)
		}
		v := entryView(e)
		v.ETag = e.ETag
		views = append(views, v)
	}
	return c.print(single(views), func(w io.Writer) {
		t := newTable(w)
		for _, v := range views {
			t.row("path", v.Path)
			t.row("size", fmt.Sprint(v.Size))
			t.row("modified", formatTime(v.ModifiedAt))
			t.row("directory", fmt.Sprint(v.Directory))
			t.row("etag", v.ETag)
		}
		t.flush()
	})
}

// single is the one element of a list that has one, else the list.
func single[T any](list []T) any {
	if len(list) == 1 {
		return list[0]
	}
	return list
}

type usageView struct {
	Path  string `json:"path"`
	Size  int64  `json:"size"`
	Files int64  `json:"files"`
}

func fsUsage(c *call) error {
	f := c.files()
	places, err := c.places(f, c.args)
	if err != nil {
		return err
	}
	views := []usageView{}
	for _, p := range places {
		bytes, n, err := f.Usage(c.Context.Context, p)
		if err != nil {
			return fsFault(err)
		}
		views = append(views, usageView{p.String(), bytes, n})
	}
	return c.print(single(views), func(w io.Writer) {
		t := newTable(w)
		for _, v := range views {
			t.row(fmt.Sprint(v.Size), formatSize(v.Size), plural(int(v.Files), "file"), v.Path)
		}
		t.flush()
	})
}
