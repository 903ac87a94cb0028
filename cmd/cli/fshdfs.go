package cli

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"

	"millrace/cmd/cli/files"
	"millrace/cmd/cli/view"
	"millrace/hdfs"
	"millrace/pkg/api"
	"millrace/pkg/bytesize"
	"millrace/pkg/objectstore"
)

// addBlocks completes what is said of a file in a block store.
func (c *call) addBlocks(f *files.Files, p files.Place, v *view.Entry) error {
	info, blocks, err := f.Locate(c.Context.Context, p)
	if err != nil {
		return err
	}
	v.Replication, v.BlockSize, v.Blocks = info.Replication, info.BlockSize, &[]view.Block{}
	for _, b := range blocks {
		one := view.Block{ID: b.ID.String(), Size: b.Size, Replicas: []string{}}
		for _, n := range b.Nodes {
			one.Replicas = append(one.Replicas, n.ID)
		}
		*v.Blocks = append(*v.Blocks, one)
	}
	return nil
}

// blockSize is what new files' blocks shall have; 0: the usual size.
func (c *call) blockSize() (int64, error) {
	text := c.String("block-size")
	if text == "" {
		return 0, nil
	}
	size, err := bytesize.Parse(text)
	switch {
	case err != nil:
		return 0, usagef("--block-size 64MiB", "--block-size: %s", err)
	case size < hdfs.MinBlockSize || size > hdfs.MaxBlockSize || size%hdfs.ChunkSize != 0:
		return 0, usagef("--block-size 64MiB", "--block-size %s: from %s to %s, in steps of %s", text, formatSize(hdfs.MinBlockSize), formatSize(hdfs.MaxBlockSize), formatSize(hdfs.ChunkSize))
	}
	return size, nil
}

// newFiles checks what is asked of new files in a block store.
func (c *call) newFiles() error {
	if _, err := c.blockSize(); err != nil {
		return err
	}
	if n := c.Int("replication"); c.IsSet("replication") && (n < 1 || n > hdfs.MaxReplication) {
		return usagef(fmt.Sprintf("--replication %d", hdfs.DefaultReplication), "--replication %d: from 1 to %d", n, hdfs.MaxReplication)
	}
	return nil
}

// fewNodes notes that a cluster has fewer core nodes than the replicas that were asked for.
func (c *call) fewNodes(p files.Place, replication int) (notes []string) {
	if !p.HDFS() || replication < 2 {
		return nil
	}
	conn, err := c.connect()
	if err != nil {
		return nil
	}
	name := cmp.Or(strings.TrimPrefix(p.Bucket, objectstore.HDFS), conn.cluster)
	resp, err := conn.api().GetCluster(c.Context.Context, connect.NewRequest(&api.GetClusterRequest{Cluster: name}))
	if err != nil {
		return nil // what was asked for is done
	}
	nodes := 0
	for _, g := range resp.Msg.GetGroups() {
		if g.GetRole() == "CORE" {
			nodes += int(g.GetRunning())
		}
	}
	if nodes >= replication {
		return nil
	}
	return []string{fmt.Sprintf("%s/ has %s: blocks have %s at the most until there are more", p.Bucket, plural(nodes, "core node"), plural(nodes, "replica"))}
}

// withNotes adds notes, if there are any, to a document.
func withNotes(doc map[string]any, notes []string) map[string]any {
	if len(notes) > 0 {
		doc["notes"] = notes
	}
	return doc
}

func (c *call) sayAll(notes []string) {
	for _, n := range notes {
		fmt.Fprintln(c.env.Stderr, n)
	}
}

// hdfsPlaces reads arguments that must all be in a block store.
func (c *call) hdfsPlaces(f *files.Files, args []string, next string) ([]files.Place, error) {
	places, err := c.places(f, args)
	if err != nil {
		return nil, err
	}
	for _, p := range places {
		if !p.HDFS() {
			return nil, usagef(next, "%s is not in hdfs://", p)
		}
	}
	return places, nil
}

func fsMakeFolder(c *call) error {
	f := c.files()
	made := []string{}
	for _, s := range c.args {
		p, err := c.place(s)
		if err != nil {
			return err
		}
		if err := isForFolders(p); err != nil {
			return err
		}
		if err := f.Mkdir(c.Context.Context, p); err != nil {
			return fsFault(err)
		}
		made = append(made, p.String())
	}
	return c.print(map[string][]string{"folders": made}, func(io.Writer) {})
}

// isForFolders refuses places where fs mkdir makes none.
func isForFolders(p files.Place) error {
	switch {
	case p.HDFS():
		return nil
	case !p.Remote():
		return usagef("mkdir -p "+shellQuote(p.Path)+", or millrace fs mkdir hdfs:///PATH", "%s is on this machine: fs mkdir makes folders in hdfs://", p)
	case p.Buckets():
		return usagef("millrace fs mb s3://BUCKET", "%s names no bucket", p)
	case p.Path == "":
		return usagef("millrace fs mb s3://"+p.Bucket, "%s is a bucket, not a folder", p)
	}
	return usagef("millrace fs put FILE "+under(p.String(), "NAME"), "%s is in an object store, which has no folders of its own: what is put there makes what it needs", p)
}

