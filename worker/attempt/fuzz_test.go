package attempt

import (
	"testing"
	"unicode/utf8"
)

// FuzzValidTail: the end of a log is fit for a message, whatever was written.
func FuzzValidTail(f *testing.F) {
	f.Add([]byte("boom\n\xff\xfe"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if s := validTail(data); !utf8.ValidString(s) || len(s) > 3*len(data) {
			t.Fatalf("%q becomes %q", data, s)
		}
	})
}
