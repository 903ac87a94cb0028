package files

import "testing"

// FuzzParse: what is read as a place is written so that it is read as the same place.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"s3://", "s3://bucket/a//b", "s3a://bucket", "file:///x", "-", "a/b", "s3:/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := Parse(s)
		if err != nil || !p.Remote() {
			return
		}
		if again, err := Parse(p.String()); err != nil || again != p {
			t.Fatalf("%q is %+v, written %q, read again as %+v, %v", s, p, p.String(), again, err)
		}
	})
}