func fsSetReplication(c *call) error {
	n, err := strconv.Atoi(c.args[0])
	if err != nil || n < 1 || n > hdfs.MaxReplication {
		return usagef("millrace fs setrep 3 hdfs:///PATH", "%s is no replication: a number from 1 to %d", c.args[0], hdfs.MaxReplication)
	}
	f := c.files()
	places, err := c.hdfsPlaces(f, c.args[1:], "millrace fs setrep 3 hdfs:///PATH")
	if err != nil {
		return err
	}
	total := 0
	for _, p := range places {
		k, err := f.SetReplication(c.Context.Context, p, n, c.Bool("recursive"))
		if err != nil {
			return fsFault(err)
		}
		total += k
	}
	notes := c.fewNodes(places[0], n)
	return c.print(withNotes(map[string]any{"files": total, "replication": n}, notes), func(io.Writer) {
		fmt.Fprintf(c.env.Stderr, "%s: replicas are made or removed from now on; millrace fs fsck says how far that is\n", plural(total, "file"))
		c.sayAll(notes)
	})
}

// fsckPatience is how long a leader that has just begun may take to hear from the nodes what they have.
const fsckPatience = 15 * time.Second

func fsCheck(c *call) error {
	at := objectstore.HDFS + "/"
	if len(c.args) > 0 {
		at = c.args[0]
	}
	p, err := c.place(at)
	if err != nil {
		return err
	}
	if !p.HDFS() {
		return usagef("millrace fs fsck hdfs:///", "%s is not in hdfs://: fsck checks a cluster's block store", p)
	}
	names, err := c.names(p.Bucket)
	if err != nil {
		return err
	}
	if _, err := c.files().Stat(c.Context.Context, p); err != nil {
		return fsFault(err)
	}
	found, err := names.Check(c.Context.Context, "/"+p.Path)
	for until := time.Now().Add(fsckPatience); err == nil && found.Learning && time.Now().Before(until); {
		select {
		case <-time.After(200 * time.Millisecond):
		case <-c.Context.Context.Done():
			return c.Context.Context.Err()
		}
		found, err = names.Check(c.Context.Context, "/"+p.Path)
	}
	if err != nil {
		return fsFault(err)
	}
	v := checkView(p.Bucket, found)
	if err := c.print(v, func(w io.Writer) { printCheck(w, v) }); err != nil {
		return err
	}
	if !v.Healthy {
		return silent{exitFailed}
	}
	return nil
}

func checkView(bucket string, found *api.CheckFilesResponse) view.Check {
	troubles := func(list []*api.BlockTrouble) []view.BlockTrouble {
		out := []view.BlockTrouble{}
		for _, t := range list {
			out = append(out, view.BlockTrouble{Path: bucket + t.Path, Block: hdfs.BlockID(t.GetBlock().GetId()).String(), Size: t.GetBlock().GetSize(),
				Replicas: int(t.Replicas), Wanted: int(t.Wanted), Why: t.Why})
		}
		return out
	}
	v := view.Check{Files: found.Files, Blocks: found.Blocks, Bytes: found.Bytes, Nodes: found.Nodes, FewNodes: found.FewNodes, More: found.More, Learning: found.Learning,
		Missing: troubles(found.Missing), Corrupt: troubles(found.Corrupt), UnderReplicated: troubles(found.UnderReplicated)}
	v.Healthy = len(v.Missing)+len(v.Corrupt)+len(v.UnderReplicated) == 0
	return v
}

func printCheck(w io.Writer, v view.Check) {
	for _, kind := range []struct {
		says string
		list []view.BlockTrouble
	}{{"missing", v.Missing}, {"corrupt", v.Corrupt}, {"under-replicated", v.UnderReplicated}} {
		t := newTable(w)
		for _, b := range kind.list {
			t.row(kind.says, b.Path, b.Block, formatSize(b.Size), fmt.Sprintf("%d of %d replicas", b.Replicas, b.Wanted), b.Why)
		}
		t.flush()
	}
	state := "healthy"
	if !v.Healthy {
		state = fmt.Sprintf("not healthy: %d missing, %d corrupt, %d under-replicated", len(v.Missing), len(v.Corrupt), len(v.UnderReplicated))
	}
	fmt.Fprintf(w, "%s: %s, %s, %s on %s\n", state, plural(int(v.Files), "file"), plural(int(v.Blocks), "block"), formatSize(v.Bytes), plural(int(v.Nodes), "core node"))
	if v.More > 0 {
		fmt.Fprintf(w, "and %s more, not well either; millrace fs fsck hdfs:///PATH looks at a part\n", plural(int(v.More), "block"))
	}
	if v.FewNodes > 0 {
		fmt.Fprintf(w, "%s shall lie on more nodes than there are: further replicas are made as core nodes come\n", plural(int(v.FewNodes), "block"))
	}
	if v.Learning {
		fmt.Fprintln(w, "the leader has not heard yet from all core nodes: what is missing may be found")
	}
}
