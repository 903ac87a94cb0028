package server

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"millrace/jobs"
	"millrace/master/state"
	"millrace/pkg/objectstore"
)

// clusterIDs tells which cluster of the site a place in a block store is in. c is the job's own, nil if it has none.
func clusterIDs(v *state.View, c *state.Cluster) jobs.Clusters {
	return func(name string) string {
		switch {
		case name != "":
			if other, ok := v.Cluster(name); ok {
				return other.ID
			}
		case c != nil:
			return c.ID
		}
		return name
	}
}

func onFiles(place string) bool {
	u, err := objectstore.ParseURL(place)
	return err == nil && objectstore.IsHDFS(u.Bucket)
}

// clusters finds places in clusters that the site does not have. The others it gives back: those may be asked for.
func (f *findings) clusters(v *state.View, c *state.Cluster, inputs []string, output string) (known []string, out string) {
	there := func(what, place string) bool {
		u, err := objectstore.ParseURL(place)
		if err != nil {
			return false
		}
		name, files := strings.CutPrefix(u.Bucket, objectstore.HDFS)
		switch {
		case !files:
			return true
		case name == "":
			return c != nil // which is said already
		}
		if _, ok := v.Cluster(name); ok {
			return true
		}
		var names []string
		for _, other := range v.LiveClusters() {
			names = append(names, other.Name)
		}
		text := fmt.Sprintf("%s %s: no such cluster: %s", what, place, name)
		if near := nearestName(name, names); near != "" {
			text += ": did you mean " + near + "?"
		}
		f.wrong("millrace cluster list; hdfs:///PATH is in the job's own", "%s", text)
		return false
	}
	for _, in := range inputs {
		if there("input", in) {
			known = append(known, in)
		}
	}
	if output != "" && there("output", output) {
		out = output
	}
	return known, out
}

// checkFolder makes sure that an output in a block store can be a folder: neither it nor what it lies in is a file.
func checkFolder(ctx context.Context, store objectstore.Store, output string) ([]mistake, error) {
	u, err := objectstore.ParseURL(output)
	if err != nil {
		return nil, nil // that is said already
	}
	for at := strings.TrimSuffix(u.Key, "/"); at != ""; at = parentFolder(at) {
		_, err := store.Head(ctx, u.Bucket, at)
		switch file := (objectstore.URL{Bucket: u.Bucket, Key: at}).String(); {
		case err == nil && len(at) >= len(u.Key)-1:
			return []mistake{{fmt.Sprintf("output %s is a file", file), "choose another output, or remove it: millrace fs rm " + file}}, nil
		case err == nil:
			return []mistake{{fmt.Sprintf("output %s lies below a file: %s", output, file), fmt.Sprintf("choose another output, or remove the file: millrace fs rm %s", file)}}, nil
		case !errors.Is(err, objectstore.ErrNotExist):
			return nil, &placeError{"output " + output, err}
		}
	}
	return nil, nil
}

func parentFolder(key string) string {
	if i := strings.LastIndexByte(key, '/'); i >= 0 {
		return key[:i]
	}
	return ""
}
