package jobs

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

const globCharacters = `*?[{\`

// Clusters gives the id of the cluster that a name or id means, and that of the job's own for "". What it does not
// know it gives back.
type Clusters func(name string) string

// Anchored is a place as the whole site knows it: one in a block store has its cluster's id, whatever was typed.
func Anchored(place string, id Clusters) string {
	if u, err := objectstore.ParseURL(place); err == nil {
		return anchored(u, id).String()
	}
	return place
}

func anchored(u objectstore.URL, id Clusters) objectstore.URL {
	if name, ok := strings.CutPrefix(u.Bucket, objectstore.HDFS); ok {
		u.Bucket = objectstore.HDFS + id(name)
	}
	return u
}

// named is what can be said of clusters without a site: names are different ones unless they are the same.
func named(s *api.JobSpec) Clusters {
	return func(name string) string { return cmp.Or(name, s.Cluster) }
}

func (v *verdict) places(s *api.JobSpec, id Clusters) {
	if len(s.Input) == 0 {
		v.wrong("no input: name at least one, such as s3://BUCKET/PREFIX/ or hdfs:///FOLDER/")
	}
	var inputs []objectstore.URL
	for _, in := range s.Input {
		u, err := place(in)
		if err != nil {
			v.wrong("input %w", err)
			continue
		}
		if badGlob(u.Key) {
			v.wrong("input %q is not a valid glob", in)
			continue
		}
		inputs = append(inputs, u)
	}
	if s.Output == "" {
		v.wrong("no output: name a prefix, such as s3://BUCKET/PREFIX/ or hdfs:///FOLDER/")
		return
	}
	out, err := place(s.Output)
	if err != nil {
		v.wrong("output %w", err)
		return
	}
	if i := strings.IndexAny(out.Key, globCharacters); i >= 0 {
		v.wrong("output %q: a prefix to write to cannot have %q in it", s.Output, out.Key[i:i+1])
		return
	}
	if objectstore.IsHDFS(out.Bucket) && out.Key == "" {
		v.wrong("output %s is the root of a block store: name a folder below it", s.Output)
		return
	}
	for _, in := range inputs {
		if relation := overlap(anchored(in, id), anchored(out, id)); relation != "" {
			v.mistakes = append(v.mistakes, &OverlapError{Input: in, Output: out, relation: relation})
		}
	}
}

// OverlapError says that a job would write where it reads.
type OverlapError struct {
	Input, Output objectstore.URL
	relation      string // of the output to the input
}

func (e *OverlapError) Error() string {
	return fmt.Sprintf("output %s is %s input %s: input and output must not overlap", e.Output, e.relation, e.Input)
}

// Next is what to do about it: it names a place that does not overlap.
func (e *OverlapError) Next() string {
	outer := e.Output
	if folder := inputFolder(e.Input.Key); e.relation == "inside" || outer.Key == "" {
		outer = objectstore.URL{Bucket: e.Input.Bucket, Key: folder}
	}
	key := strings.TrimRight(outer.Key, "/")
	switch {
	case key != "":
		return fmt.Sprintf("write to another place, such as %s", objectstore.URL{Bucket: outer.Bucket, Key: key + "-out/"})
	case objectstore.IsHDFS(outer.Bucket):
		return "name a folder of the input, not all of the block store, or write to s3://BUCKET/PREFIX/"
	}
	return "write to another bucket: the input may lie anywhere in this one"
}

// inputFolder is what an input's key or glob takes all from.
func inputFolder(key string) string {
	if i := strings.IndexAny(key, globCharacters); i >= 0 {
		key = key[:i]
		return key[:strings.LastIndexByte(key, '/')+1]
	}
	return key
}

// Askable are those places of a normalized spec that a store can be asked about. One that is wrong
// in itself is not among them, nor is an output that an input overlaps: it would be found not to be empty.
func Askable(s *api.JobSpec, id Clusters) (inputs []string, output string) {
	out, outErr := place(s.Output)
	if outErr != nil || strings.ContainsAny(out.Key, globCharacters) || objectstore.IsHDFS(out.Bucket) && out.Key == "" {
		out = objectstore.URL{}
	}
	output = s.Output
	for _, in := range s.Input {
		u, err := place(in)
		if err != nil || badGlob(u.Key) {
			continue
		}
		inputs = append(inputs, in)
		if overlap(anchored(u, id), anchored(out, id)) != "" {
			output = ""
		}
	}
	if out.Bucket == "" {
		output = ""
	}
	return inputs, output
}

func badGlob(key string) bool {
	return strings.ContainsAny(key, globCharacters) && !doublestar.ValidatePattern(key)
}

func place(s string) (objectstore.URL, error) {
	scheme, _, ok := strings.Cut(s, "://")
	switch {
	case s == "":
		return objectstore.URL{}, errors.New("is empty: want s3://BUCKET/KEY or hdfs:///PATH")
	case !ok || strings.EqualFold(scheme, "file"):
		return objectstore.URL{}, fmt.Errorf("%q is a local path, and a cluster reads and writes s3://BUCKET/KEY and hdfs:///PATH: copy it (millrace fs put), or run with --local", s)
	}
	return objectstore.ParseURL(s)
}

// overlap says how an output prefix lies to an input, "" if they have nothing
// in common. Of a glob counts what stands before its first special character:
// nothing it matches can lie outside of that.
func overlap(in, out objectstore.URL) string {
	if in.Bucket != out.Bucket {
		return ""
	}
	base, glob := in.Key, false
	if i := strings.IndexAny(base, globCharacters); i >= 0 {
		base, glob = base[:i], true
	}
	if !glob && base != "" && !strings.HasSuffix(base, "/") {
		base += "/" // the key itself, or all below it
	}
	switch {
	case !glob && base == out.Key:
		return "equal to"
	case glob && strings.HasPrefix(base, out.Key) && (base != out.Key || out.Key == ""): // a whole bucket is above all in it
		return "above"
	case strings.HasPrefix(out.Key, base):
		return "inside"
	case strings.HasPrefix(base, out.Key):
		return "above"
	}
	return ""
}
