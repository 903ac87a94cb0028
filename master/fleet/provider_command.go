package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	answerMost   = 64 << 10 // bytes of one machine's answer
	listMost     = 8 << 20
	stderrKept   = 4 << 10 // the last of what is said for people
	stderrLines  = 3       // of them in errors
	pipesLinger  = 2 * time.Second
	machineMost  = 256 // bytes of a machine's name
	errorsOneRow = 400 // bytes of what the executable said, in an error
)

// Command is a provider that is somebody's executable: docs/providers.md is the contract. It is run once for each call, with one JSON
// document on its standard input, and answers with one.
type Command struct {
	path    string
	environ []string
}

// NewCommand makes a provider of an executable, by the name that clusters call it by.
func NewCommand(name, path string, environ []string) (*Command, error) {
	if name == "" || name == PoolProvider || name == ProcessProvider || strings.ContainsAny(name, " \t\n=/,") {
		return nil, fmt.Errorf("provider %q: a name of its own without spaces, %q and %q are taken", name, PoolProvider, ProcessProvider)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("provider %s: %w", name, err)
	}
	info, err := os.Stat(abs)
	if err != nil {
		return nil, fmt.Errorf("provider %s: %w", name, err)
	}
	if info.IsDir() || info.Mode()&0o111 == 0 {
		return nil, fmt.Errorf("provider %s: %s is not executable: chmod +x it", name, abs)
	}
	return &Command{path: abs, environ: environ}, nil
}

// launchAnswer is what the executable says of a machine that runs.
type launchAnswer struct {
	Key     string `json:"key"`
	Machine string `json:"machine"`
}

// Launch runs EXEC launch.
func (c *Command) Launch(ctx context.Context, r Request) (string, error) {
	var a launchAnswer
	if err := c.run(ctx, "launch", r, answerMost, &a, secretsOf(r.Token)...); err != nil {
		return "", err
	}
	if err := a.check(); err != nil {
		return "", lies("launch", err)
	}
	if a.Key != r.Key {
		return "", lies("launch", fmt.Errorf("it was asked for %s and answers for %q", r.Key, a.Key))
	}
	return a.Machine, nil
}

func (a launchAnswer) check() error {
	switch {
	case a.Key == "" || a.Machine == "":
		return errors.New(`the answer lacks "key" or "machine"`)
	case len(a.Machine) > machineMost || strings.ContainsFunc(a.Machine, func(r rune) bool { return r < ' ' }):
		return fmt.Errorf("a machine's name is one line of at most %d bytes", machineMost)
	}
	return nil
}

// Terminate runs EXEC terminate.
func (c *Command) Terminate(ctx context.Context, key, machine string) error {
	var a struct {
		Key string `json:"key"`
	}
	if err := c.run(ctx, "terminate", launchAnswer{key, machine}, answerMost, &a); err != nil {
		return err
	}
	if a.Key != key {
		return lies("terminate", fmt.Errorf("it was asked for %s and answers for %q", key, a.Key))
	}
	return nil
}

// List runs EXEC list.
func (c *Command) List(ctx context.Context) (map[string]string, error) {
	var a struct {
		Machines *[]launchAnswer `json:"machines"`
	}
	if err := c.run(ctx, "list", struct{}{}, listMost, &a); err != nil {
		return nil, err
	}
	if a.Machines == nil {
		return nil, lies("list", errors.New(`the answer lacks "machines"`))
	}
	byKey, named := map[string]string{}, map[string]string{}
	for _, m := range *a.Machines {
		if err := m.check(); err != nil {
			return nil, lies("list", err)
		}
		if _, twice := byKey[m.Key]; twice {
			return nil, lies("list", fmt.Errorf("it lists %s twice", m.Key))
		}
		if other := named[m.Machine]; other != "" {
			return nil, lies("list", fmt.Errorf("it lists machine %s as %s and as %s", m.Machine, other, m.Key))
		}
		byKey[m.Key], named[m.Machine] = m.Machine, m.Key
	}
	return byKey, nil
}

// lies is the error for an answer that cannot be true.
func lies(call string, err error) error {
	return fmt.Errorf("%s: %w", call, err)
}

// secretsOf are the parts of a join token that are not to be seen: the long ones.
func secretsOf(token string) []string {
	return slices.DeleteFunc(strings.Split(token, "."), func(part string) bool { return len(part) < 32 })
}

// hidden is text without secrets.
func hidden(text []byte, secrets []string) []byte {
	for _, s := range secrets {
		text = bytes.ReplaceAll(text, []byte(s), []byte("…"))
	}
	return text
}

// run runs the executable for one call. Nothing that it started outlives that, and nothing it says is kept beyond a bound. What the
// question has of secrets is in no error, though the executable repeat it: errors are for all to read.
func (c *Command) run(ctx context.Context, call string, question any, most int, answer any, secrets ...string) error {
	input, err := json.Marshal(question)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	out := &bounded{most: most, over: stop}
	said := &tail{most: stderrKept}
	cmd := exec.CommandContext(ctx, c.path, call)
	cmd.Env, cmd.Dir = c.environ, "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(append(input, '\n')), out, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = pipesLinger
	err = cmd.Run()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it left behind, if anything; ESRCH else
	}
	switch {
	case out.full:
		err = fmt.Errorf("it answers with more than %d bytes", most)
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
		err = decode(hidden(out.kept, secrets), answer)
	}
	if err != nil {
		return fmt.Errorf("%s: %w%s", call, err, said.words(secrets))
	}
	return nil
}

// decode reads one JSON document, and nothing after it.
func decode(data []byte, answer any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	err := d.Decode(answer)
	if err == nil {
		if _, rest := d.Token(); rest == io.EOF {
			return nil
		}
		err = errors.New("something follows the document")
	}
	if errors.Is(err, io.EOF) {
		return errors.New("it printed no JSON document")
	}
	return fmt.Errorf("its answer is no JSON document as asked for (%w): %q", err, clip(string(data)))
}

func clip(s string) string {
	if len(s) > errorsOneRow {
		return s[:errorsOneRow] + "…"
	}
	return s
}

// bounded keeps what is written, up to a bound beyond which it calls over.
type bounded struct {
	kept []byte
	most int
	full bool
	over func()
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.full = b.full || len(b.kept)+len(p) > b.most; b.full {
		b.over()
		return len(p), nil
	}
	b.kept = append(b.kept, p...)
	return len(p), nil
}

// tail keeps the last of what is written.
type tail struct {
	most int
	kept []byte
	lost bool // there was more before it
}

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - t.most; over > 0 {
		t.kept, t.lost = append([]byte(nil), t.kept[over:]...), true
	}
	return len(p), nil
}

// words are the last lines of it, for an error.
func (t *tail) words(secrets []string) string {
	kept := hidden(t.kept, secrets)
	for _, s := range secrets {
		if t.lost { // it may begin in the middle of one
			kept = kept[min(len(s), len(kept)):]
		}
	}
	lines := strings.Split(strings.TrimSpace(strings.ToValidUTF8(string(kept), "?")), "\n")
	text := strings.TrimSpace(strings.Join(lines[max(0, len(lines)-stderrLines):], " | "))
	if text == "" {
		return ""
	}
	return "; it said: " + clip(text)
}
