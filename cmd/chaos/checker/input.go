package checker

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"math/rand/v2"
	"strings"
)

// Input is what jobs read, and the plain truth about it.
type Input struct {
	Objects map[string][]byte // by key, as they are stored
	Lines   []string          // of all of them, without their ends
}

// NewInput makes about size bytes of text in several objects below a prefix. Some lines are there once, with a number of
// their own, and some often; one object is compressed, one is empty, one has no newline at its end.
func NewInput(seed uint64, prefix string, size int) Input {
	r := rand.New(rand.NewPCG(seed, 1))
	in := Input{Objects: map[string][]byte{prefix + "empty": nil}}
	number := 0
	for i, share := range []int{5, 3, 1, 1} {
		var text bytes.Buffer
		for text.Len() < size*share/10 {
			line := in.line(r, &number)
			in.Lines = append(in.Lines, line)
			text.WriteString(line + "\n")
		}
		key, content := fmt.Sprintf("%s%d.txt", prefix, i), text.Bytes()
		switch i {
		case 2:
			content = bytes.TrimSuffix(content, []byte("\n"))
		case 3:
			key, content = fmt.Sprintf("%s%d.gz", prefix, i), zipped(content)
		}
		in.Objects[key] = content
	}
	return in
}

// line is one line: one of a few that come again and again, or one of its own.
func (in Input) line(r *rand.Rand, number *int) string {
	if r.IntN(3) == 0 {
		return fmt.Sprintf("again w%d w%d", r.IntN(20), r.IntN(20))
	}
	*number++
	words := []string{fmt.Sprintf("n%07d", *number)}
	for range r.IntN(12) {
		words = append(words, fmt.Sprintf("w%d", int(r.ExpFloat64()*200)))
	}
	return strings.Join(words, " ")
}

func zipped(content []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(content) // into memory
	_ = w.Close()
	return b.Bytes()
}

// Records is how many there are.
func (in Input) Records() int64 { return int64(len(in.Lines)) }

// Words is how often each word is there.
func (in Input) Words() Counts {
	c := Counts{}
	for _, line := range in.Lines {
		for _, w := range strings.Fields(line) {
			c[w]++
		}
	}
	return c
}

// All is all lines.
func (in Input) All() Bag { return in.Matching(func(string) bool { return true }) }

// Matching is the lines that a condition holds of.
func (in Input) Matching(ok func(string) bool) Bag {
	b := Bag{}
	for _, line := range in.Lines {
		if ok(line) {
			b[line]++
		}
	}
	return b
}

// Distinct is each line once.
func (in Input) Distinct() Bag {
	b := Bag{}
	for _, line := range in.Lines {
		b[line] = 1
	}
	return b
}
