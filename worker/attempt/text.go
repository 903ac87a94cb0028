package attempt

import (
	"strings"
	"unicode/utf8"
)

// validTail makes the end of a log fit for a message: whole characters, whole
// lines where it was cut, valid UTF-8 (protobuf takes no other strings).
func validTail(b []byte) string {
	if len(b) >= tailBytes {
		for i := 0; i < utf8.UTFMax && len(b) > 0 && !utf8.RuneStart(b[0]); i++ {
			b = b[1:]
		}
		if i := strings.IndexByte(string(b), '\n'); i >= 0 && i < len(b)/2 {
			b = b[i+1:]
		}
	}
	return strings.ToValidUTF8(string(b), "?")
}
