package builtin

import (
	"unicode"
	"unicode/utf8"

	"millrace/jobs/mapreduce"
)

func wordcount() mapreduce.Job {
	return mapreduce.Job{
		Map: func(ctx *mapreduce.Context, _, line []byte) error {
			for {
				word, rest := nextWord(line)
				if word == nil {
					return nil
				}
				ctx.EmitInt(word, 1)
				line = rest
			}
		},
		Fold:   mapreduce.Sum,
		Reduce: mapreduce.SumText,
	}
}

// Classes of bytes, as far as white space goes.
const (
	inWord = iota
	asciiSpace
	// maybeSpace begins the encoding of some white space beyond ASCII. No such byte is
	// ever a later byte of a rune, so that it can be looked for without decoding what stands before it.
	maybeSpace
)

var class = [256]uint8{
	'\t': asciiSpace, '\n': asciiSpace, '\v': asciiSpace, '\f': asciiSpace, '\r': asciiSpace, ' ': asciiSpace,
	0xC2: maybeSpace, // U+0085, U+00A0
	0xE1: maybeSpace, // U+1680
	0xE2: maybeSpace, // U+2000..U+200A, U+2028, U+2029, U+202F, U+205F
	0xE3: maybeSpace, // U+3000
}

// nextWord gives the first word of text, as bytes.Fields sees it, and what follows
// it; nil if there is none.
func nextWord(text []byte) (word, rest []byte) {
	start := 0
	for start < len(text) {
		c := class[text[start]]
		if c == inWord {
			break
		}
		n := 1
		if c == maybeSpace {
			if n = spaceAt(text[start:]); n == 0 {
				break
			}
		}
		start += n
	}
	if start == len(text) {
		return nil, nil
	}
	for i := start + 1; i < len(text); i++ {
		c := class[text[i]]
		if c == inWord || c == maybeSpace && spaceAt(text[i:]) == 0 {
			continue
		}
		return text[start:i], text[i:]
	}
	return text[start:], nil
}

// spaceAt is the length in bytes of the white space that text begins with, 0 if it does not.
func spaceAt(text []byte) int {
	if r, n := utf8.DecodeRune(text); unicode.IsSpace(r) {
		return n
	}
	return 0
}
