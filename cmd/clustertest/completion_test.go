//go:build cluster

package clustertest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hinshun/vt10x"
	"github.com/stretchr/testify/require"
)

// A person at a shell types the beginning and presses Tab: bash, zsh and fish, with their line editors, on a terminal.
func TestCompletionInRealShells(t *testing.T) {
	c := startCluster(t, "--core", "1", "--task", "0", "--slots", "1")
	c.mr("fs", "mb", "s3://completed-bucket")
	c.tryIn(strings.NewReader("a line\n"), "fs", "put", "-", "s3://completed-bucket/folder/an-object")
	c.mr("run", "cat", "s3://completed-bucket/folder/", "s3://completed-bucket/out/", "--name", "longname")
	id := c.json("job", "show", "last").str("id")
	bin := filepath.Join(t.TempDir(), "bin")
	require.NoError(t, os.Mkdir(bin, 0o755))
	require.NoError(t, os.Symlink(binary(t), filepath.Join(bin, "millrace")))

	for _, shell := range []struct {
		name  string
		args  []string
		setUp string
	}{
		{"bash", []string{"--norc", "--noprofile", "-i"}, `bind 'set bell-style none'; source <(millrace completion bash)`},
		{"zsh", []string{"-f", "-i"}, `autoload -Uz compinit; compinit -u -D; unsetopt beep; source <(millrace completion zsh)`},
		{"fish", []string{"--no-config", "-i"}, `millrace completion fish | source`},
	} {
		t.Run(shell.name, func(t *testing.T) {
			need(t, shell.name)
			s := &tty{t: t, cmd: exec.Command(shell.name, shell.args...), vt: vt10x.New(vt10x.WithSize(200, 50)), ended: make(chan struct{})}
			s.cmd.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "MILLRACE_HOME=" + c.home, "TERM=xterm", "PS1=$ ", "LANG=C.UTF-8"}
			s.start(200, 50)
			s.types(shell.setUp + "; echo set''up\r")
			s.sees("setup")
			for _, k := range []struct{ typed, becomes string }{
				{"millrace job ca", "millrace job cancel "},
				{"millrace job tasks last --fai", "millrace job tasks last --failed "},
				{"millrace job why " + id[:6], "millrace job why " + id + " "},
				{"millrace context use de", "millrace context use dev "},
				{"millrace fs cat s3://completed-bucket/folder/an", "millrace fs cat s3://completed-bucket/folder/an-object "},
				{"millrace job submit cat --input s3://completed-bucket/fo", "millrace job submit cat --input s3://completed-bucket/folder/"},
				{"millrace job submit cat --compress=zs", "millrace job submit cat --compress=zstd "},
				{"millrace job submit cat --output-format te", "millrace job submit cat --output-format text "},
			} {
				s.completes(k.typed, k.becomes)
				s.types("\x15")
			}
			s.types("\x15exit\r")
			s.wait()
		})
	}
}

func (s *tty) types(text string) {
	s.t.Helper()
	_, err := s.file.Write([]byte(text))
	require.NoError(s.t, err)
}

// completes types something and Tab, and waits for what it becomes. What cannot be found out within two seconds is no completion: on a busy
// machine Tab is typed again.
func (s *tty) completes(typed, becomes string) {
	s.t.Helper()
	var again time.Time
	waitFor(s.t, "Tab after "+typed, func() (bool, string) {
		if strings.Contains(strings.ReplaceAll(s.vt.String(), "\n", ""), strings.TrimRight(becomes, " ")) {
			return true, ""
		}
		if time.Now().After(again) {
			s.types("\x15" + typed + "\t")
			again = time.Now().Add(8 * time.Second)
		}
		return false, strings.Join(s.rows(), "\n")
	})
	s.sees(becomes + "#") // with what is typed after it
}

// sees waits until a text is on the screen. What ends in # has that typed when the rest can be seen: it stands where the
// cursor is, so that a space that completion adds, or does not add, shows.
func (s *tty) sees(text string) {
	s.t.Helper()
	if before, ok := strings.CutSuffix(text, "#"); ok {
		waitFor(s.t, "the screen shows "+before, func() (bool, string) {
			screen := s.vt.String()
			return strings.Contains(strings.ReplaceAll(screen, "\n", ""), strings.TrimRight(before, " ")), strings.Join(s.rows(), "\n")
		})
		s.types("#")
	}
	waitFor(s.t, "the screen shows "+text, func() (bool, string) {
		return strings.Contains(s.vt.String(), text), strings.Join(s.rows(), "\n")
	})
}
