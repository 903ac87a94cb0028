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
	replication := func() cli.Flag {
		return &cli.IntFlag{Name: "replication", Usage: "on how many core nodes, `N`, each block of a new file in hdfs:// shall lie; default 3"}
	}
	blockSize := func() cli.Flag {
		return &cli.StringFlag{Name: "block-size", Usage: "`SIZE` of the blocks of a new file in hdfs://, a multiple of 64KiB; default 128MiB"}
	}
	copying := func() []cli.Flag { return append(recursive(), replication(), blockSize()) }
	return group("fs", "files: s3://bucket/key, hdfs:///path and local paths", "millrace fs mb s3://input\nmillrace fs put book.txt s3://input/\nmillrace fs put book.txt hdfs:///books/", nil,
		a.leaf(spec{name: "ls", aliases: []string{"list"}, usage: "what a folder holds; without URL: the buckets", args: "[URL…]", max: -1, example: "millrace fs ls s3://input/\nmillrace fs ls -R s3://input/",
			flags: []cli.Flag{&cli.BoolFlag{Name: "recursive", Aliases: []string{"R", "r"}, Usage: "all files below"}}, do: fsList}),
		a.leaf(spec{name: "cat", usage: "files, one after the other, on standard output", args: "URL…", min: 1, max: -1, example: "millrace fs cat 's3://output/words/part-r-*' | sort -k2nr | head", do: fsCat}),
		a.leaf(spec{name: "put", usage: "local files to storage; - is standard input", args: "FILE… URL", min: 2, max: -1,
			example: "millrace fs put book.txt s3://input/\nmillrace fs put -r books s3://input/books/     the folder's content goes right below the URL\nzcat log.gz | millrace fs put - s3://input/log.txt", flags: copying(), do: fsPut}),
		a.leaf(spec{name: "get", usage: "files from storage; - is standard output", args: "URL… DIR", min: 1, max: -1,
			example: "millrace fs get s3://input/book.txt .\nmillrace fs get -r s3://input/books/ books", flags: recursive(), do: fsGet}),
		a.leaf(spec{name: "cp", usage: "copy, from anywhere to anywhere", args: "FROM… TO", min: 2, max: -1, example: "millrace fs cp -r s3://input/books/ s3://backup/books/\nmillrace fs cp -r s3://input/books/ hdfs:///books/\nmillrace fs cp -r --distributed s3://input/books/ hdfs:///books/     the nodes copy, as the job distcp", flags: append(copying(), clusterCopyFlags()...), do: fsCopy}),
		a.leaf(spec{name: "mv", usage: "move: within hdfs:// in one step, else copy, then remove what was copied", args: "FROM… TO", min: 2, max: -1, example: "millrace fs mv s3://input/a.txt s3://input/b.txt\nmillrace fs mv hdfs:///new hdfs:///old", flags: recursive(), do: fsMove}),
		a.leaf(spec{name: "rm", aliases: []string{"remove"}, usage: "delete files; those in hdfs:// go to its trash for a day", args: "URL…", min: 1, max: -1, example: "millrace fs rm s3://input/a.txt\nmillrace fs rm -r s3://output/words/\nmillrace fs rm -r --skip-trash hdfs:///tmp/words",
			flags: append(recursive(), &cli.BoolFlag{Name: "skip-trash", Usage: "delete for good what is in hdfs://"}), do: fsRemove}),
		a.leaf(spec{name: "mkdir", usage: "make folders, and those above them", args: "hdfs:///PATH…", min: 1, max: -1, example: "millrace fs mkdir hdfs:///logs/today", do: fsMakeFolder}),
		a.leaf(spec{name: "setrep", usage: "on how many core nodes the blocks of files in hdfs:// shall lie", args: "N URL…", min: 2, max: -1, example: "millrace fs setrep 2 hdfs:///logs/today.txt\nmillrace fs setrep -r 2 hdfs:///logs", flags: recursive(), do: fsSetReplication}),
		a.leaf(spec{name: "fsck", usage: "whether all blocks of a block store are there and have their replicas", args: "[hdfs:///PATH]", max: 1, example: "millrace fs fsck\nmillrace fs fsck hdfs:///logs --json", do: fsCheck}),
		a.leaf(spec{name: "mb", usage: "make a bucket", args: "s3://BUCKET…", min: 1, max: -1, example: "millrace fs mb s3://input", do: fsMakeBucket}),
		a.leaf(spec{name: "rb", usage: "remove an empty bucket", args: "s3://BUCKET…", min: 1, max: -1, example: "millrace fs rm -r s3://input/ && millrace fs rb s3://input", do: fsRemoveBucket}),
		a.leaf(spec{name: "stat", usage: "one file's size and age; of a file in hdfs:// also its blocks, and where they lie", args: "URL…", min: 1, max: -1, example: "millrace fs stat s3://input/book.txt --json\nmillrace fs stat hdfs:///books/book.txt", do: fsStat}),
		a.leaf(spec{name: "du", usage: "how much lies there", args: "URL…", min: 1, max: -1, example: "millrace fs du s3://input/", do: fsUsage}),
	)
}

