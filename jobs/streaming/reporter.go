package streaming

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"strconv"
	"strings"

	"millrace/jobs/task"
)

// reporter reads a command's standard error: counters and status for the task,
// everything else for the attempt's log.
type reporter struct {
	task *task.Context
	log  io.Writer
	last []byte // the end of what went to the log
}

// keepTail is how many bytes of standard error a failure shows.
const keepTail = 1 << 10

func newReporter(t *task.Context) *reporter { return &reporter{task: t, log: os.Stderr} }

// read reads to the end. Lines longer than the buffer are passed on in pieces.
func (r *reporter) read(from io.Reader) {
	b := bufio.NewReaderSize(from, 16<<10)
	begin := true // of a line
	for {
		part, err := b.ReadSlice('\n')
		if len(part) > 0 && !(begin && r.command(part)) {
			_, _ = r.log.Write(part) // a log that cannot be written must not stop the command
			r.keep(part)
		}
		begin = bytes.HasSuffix(part, newline)
		if err != nil && err != bufio.ErrBufferFull {
			return
		}
	}
}

func (r *reporter) keep(part []byte) {
	r.last = append(r.last, part...)
	if len(r.last) > 4*keepTail {
		r.last = append(r.last[:0], r.last[len(r.last)-keepTail:]...)
	}
}

// tail is the end of standard error; for after read.
func (r *reporter) tail() string {
	last := r.last
	if len(last) > keepTail {
		last = last[len(last)-keepTail:]
	}
	return string(last)
}

// command carries out a line that is meant for the task, and says whether it was one.
func (r *reporter) command(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("reporter:"))
	if !ok {
		return false
	}
	if bytes.HasPrefix(rest, []byte("status:")) {
		r.task.Alive()
		return true // known, and shown nowhere yet
	}
	rest, ok = bytes.CutPrefix(rest, []byte("counter:"))
	if !ok {
		return false
	}
	group, name, n, ok := parseCounter(strings.TrimRight(string(rest), "\r\n"))
	if !ok {
		return false // into the log, where its writer finds it
	}
	r.task.Counter(group, name).Add(n)
	return true
}

// parseCounter reads GROUP,NAME,N; the name may hold commas.
func parseCounter(s string) (group, name string, n int64, ok bool) {
	last := strings.LastIndexByte(s, ',')
	if last < 0 {
		return "", "", 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(s[last+1:]), 10, 64)
	group, name, found := strings.Cut(s[:last], ",")
	return group, name, n, err == nil && found && group != "" && name != ""
}
