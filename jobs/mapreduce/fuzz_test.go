package mapreduce

import (
	"strings"
	"testing"
)

// FuzzParseLocal: what is accepted has inputs, an output and numbers within bounds.
func FuzzParseLocal(f *testing.F) {
	f.Add("in out --reduces 3 --split-size=1k -- -x")
	f.Add("--overwrite in -D a=b out --file x#y")
	f.Fuzz(func(t *testing.T, line string) {
		c, _, err := parseLocal(strings.Split(line, " "))
		if err != nil {
			if err.Error() == "" {
				t.Fatalf("%q is refused without a word", line)
			}
			return
		}
		if len(c.Spec.Input) == 0 || c.Spec.SplitSize < 0 || c.Spec.MemoryBytes < 0 || c.Spec.Reduces != nil && *c.Spec.Reduces < 0 {
			t.Fatalf("%q is taken as %+v", line, c.Spec)
		}
	})
}
