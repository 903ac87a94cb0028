package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"millrace/cmd/cli/s3source"
	"millrace/jobs/local"
	"millrace/pkg/api"
)

// runOwnBinary runs a Go program: it has the engine inside and knows --local itself.
func (c *call) runOwnBinary(ctx context.Context, spec *api.JobSpec, ship *shipped, toStdout bool) error {
	program := spec.GetProgram()
	binary, err := filepath.Abs(ship.paths[program.GetExecutable().GetSha256()])
	if err != nil {
		return err
	}
	// A program that ends itself leaves its temporary files behind: they are in a folder of ours.
	temp, err := os.MkdirTemp("", "millrace-program-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	cmd := exec.CommandContext(ctx, binary, ownArgs(spec, ship, c.json)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	inherited := os.Environ()
	for _, k := range slices.Sorted(maps.Keys(program.GetEnv())) {
		cmd.Env = append(cmd.Env, k+"="+program.GetEnv()[k])
	}
	if needsStore(spec) {
		source, err := c.storage()
		if err != nil {
			return err
		}
		if source.Kind != s3source.None {
			vars, err := storageEnv(source.S3, func() (string, error) { return temp, nil })
			if err != nil {
				return err
			}
			inherited = slices.DeleteFunc(inherited, isStorageVariable) // one source, never mixed
			for _, v := range vars {
				cmd.Env = append(cmd.Env, v[0]+"="+v[1])
			}
		}
	}
	cmd.Env = slices.Concat(inherited, []string{"TMPDIR=" + temp}, cmd.Env)
	job := localJob(spec, time.Now())
	said := &lastWords{w: c.env.Stderr}
	document := &lastLine{w: c.env.Stderr}
	cmd.Stdout, cmd.Stderr = c.env.Stdout, said
	switch {
	case c.json:
		cmd.Stdout = document
	case toStdout:
		cmd.Stdout = c.env.Stderr
	}
	half := unfinishedIn(spec.GetOutput())
	err = cmd.Run()
	if err != nil {
		half.remove()
	}
	switch {
	case ctx.Err() != nil:
		return localFault(ctx, context.Cause(ctx))
	case err != nil:
		return c.ownFault(program.GetName(), said, err)
	}
	if err := said.pass(); err != nil || !c.json {
		return err
	}
	result, err := ownResult(document.held)
	if err != nil {
		return fmt.Errorf("read what %s says of its job: %w", program.GetName(), err)
	}
	completeLocal(&job, result)
	return c.print(job, nil)
}

// isStorageVariable says whether an environment's line is one that says where storage is, or with which key.
func isStorageVariable(line string) bool {
	name, _, _ := strings.Cut(line, "=")
	switch name {
	case "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
		"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE", "AWS_PROFILE":
		return true
	}
	return false
}

// ownArgs is a job as the arguments that programs made with the SDK take (millrace/jobs/mapreduce).
func ownArgs(spec *api.JobSpec, ship *shipped, asJSON bool) []string {
	args := []string{"--local"}
	if spec.Reduces != nil {
		args = append(args, fmt.Sprintf("--reduces=%d", spec.GetReduces()))
	}
	if spec.GetSplitSize() > 0 {
		args = append(args, fmt.Sprintf("--split-size=%d", spec.GetSplitSize()))
	}
	if spec.GetMemoryBytes() > 0 {
		args = append(args, fmt.Sprintf("--memory=%d", spec.GetMemoryBytes()))
	}
	if spec.GetMaxRecordBytes() > 0 {
		args = append(args, fmt.Sprintf("--max-record=%d", spec.GetMaxRecordBytes()))
	}
	if spec.GetCompress() != "" {
		args = append(args, "--compress="+spec.GetCompress())
	}
	if spec.GetOverwrite() {
		args = append(args, "--overwrite")
	}
	if asJSON {
		args = append(args, "--json")
	}
	properties := spec.GetProgram().GetProperties()
	for _, k := range slices.Sorted(maps.Keys(properties)) {
		args = append(args, "-D", k+"="+properties[k])
	}
	for _, f := range spec.GetProgram().GetFiles() {
		args = append(args, "--file", ship.paths[f.GetSha256()]+"#"+f.GetName())
	}
	args = append(append(args, spec.GetInput()...), spec.GetOutput(), "--")
	return append(args, spec.GetProgram().GetArgs()...)
}

// ownFault tells a job that failed, which the SDK says in our words and exit
// codes, from a program that ended in the middle of it: that is exit code 1
// whatever its own was.
func (c *call) ownFault(name string, said *lastWords, err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	lines, next := said.fault()
	code := exit.ExitCode()
	if len(lines) > 0 && slices.Contains([]int{exitFailed, exitUsage, exitUnreachable, exitInterrupted}, code) {
		switch {
		case strings.Contains(lines[0], "is not empty") && code == exitUsage:
			next = outputTakenNext
		case next == "" && code == exitFailed:
			next = "mend the program or its input, then run it again"
		}
		return &fault{lines: lines, next: next, code: code}
	}
	if passErr := said.pass(); passErr != nil {
		return passErr
	}
	return faultf(exitFailed, "mend the program, then run it again; what it wrote last is above", "%s ended before its job did: %s", name, exit)
}

// unfinished is what a local output had before a program ran: what the program
// has not removed itself, when it ended in the middle, is known by not being in it.
type unfinished struct {
	dir   string // "" = not local
	is    bool   // it was there
	names []string
}

func unfinishedIn(output string) unfinished {
	u := unfinished{dir: strings.TrimPrefix(output, "file://")}
	if strings.Contains(u.dir, "://") {
		return unfinished{}
	}
	_, err := os.Stat(u.dir)
	u.is, u.names = err == nil, temporaryIn(u.dir)
	return u
}

func temporaryIn(dir string) (names []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // it is not there
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), "_temporary-") {
			names = append(names, e.Name())
		}
	}
	return names
}

