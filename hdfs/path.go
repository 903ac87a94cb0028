package hdfs

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Trash is the folder below which lies what was removed. It stays where it is.
const Trash = "/.trash"

const (
	maxPath = 4095 // bytes
	maxName = 255  // bytes of one part of a path
)

// CleanPath gives the canonical form of an absolute path: parts divided by one slash, none at the end. What
// does not begin with a slash, has "." or ".." for a part, is not UTF-8, has a control character, or is longer
// than 4,095 bytes (255 a part), is ErrInvalid; the message says which.
func CleanPath(p string) (string, error) {
	bad := func(format string, args ...any) (string, error) {
		return "", fmt.Errorf("path %q: %w: %s", shortened(p), ErrInvalid, fmt.Sprintf(format, args...))
	}
	switch {
	case p == "":
		return bad("it is empty")
	case p[0] != '/':
		return bad("it must begin with /")
	case len(p) > maxPath:
		return bad("it has %d bytes, more than %d", len(p), maxPath)
	case !utf8.ValidString(p):
		return bad("it is not UTF-8")
	}
	parts := strings.Split(p[1:], "/")
	kept := parts[:0]
	for _, part := range parts {
		switch {
		case part == "":
			continue
		case part == "." || part == "..":
			return bad("%q is no name for a file", part)
		case len(part) > maxName:
			return bad("the name %q… has %d bytes, more than %d", part[:40], len(part), maxName)
		case strings.ContainsFunc(part, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return bad("%q has a control character", part)
		}
		kept = append(kept, part)
	}
	return "/" + strings.Join(kept, "/"), nil
}
