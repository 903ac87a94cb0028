package builtin

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"millrace/jobs/mapreduce/mrtest"
	"millrace/pkg/api"
)

func run(t *testing.T, o mrtest.Options, name string, lines ...string) []string {
	t.Helper()
	job, err := Lookup(name, o.Args)
	if err != nil {
		t.Fatal(err)
	}
	o.Args = nil
	if job.MapOnly() {
		o.Reduces = -1
	}
	return mrtest.RunWith(t, job, o, lines...).Lines
}

func words(text []byte) [][]byte {
	var list [][]byte
	for {
		word, rest := nextWord(text)
		if word == nil {
			return list
		}
		list, text = append(list, word), rest
	}
}

func FuzzWordsAreThoseOfBytesFields(f *testing.F) {
	for _, s := range []string{"", " a  b ", "a\u00a0b\u2003c\u3000", "\u0085x\u1680", "né\xe2\x80", "\xf0\xc2\x85x", "\xe2\xe2\x80\x80y", "€ ½ 日本"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if got, want := words(text), bytes.Fields(text); !slices.EqualFunc(got, want, bytes.Equal) {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	})
}

func TestWordsOfRandomText(t *testing.T) {
	pieces := rapid.SampledFrom([]string{"a", "\u00a0", " ", "\t", "é", "\xc2", "\xe2\x80", "\u2009", "\xe3", "\x80", "\u3000", "日", "\r", "\xf0\x9f\x98\x80"})
	rapid.Check(t, func(r *rapid.T) {
		text := []byte(strings.Join(rapid.SliceOf(pieces).Draw(r, "text"), ""))
		if got, want := words(text), bytes.Fields(text); !slices.EqualFunc(got, want, bytes.Equal) {
			r.Fatalf("%q: got %q, want %q", text, got, want)
		}
	})
}

func TestWordcountAgreesWithANaiveCount(t *testing.T) {
	line := rapid.StringMatching(`([ab]{0,2}[ \t]{0,2}(über|日)?){0,6}`)
	rapid.Check(t, func(r *rapid.T) {
		lines := rapid.SliceOfN(line, 1, 20).Draw(r, "lines")
		want := map[string]int{}
		for _, l := range lines {
			for _, w := range strings.Fields(l) {
				want[w]++
			}
		}
		got := map[string]int{}
		for _, l := range run(t, mrtest.Options{Splits: rapid.IntRange(1, 5).Draw(r, "splits"), Reduces: rapid.IntRange(1, 3).Draw(r, "reduces")}, "wordcount", lines...) {
			word, n, _ := strings.Cut(l, "\t")
			if _, twice := got[word]; twice {
				r.Fatalf("%q is there twice", word)
			}
			var count int
			fmt.Sscan(n, &count)
			got[word] = count
		}
		if !maps.Equal(got, want) {
			r.Fatalf("got %v, want %v", got, want)
		}
	})
}

