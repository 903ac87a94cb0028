package site

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Result is what a command printed and how it ended; Code is -1 if it had to be killed, or never ran.
type Result struct {
	Out, Err string
	Code     int
}

// commandTime bounds one command: longer than any of those that are used here takes by itself.
const commandTime = 45 * time.Second

// Millrace runs one command line as a user of the site.
func (s *Site) Millrace(ctx context.Context, args ...string) Result {
	return s.MillraceIn(ctx, nil, args...)
}

// MillraceIn does so with standard input.
func (s *Site) MillraceIn(ctx context.Context, in io.Reader, args ...string) Result {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	c := exec.CommandContext(ctx, s.conf.Binary, args...)
	c.Env = []string{"MILLRACE_HOME=" + s.home, "HOME=" + s.home, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir(), "MILLRACE_SERVER=" + s.servers()}
	var out, errOut bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = in, &out, &errOut
	c.WaitDelay = time.Second
	if err := c.Run(); err != nil && c.ProcessState == nil {
		return Result{Err: err.Error(), Code: -1}
	}
	return Result{out.String(), errOut.String(), c.ProcessState.ExitCode()}
}

// servers are the masters' addresses, each time with another one first: what one answers, all must.
func (s *Site) servers() string {
	first := int(s.turn.Add(1))
	var urls []string
	for i := range masters {
		urls = append(urls, s.nodes[(first+i)%masters].url())
	}
	return strings.Join(urls, ",")
}
