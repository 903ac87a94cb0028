package builtin

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
)

// FuzzGrep compares what grep's fast ways match with a plain regular expression.
func FuzzGrep(f *testing.F) {
	f.Add("-i", "a.c", []byte("xABCx"))
	f.Add("-F", "a.c", []byte("xa.cx"))
	f.Add("-vF", "", []byte(""))
	f.Add("--", "^abc$", []byte("abcd"))
	f.Fuzz(func(t *testing.T, flags, pattern string, line []byte) {
		o, err := parseGrep([]string{flags, "-e", pattern})
		if err != nil {
			return
		}
		match, err := o.matcher()
		expr := o.pattern
		if o.fixed {
			expr = regexp.QuoteMeta(expr)
		}
		if o.anyCase {
			expr = "(?i)" + expr
		}
		twin, twinErr := regexp.Compile(expr)
		if twinErr != nil { // not UTF-8: bytes are compared as they are, or it is refused
			if err == nil && (o.anyCase || match(line) == o.invert != !bytes.Contains(line, []byte(o.pattern))) {
				t.Fatalf("grep %q %q takes a pattern that does not compile (%v) and finds otherwise in %q", flags, pattern, twinErr, line)
			}
			return
		}
		if err != nil {
			t.Fatalf("grep %q %q: %v", flags, pattern, err)
		}
		want := twin.Match(line) != o.invert
		if strings.ToValidUTF8(o.pattern, "") != o.pattern {
			return
		}
		if got := match(line); got != want {
			t.Fatalf("grep %q %q in %q: %v, want %v", flags, pattern, line, got, want)
		}
	})
}

// FuzzCheck: no program's arguments make it panic, and what is accepted can be made.
func FuzzCheck(f *testing.F) {
	f.Add("grep", "-i", "x")
	f.Add("wordcount", "", "")
	f.Fuzz(func(t *testing.T, name, a, b string) {
		for _, args := range [][]string{nil, {a}, {a, b}} {
			_, err := Check(name, args)
			if _, lookupErr := Lookup(name, args); (lookupErr == nil) != (err == nil) {
				t.Fatalf("%s %q: checked %v, made %v", name, args, err, lookupErr)
			}
		}
	})
}
