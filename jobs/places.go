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
		if badGlob(u.Key) {
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

// Askable are those places of a normalized spec that a store can be asked about. One that is wrong
// in itself is not among them, nor is an output that an input overlaps: it would be found not to be empty.
func Askable(s *api.JobSpec) (inputs []string, output string) {
	out, outErr := place(s.Output)
	if outErr != nil || strings.ContainsAny(out.Key, globCharacters) {
		out = objectstore.URL{}
	}
	output = s.Output
	for _, in := range s.Input {
		u, err := place(in)
		if err != nil || badGlob(u.Key) {
			continue
		}
		inputs = append(inputs, in)
		if overlap(u, out) != "" {
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
	case glob && strings.HasPrefix(base, out.Key) && (base != out.Key || out.Key == ""): // a whole bucket is above all in it
		return "above"
	case strings.HasPrefix(out.Key, base):
		return "inside"
	case strings.HasPrefix(base, out.Key):
		return "above"
	}
	return ""
}
