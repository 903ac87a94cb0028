package cli

import (
	"bytes"
	"io"
	"strings"
	"text/tabwriter"
)

// table prints rows in columns.
type table struct {
	out   io.Writer
	w     *tabwriter.Writer
	lines bytes.Buffer
}

func newTable(w io.Writer, header ...string) *table {
	t := &table{out: w}
	t.w = tabwriter.NewWriter(&t.lines, 0, 8, 2, ' ', 0)
	if len(header) > 0 {
		t.row(header...)
	}
	return t
}

// row adds a row. A control character in a cell (names come from users) must not reach a terminal.
func (t *table) row(cells ...string) {
	for i, c := range cells {
		cells[i] = clean(c)
	}
	io.WriteString(t.w, strings.Join(cells, "\t")+"\n")
}

// flush prints the rows, without the white space that empty last cells leave: rows keep all their cells until then, as one with
// fewer would begin the columns anew.
func (t *table) flush() error {
	if err := t.w.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(t.lines.String()) {
		if _, err := io.WriteString(t.out, strings.TrimRight(line, " \n")+"\n"); err != nil {
			return err
		}
	}
	t.lines.Reset()
	return nil
}

func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}
