package jobs

import (
	"errors"
	"fmt"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

const globCharacters = `*?[{\`

func (v *verdict) places(s *api.JobSpec) {
	if len(s.Input) == 0 {
		v.wrong("no input: name at least one, such as s3://BUCKET/PREFIX/")
	}
	var inputs []objectstore.URL
	for _, in := range s.Input {
		u, err := place(in)
		if err != nil {
			v.wrong("input %w", err)
			continue
		}
		if !doublestar.ValidatePattern(u.Key) && strings.ContainsAny(u.Key, globCharacters) {
			v.wrong("input %q is not a valid glob", in)
			continue
		}
		inputs = append(inputs, u)
	}
	if s.Output == "" {
		v.wrong("no output: name a prefix, such as s3://BUCKET/PREFIX/")
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
	for _, in := range inputs {
		if relation := overlap(in, out); relation != "" {
			v.wrong("output %s is %s input %s: input and output must not overlap", out, relation, in)
		}
	}
}

func place(s string) (objectstore.URL, error) {
	scheme, _, ok := strings.Cut(s, "://")
	switch {
	case s == "":
		return objectstore.URL{}, errors.New("is empty: want s3://BUCKET/KEY")
	case ok && strings.EqualFold(scheme, "hdfs"):
		return objectstore.URL{}, fmt.Errorf("%q: hdfs is not available yet, want s3://BUCKET/KEY", s)
	case !ok || strings.EqualFold(scheme, "file"):
		return objectstore.URL{}, fmt.Errorf("%q is a local path, which a cluster cannot read: want s3://BUCKET/KEY, or run with --local", s)
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
	case strings.HasPrefix(out.Key, base):
		return "inside"
	case strings.HasPrefix(base, out.Key):
		return "above"
	}
	return ""
}
