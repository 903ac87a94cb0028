package screen

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/hinshun/vt10x"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// terminal is what a block is drawn on.
type terminal interface {
	Write(p []byte) (int, error)
	Resize(columns, rows int)
	rows() []string // not empty, without trailing space
}

// cutting is a terminal that cuts lines when it gets narrower, as xterm does.
type cutting struct{ vt10x.Terminal }

func (c cutting) rows() []string { return trimmed(strings.Split(c.String(), "\n")) }

// wrapping is a terminal that wraps its lines anew when its width changes, as most do: it keeps them whole, and
// its cursor stays with the character that it was on.
type wrapping struct {
	width int
	lines []string
	line  int // of the cursor
	at    int // its place in that line
}

func (w *wrapping) Resize(columns, _ int) { w.width = columns }

// high is how many rows a line takes.
func (w *wrapping) high(line string) int { return max(1, (len(line)+w.width-1)/w.width) }

var control = regexp.MustCompile(`^\x1b\[(\d*)([A-Z])`)

func (w *wrapping) Write(p []byte) (int, error) {
	for s := string(p); s != ""; {
		if m := control.FindStringSubmatch(s); m != nil {
			n, _ := strconv.Atoi(m[1])
			switch m[2] {
			case "J":
				w.lines = append(w.lines[:w.line:w.line], w.lines[w.line][:w.at])
			case "A":
				for row := w.at / w.width; n > 0; n-- {
					if row > 0 {
						row--
						w.at -= w.width
						continue
					}
					w.line--
					row = w.high(w.lines[w.line]) - 1
					w.at += row * w.width
				}
			default:
				panic("no such control: " + m[0])
			}
			s = s[len(m[0]):]
			continue
		}
		switch s[0] {
		case '\r':
			w.at -= w.at % w.width
		case '\n':
			if w.line++; w.line == len(w.lines) {
				w.lines = append(w.lines, "")
			}
		default:
			l := w.lines[w.line]
			w.lines[w.line] = l[:w.at] + s[:1] + l[min(len(l), w.at+1):]
			w.at++
		}
		s = s[1:]
	}
	return len(p), nil
}

func (w *wrapping) rows() []string {
	var rows []string
	for _, l := range w.lines {
		for ; len(l) > w.width; l = l[w.width:] {
			rows = append(rows, l[:w.width])
		}
		rows = append(rows, l)
	}
	return trimmed(rows)
}

func trimmed(rows []string) (out []string) {
	for _, r := range rows {
		if r = strings.TrimRight(r, " \x00"); r != "" {
			out = append(out, r)
		}
	}
	return out
}

func terminals(columns, rows int) map[string]terminal {
	return map[string]terminal{
		"cutting":  cutting{vt10x.New(vt10x.WithSize(columns, rows))},
		"wrapping": &wrapping{width: columns, lines: []string{""}},
	}
}

// Whatever the sizes are: after each drawing there is the block, once, and what stood above it.
func TestABlockSurvivesResizing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		columns, rows := 80, 24
		for name, term := range terminals(columns, rows) {
			columns, rows := columns, rows
			text := 0
			b := &Block{w: term, size: func() (int, int) { return columns, rows }, draw: func(width int) []string {
				return []string{strings.Repeat(fmt.Sprint("m", text), 60)[:width], strings.Repeat("r", width), "short"}
			}}
			fmt.Fprint(term, "above\r\n")
			for i := range rapid.IntRange(1, 12).Draw(t, "drawings") {
				text = i
				b.redraw()
				want := append([]string{"above"}, b.draw(columns-1)...)
				if got := term.rows(); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Fatalf("%s, %d columns: %q", name, columns, got)
				}
				columns = rapid.IntRange(6, 119).Draw(t, "columns")
				term.Resize(columns, rows)
			}
			b.quit = make(chan struct{})
			b.Close()
			fmt.Fprint(term, "after")
			if got := term.rows(); fmt.Sprint(got) != "[above after]" {
				t.Fatalf("%s: %q", name, got)
			}
		}
	})
}

func TestABlockNeverWrapsNorScrollsMoreThanItMust(t *testing.T) {
	for name, term := range terminals(20, 2) {
		b := &Block{w: term, size: func() (int, int) { return 20, 2 }, draw: func(int) []string { return []string{strings.Repeat("x", 99), "b", "c"} }}
		b.redraw()
		b.redraw()
		require.Equal(t, []string{strings.Repeat("x", 19), "b"}, term.rows(), name)
	}
}

func TestNothingIsWrittenWhenNothingChanges(t *testing.T) {
	var w strings.Builder
	columns := 80
	b := &Block{w: &w, size: func() (int, int) { return columns, 24 }, draw: func(int) []string { return []string{"same"} }}
	b.redraw()
	n := w.Len()
	b.redraw()
	require.Equal(t, n, w.Len())
	columns = 70
	b.redraw()
	require.Greater(t, w.Len(), n, "after a resize it is drawn again")
}

func TestBars(t *testing.T) {
	for _, c := range []struct {
		columns int
		part    float64
		want    string
	}{
		{12, 0, "[----------]"}, {12, 0.3, "[==>-------]"}, {12, 1, "[==========]"}, {12, 7, "[==========]"}, {12, -1, "[----------]"}, {3, 0.5, "[-]"}, {2, 1, ""},
	} {
		require.Equal(t, c.want, Bar(c.columns, c.part))
	}
}

func TestOpenAndClose(t *testing.T) {
	var w strings.Builder
	b := Open(&w, func(width int) []string { return []string{fmt.Sprint(width)} })
	b.Close()
	b.Close()
	require.Contains(t, w.String(), "79", "what is no terminal has the usual width")
	require.True(t, strings.HasSuffix(w.String(), clearBelow))
}