func (u unfinished) remove() {
	if u.dir == "" {
		return
	}
	for _, name := range temporaryIn(u.dir) {
		if !slices.Contains(u.names, name) {
			os.RemoveAll(filepath.Join(u.dir, name))
		}
	}
	if !u.is {
		os.Remove(u.dir) // fails, as it shall, if there is anything in it
	}
}

// ownResult reads the line of JSON in which a program says what it has done.
func ownResult(line []byte) (*local.Result, error) {
	var r struct {
		local.Result
		MapMs, ReduceMs, CommitMs int64
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, err
	}
	r.Map, r.Reduce, r.Commit = time.Duration(r.MapMs)*time.Millisecond, time.Duration(r.ReduceMs)*time.Millisecond, time.Duration(r.CommitMs)*time.Millisecond
	return &r.Result, nil
}

// lastLine holds the last line back and passes on those before it.
type lastLine struct {
	w    io.Writer
	held []byte
}

func (l *lastLine) Write(p []byte) (int, error) {
	l.held = append(l.held, p...)
	end := bytes.LastIndexByte(bytes.TrimRight(l.held, "\n"), '\n') + 1
	if end > 0 {
		if _, err := l.w.Write(l.held[:end]); err != nil {
			return 0, err
		}
		l.held = append(l.held[:0], l.held[end:]...)
	}
	return len(p), nil
}

// lastWords passes lines on, until one is an error in this program's form: that
// and what follows it are held back, to be reported like errors of our own.
type lastWords struct {
	w       io.Writer
	line    []byte // not ended yet
	held    []byte
	holding bool
}

// maxLastWords is what is held at most; more is no error's text.
const maxLastWords = 1 << 20

func (l *lastWords) Write(p []byte) (int, error) {
	l.line = append(l.line, p...)
	for {
		i := bytes.IndexByte(l.line, '\n') + 1
		if i == 0 && len(l.line) < maxLastWords {
			return len(p), nil
		}
		if i == 0 {
			i = len(l.line)
		}
		if l.holding = l.holding || bytes.HasPrefix(l.line, []byte("millrace: ")); l.holding {
			l.held = append(l.held, l.line[:i]...)
		} else if _, err := l.w.Write(l.line[:i]); err != nil {
			return 0, err
		}
		l.line = append(l.line[:0], l.line[i:]...)
		if len(l.held) > maxLastWords {
			if err := l.pass(); err != nil {
				return 0, err
			}
		}
	}
}

// pass lets go of what was held back.
func (l *lastWords) pass() error {
	text := append(l.held, l.line...)
	l.held, l.line, l.holding = nil, nil, false
	_, err := l.w.Write(text)
	return err
}

// fault is what was held back: its mistakes without their "millrace: ", and its advice. What
// follows a mistake without being one is the end of what the program has written before.
func (l *lastWords) fault() (lines []string, next string) {
	if !l.holding {
		return nil, ""
	}
	for line := range strings.SplitSeq(strings.TrimSpace(string(l.held)+string(l.line)), "\n") {
		if advice, ok := strings.CutPrefix(line, "next: "); ok {
			next = advice
		} else if mistake, ok := strings.CutPrefix(line, "millrace: "); ok {
			lines = append(lines, mistake)
		}
	}
	return lines, next
}
