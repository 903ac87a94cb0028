package input_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"millrace/jobs/input"
	"millrace/pkg/objectstore"
)

// FuzzList: an input of any shape matches keys below its fixed part only, each once, in
// order, none of them hidden, or is refused by a name for the reason.
func FuzzList(f *testing.F) {
	for _, in := range []string{"s3://data/in", "s3://data/in/", "s3://data/in/*.txt", "s3://data/**/[ab]?", "s3://data/{in,out}/x", "s3://data/in/[", `s3://data/in/\*`} {
		f.Add(in, "in/a.txt\nin/_b\nin/.c/d\nin//e\nout/x\nin")
	}
	f.Fuzz(func(t *testing.T, in, keys string) {
		if len(keys) > 1<<10 || len(in) > 256 {
			return
		}
		ctx := context.Background()
		m := objectstore.NewMemory()
		if err := m.MakeBucket(ctx, "data"); err != nil {
			t.Fatal(err)
		}
		for key := range strings.SplitSeq(keys, "\n") {
			_, _ = m.Put(ctx, "data", key, strings.NewReader("x"), 1, objectstore.PutOptions{}) // a key may be refused
		}
		objects, err := input.List(ctx, m, []string{in, in})
		if err != nil {
			if !strings.Contains(err.Error(), "input") {
				t.Fatalf("%q is refused without its name: %v", in, err)
			}
			return
		}
		var none *input.NoMatchError
		if errors.As(err, &none) || len(objects) == 0 {
			t.Fatalf("%q matches nothing and is no error", in)
		}
		u, _ := objectstore.ParseURL(in)
		fixed := u.Key
		if i := strings.IndexAny(fixed, `*?[{\`); i >= 0 {
			fixed = fixed[:i]
		}
		var found []string
		for _, o := range objects {
			if !strings.HasPrefix(o.Key, fixed) {
				t.Fatalf("%q matches %q", in, o.Key)
			}
			if o.Key != u.Key {
				base := strings.LastIndexByte(fixed, '/') + 1
				if !strings.ContainsAny(u.Key, `*?[{\`) {
					base = len(strings.TrimSuffix(u.Key, "/")) // "in" means in/…
				}
				for segment := range strings.SplitSeq(strings.TrimPrefix(o.Key[base:], "/"), "/") {
					if strings.HasPrefix(segment, "_") || strings.HasPrefix(segment, ".") {
						t.Fatalf("%q matches the hidden %q", in, o.Key)
					}
				}
			}
			found = append(found, o.Key)
		}
		if !slices.IsSorted(found) || len(slices.Compact(slices.Clone(found))) != len(found) {
			t.Fatalf("%q matches %q", in, found)
		}
	})
}
