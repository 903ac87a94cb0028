package builtin

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"unicode/utf8"

	"millrace/jobs/mapreduce"
)

func grep() mapreduce.Job {
	return mapreduce.Job{
		Usage: "[-F] [-i] [-v] [-c] PATTERN",
		Configure: func(args []string) (mapreduce.Job, error) {
			o, err := parseGrep(args)
			if err != nil {
				return mapreduce.Job{}, fmt.Errorf("grep: %w", err)
			}
			match, err := o.matcher()
			if err != nil {
				return mapreduce.Job{}, fmt.Errorf("grep: %w", err)
			}
			if o.count {
				return mapreduce.Job{
					NewMapper: func() mapreduce.Mapper { return &grepCount{pattern: []byte(o.pattern), match: match} },
					Fold:      mapreduce.Sum,
					Reduce:    mapreduce.SumText,
				}, nil
			}
			return mapreduce.Job{Map: func(ctx *mapreduce.Context, _, line []byte) error {
				if match(line) {
					ctx.Emit(line, nil)
				}
				return nil
			}}, nil
		},
	}
}

// grepCount counts the lines that match, and emits the number in the end, 0 too.
type grepCount struct {
	pattern []byte
	match   func(line []byte) bool
	n       int64
}

func (g *grepCount) Map(_ *mapreduce.Context, _, line []byte) error {
	if g.match(line) {
		g.n++
	}
	return nil
}

func (g *grepCount) Cleanup(ctx *mapreduce.Context) error {
	ctx.EmitInt(g.pattern, g.n)
	return nil
}

type grepOptions struct {
	fixed, anyCase, invert, count bool
	pattern                       string
}

// parseGrep reads grep's arguments; letters may stand together, "--" or "-e" goes
// before a pattern that begins with a dash.
func parseGrep(args []string) (o grepOptions, err error) {
	var patterns []string
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case arg == "--":
			patterns = append(patterns, args[i+1:]...)
			i = len(args)
		case arg == "-e" && i+1 < len(args):
			i++
			patterns = append(patterns, args[i])
		case strings.HasPrefix(arg, "--"):
			return o, fmt.Errorf("%s is not a flag", arg)
		case len(arg) > 1 && arg[0] == '-':
			for _, c := range arg[1:] {
				switch c {
				case 'F':
					o.fixed = true
				case 'i':
					o.anyCase = true
				case 'v':
					o.invert = true
				case 'c':
					o.count = true
				default:
					return o, fmt.Errorf("-%c is not a flag", c)
				}
			}
		default:
			patterns = append(patterns, arg)
		}
	}
	switch {
	case len(patterns) == 0:
		return o, errors.New("it needs a pattern")
	case len(patterns) > 1:
		return o, fmt.Errorf("it takes one pattern; got %q", patterns)
	}
	o.pattern = patterns[0]
	if strings.ContainsAny(o.pattern, "\n") {
		return o, errors.New("a pattern with a line end matches no line")
	}
	return o, nil
}

// matcher makes the test of one line, as fast as the pattern lets it be.
func (o grepOptions) matcher() (func(line []byte) bool, error) {
	match, err := o.positive()
	if err != nil || !o.invert {
		return match, err
	}
	return func(line []byte) bool { return !match(line) }, nil
}

// badPattern says what is wrong with a pattern, and at which of its characters, counted from 1, where that can be told.
func badPattern(pattern string, err error) string {
	var wrong *syntax.Error
	if !errors.As(err, &wrong) {
		return err.Error()
	}
	at := 0
	switch wrong.Code {
	case syntax.ErrMissingParen, syntax.ErrMissingBracket, syntax.ErrTrailingBackslash:
		return fmt.Sprintf("at its end: %s", wrong.Code)
	case syntax.ErrUnexpectedParen: // the error names the whole pattern: the first beginning that has it ends there
		for i := 1; i <= len(pattern) && at == 0; i++ {
			var sooner *syntax.Error
			if _, err := syntax.Parse(pattern[:i], syntax.Perl); errors.As(err, &sooner) && sooner.Code == wrong.Code {
				at = i
			}
		}
	default:
		at = strings.Index(pattern, wrong.Expr) + 1
	}
	if at == 0 {
		return wrong.Code.String()
	}
	return fmt.Sprintf("at character %d, %q: %s", utf8.RuneCountInString(pattern[:at-1])+1, pattern[at-1:][:max(1, min(len(wrong.Expr), len(pattern)-at+1))], wrong.Code)
}

func (o grepOptions) positive() (func(line []byte) bool, error) {
	literal := []byte(o.pattern)
	if !o.anyCase && (o.fixed || o.pattern == regexp.QuoteMeta(o.pattern)) {
		return func(line []byte) bool { return bytes.Contains(line, literal) }, nil
	}
	expr := o.pattern
	if o.fixed {
		expr = regexp.QuoteMeta(expr)
	}
	if o.anyCase {
		expr = "(?i)" + expr
	}
	re, err := regexp.Compile(expr)
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %s", o.pattern, badPattern(o.pattern, err))
	}
	prefix, _ := re.LiteralPrefix() // whole also for ^x$: not to be relied on
	if prefix == "" {
		return re.Match, nil
	}
	literal = []byte(prefix)
	return func(line []byte) bool { return bytes.Contains(line, literal) && re.Match(line) }, nil
}