// Without reduces the maps' output is the result, unreduced.
func TestWordcountWithoutReduces(t *testing.T) {
	got := run(t, mrtest.Options{Splits: 1, Reduces: -1}, "wordcount", "to be", "to")
	if want := []string{"to\t1", "be\t1", "to\t1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestGrep(t *testing.T) {
	text := []string{"the first", "a.b", "axb", "The Third", "", "foo bar", "xfoo"}
	for _, test := range []struct {
		args string
		want []string
	}{
		{"the", []string{"the first"}},
		{"-i the", []string{"the first", "The Third"}},
		{"a.b", []string{"a.b", "axb"}},
		{"-F a.b", []string{"a.b"}},
		{"-F -i A.B", []string{"a.b"}},
		{"-v .", []string{""}},
		{"-vi h", []string{"a.b", "axb", "", "foo bar", "xfoo"}},
		{"^foo", []string{"foo bar"}},
		{"^foo$", nil},
		{"^a.b$", []string{"a.b", "axb"}},
		{"^$", []string{""}},
		{"fo+", []string{"foo bar", "xfoo"}},
		{"-e -x", nil},
		{"-c the", []string{"the\t1"}},
		{"-ci the", []string{"the\t2"}},
		{"-cv the", []string{"the\t6"}},
		{"-c nothing", []string{"nothing\t0"}},
	} {
		for _, splits := range []int{1, 3} {
			got := run(t, mrtest.Options{Args: strings.Fields(test.args), Splits: splits}, "grep", text...)
			if !slices.Equal(got, test.want) {
				t.Errorf("grep %s in %d splits: %q, want %q", test.args, splits, got, test.want)
			}
		}
	}
}

func TestGrepMatchesAsTheRegexpDoes(t *testing.T) {
	for _, args := range [][]string{{"foo"}, {"fo*"}, {"^foo"}, {"foo$"}, {"^foo$"}, {"(?i)foo"}, {`\bfoo\b`}, {"foo|bar"}, {""}} {
		o, err := parseGrep(args)
		if err != nil {
			t.Fatal(err)
		}
		match, err := o.matcher()
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range []string{"", "foo", "xfoo", "foox", "FOO", "a foo b", "bar", "f"} {
			if got, want := match([]byte(line)), regexp.MustCompile(args[0]).MatchString(line); got != want {
				t.Errorf("%q in %q: %v", args[0], line, got)
			}
		}
	}
}

func TestCatAndDistinct(t *testing.T) {
	lines := []string{"b", "a", "", "b", "c\td", "a"}
	if got := run(t, mrtest.Options{Splits: 3}, "cat", lines...); !slices.Equal(got, lines) {
		t.Errorf("cat: %q", got)
	}
	if got, want := run(t, mrtest.Options{Splits: 3, Reduces: 1}, "distinct", lines...), []string{"", "a", "b", "c\td"}; !slices.Equal(got, want) {
		t.Errorf("distinct: %q, want %q", got, want)
	}
}

func TestCheck(t *testing.T) {
	for _, test := range []struct {
		name, args string
		mapOnly    bool
		wrong      string
	}{
		{"wordcount", "", false, ""},
		{"wordcount", "x", false, "takes no arguments"},
		{"cat", "", true, ""},
		{"grep", "x", true, ""},
		{"grep", "-c x", false, ""},
		{"grep", "", false, "needs a pattern"},
		{"grep", "(", false, "missing closing )"},
		{"grep", "-q x", false, "-q is not a flag"},
		{"grep", "a b", false, "one pattern"},
		{"wrodcount", "", false, "did you mean wordcount?"},
		{"Grep", "x", false, "did you mean grep?"},
		{"frobnicate", "", false, "there are cat, distcp, distinct, grep, wordcount"},
		{"", "", false, "no built-in program"},
	} {
		mapOnly, err := Check(test.name, strings.Fields(test.args))
		if mapOnly != test.mapOnly || (err == nil) != (test.wrong == "") || err != nil && !strings.Contains(err.Error(), test.wrong) {
			t.Errorf("%s %s: %v, %v; want %v, %q", test.name, test.args, mapOnly, err, test.mapOnly, test.wrong)
		}
	}
}

func TestListIsSortedAndComplete(t *testing.T) {
	list := List()
	if !slices.IsSortedFunc(list, func(a, b Info) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("not by name")
	}
	for _, p := range list {
		if p.Doc == "" || !strings.HasPrefix(p.Usage, p.Name) || !strings.HasPrefix(p.Example, "millrace run "+p.Name+" ") {
			t.Errorf("%+v", p)
		}
	}
}

func TestProgramsOfALease(t *testing.T) {
	for kind, ok := range map[api.ProgramKind]bool{api.ProgramKind_PROGRAM_KIND_BUILTIN: true, api.ProgramKind_PROGRAM_KIND_STREAMING: true, api.ProgramKind_PROGRAM_KIND_GO: false} {
		if _, err := Program(&api.Program{Kind: kind, Name: "cat", Mapper: "cat"}); (err == nil) != ok {
			t.Errorf("%v: %v", kind, err)
		}
	}
}

func BenchmarkNextWord(b *testing.B) {
	text := []byte(strings.Repeat("the quick brown fox jumps over the lazy dog ", 1000))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		rest := text
		for rest != nil {
			_, rest = nextWord(rest)
		}
	}
}
