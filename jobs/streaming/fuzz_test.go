package streaming

import (
	"bytes"
	"testing"
	"testing/iotest"
)

// FuzzReadLines compares with lines cut by the standard library; a line over the limit is
// an error, and nothing before it is lost.
func FuzzReadLines(f *testing.F) {
	f.Add([]byte("a\tb\n\nlast"), int64(5))
	f.Add(bytes.Repeat([]byte("x"), 3*pipeBuffer), int64(pipeBuffer))
	f.Fuzz(func(t *testing.T, data []byte, limit int64) {
		var got [][]byte
		err := readLines(iotest.HalfReader(bytes.NewReader(data)), limit, func(line []byte) { got = append(got, bytes.Clone(line)) })
		var want [][]byte
		for line := range bytes.Lines(data) {
			want = append(want, bytes.TrimSuffix(line, []byte("\n")))
		}
		if len(got) > len(want) || err == nil && len(got) != len(want) {
			t.Fatalf("%d lines of %d, %v", len(got), len(want), err)
		}
		for i, line := range got {
			if !bytes.Equal(line, want[i]) {
				t.Fatalf("line %d is %q, want %q", i, line, want[i])
			}
		}
		if err != nil && int64(len(want[len(got)])) < limit {
			t.Fatalf("a line of %d bytes is over the limit of %d: %v", len(want[len(got)]), limit, err)
		}
	})
}

// FuzzSplitLine: key and rest are the line, and the key has no TAB.
func FuzzSplitLine(f *testing.F) {
	f.Add([]byte("key\tvalue\tmore"))
	f.Add([]byte("\t"))
	f.Fuzz(func(t *testing.T, line []byte) {
		key, rest := splitLine(line)
		if !bytes.Equal(append(bytes.Clone(key), rest...), line) || bytes.IndexByte(key, '\t') >= 0 || len(rest) > 0 && rest[0] != '\t' {
			t.Fatalf("%q is split into %q and %q", line, key, rest)
		}
	})
}