func (c *call) files() *files.Files {
	var store objectstore.Store
	blockSize, _ := c.blockSize() // those that take it have asked before
	return &files.Files{Cluster: c.blockStore, Replication: c.Int("replication"), BlockSize: blockSize, SkipTrash: c.Bool("skip-trash"), Store: func() (objectstore.Store, error) {
		if store != nil {
			return store, nil
		}
		s, err := c.openStore()
		store = s
		return s, err
	}}
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
	return p, usagef("write s3://BUCKET/KEY, hdfs:///PATH or a local path", "%s", err)
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

func fsCat(c *call) error { return c.cat(c.args) }

// cat writes files to standard output.
func (c *call) cat(urls []string) error {
	if c.json {
		what := strings.TrimPrefix(c.inv.name(), "millrace ")
		if c.inv.command().Name != "cat" {
			what += " … -"
		}
		return usagef("leave --json away, or: millrace fs stat URL --json", "%s prints the files themselves, not JSON", what)
	}
	f := c.files()
	places, err := c.places(f, urls)
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
		var folder *files.FolderError
		if errors.As(err, &folder) {
			return usagef("millrace fs ls "+p.String(), "%s", folder)
		}
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

// lookedAt is how many names of a command are looked for before anything is done: what a glob has found is there.
const lookedAt = 100

func fsRemove(c *call) error {
	f := c.files()
	places, err := c.places(f, c.args)
	if err != nil {
		return err
	}
	for _, p := range places { // all of them first: a mistyped name shall not leave the others removed
		if p.Buckets() {
			return usagef("name a bucket: millrace fs rm -r s3://BUCKET/", "s3:// alone means every bucket: refused")
		}
		if len(places) > 1 && len(places) <= lookedAt {
			if _, err := f.Stat(c.Context.Context, p); err != nil {
				return fsFault(err)
			}
		}
	}
	total := 0
	trashed := []string{}
	for _, p := range places {
		n, trash, err := f.Discard(c.Context.Context, p, c.Bool("recursive"))
		if err != nil {
			return fsFault(err)
		}
		total += n
		if trash != "" {
			trashed = append(trashed, trash)
		}
	}
	doc := map[string]any{"removed": total}
	if len(trashed) > 0 {
		doc["trash"] = trashed
	}
	return c.print(doc, func(io.Writer) {
		fmt.Fprintf(c.env.Stderr, "removed %s\n", plural(total, "file"))
		for _, at := range trashed {
			fmt.Fprintf(c.env.Stderr, "in the trash for a day: %s\n", at)
		}
	})
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
		if p.HDFS() && !e.Dir {
			if err := c.addBlocks(f, p, &v); err != nil {
				return fsFault(err)
			}
		}
		views = append(views, v)
	}
	return c.print(single(views), func(w io.Writer) {
		t := newTable(w)
		for _, v := range views {
			t.row("path", v.Path)
			t.row("size", fmt.Sprint(v.Size))
			t.row("modified", formatTime(v.ModifiedAt))
			t.row("directory", fmt.Sprint(v.Directory))
			if v.ETag != "" {
				t.row("etag", v.ETag)
			}
			if v.Blocks == nil {
				continue
			}
			t.row("replication", fmt.Sprint(v.Replication))
			for _, b := range *v.Blocks {
				t.row("block", b.ID, formatSize(b.Size), strings.Join(b.Replicas, " "))
			}
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
