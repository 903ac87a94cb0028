// Package screen redraws a few lines at the bottom of a terminal in place. It owns where they stand and how wide they
// are, not what is in them.
//
// After each drawing the cursor goes back to the first line of the block, and the next one clears from there
// to the end of the screen. So it does not matter whether a terminal that is resized wraps the lines anew (most do)
// or cuts them (xterm): the cursor stays with the beginning of the block, and all that is below it is ours. A block
// with the cursor below it would have to know how many rows its lines have become.
package screen

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// usual is the width that a terminal is taken to have that does not know its size (a serial line, some containers).
	usual = 80
	// every is how often a block is drawn anew.
	every = 100 * time.Millisecond

	clearBelow = "\r\x1b[J"
)

// Block is some lines that change. Draw them with Open.
type Block struct {
	w     io.Writer
	size  func() (columns, rows int)
	draw  func(width int) []string
	shown string
	quit  chan struct{}
	done  sync.WaitGroup
	once  sync.Once
}

// open counts the blocks that are drawn: a process has one terminal.
var open atomic.Int32

// Drawn says whether a block is on the screen: what else is written meanwhile would stand in its place.
func Drawn() bool { return open.Load() > 0 }

// Open draws what draw gives, again and again, until Close. draw is told how many columns a line may have; longer
// lines are cut, and of more lines than the terminal has rows the first ones are shown. Lines are of ASCII.
func Open(w io.Writer, draw func(width int) []string) *Block {
	b := &Block{w: w, size: sizeOf(w), draw: draw, quit: make(chan struct{})}
	open.Add(1)
	b.redraw()
	b.done.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				b.redraw()
			case <-b.quit:
				return
			}
		}
	})
	return b
}

// Close removes the block from the screen; what is written next stands where it began.
func (b *Block) Close() {
	b.once.Do(func() {
		close(b.quit)
		b.done.Wait()
		io.WriteString(b.w, clearBelow) // a terminal that is gone shows nothing either
		open.Add(-1)
	})
}

func (b *Block) redraw() {
	columns, rows := b.size()
	lines := b.draw(columns - 1)
	if len(lines) > rows {
		lines = lines[:rows]
	}
	for i, l := range lines {
		if len(l) > columns-1 { // a full line would make some terminals wrap
			lines[i] = l[:columns-1]
		}
	}
	text := clearBelow + strings.Join(lines, "\r\n") + "\r"
	if n := len(lines) - 1; n > 0 {
		text += fmt.Sprintf("\x1b[%dA", n)
	}
	// The size is part of what is shown: after a resize the same lines are drawn again.
	if shown := fmt.Sprint(columns, rows, text); shown != b.shown {
		b.shown = shown
		io.WriteString(b.w, text) // a terminal that is gone ends the command in other ways
	}
}

func sizeOf(w io.Writer) func() (columns, rows int) {
	f, ok := w.(*os.File)
	return func() (int, int) {
		if ok {
			if s, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && s.Col > 1 && s.Row > 0 {
				return int(s.Col), int(s.Row)
			}
		}
		return usual, 24
	}
}

// Bar is a bar of so many columns, brackets included, filled to a part between 0 and 1.
func Bar(columns int, part float64) string {
	inner := columns - 2
	if inner < 1 {
		return ""
	}
	filled := int(min(1, max(0, part)) * float64(inner))
	bar := strings.Repeat("=", filled)
	if filled > 0 && filled < inner {
		bar = bar[1:] + ">"
	}
	return "[" + bar + strings.Repeat("-", inner-filled) + "]"
}
