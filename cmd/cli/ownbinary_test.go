package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// ownProgram is a shell script that describes itself as a program made with the SDK.
func ownProgram(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mine")
	text := "#!/bin/sh\nif [ \"$MILLRACE_DESCRIBE\" = 1 ]; then echo '{\"sdk\":1,\"name\":\"mine\"}'; exit; fi\n" + script + "\n"
	require.NoError(t, os.WriteFile(path, []byte(text), 0o755))
	return path
}

func TestAnOwnProgramGetsTheJobAsTheSDKsFlags(t *testing.T) {
	s := newSession(t)
	file := filepath.Join(t.TempDir(), "stop words.txt")
	require.NoError(t, os.WriteFile(file, []byte("a\n"), 0o644))
	mine := ownProgram(t, `for a in "$@"; do echo "$a"; done`)
	o := s.run("run", mine, "in1", "in2", "out", "--local", "--reduces", "2", "--split-size", "8MiB", "--memory", "64MiB", "--compress", "gzip", "--overwrite", "-D", "b=2=2", "-D", "a=1", "--file", file+"#stop", "--", "-x", "y")
	require.Equal(t, 0, o.code, o.err)
	require.Equal(t, []string{"--local", "--reduces=2", "--split-size=8388608", "--memory=67108864", "--compress=gzip", "--overwrite", "-D", "a=1", "-D", "b=2=2", "--file", file + "#stop", "in1", "in2", "out", "--", "-x", "y"},
		strings.Split(strings.TrimSpace(o.out), "\n"))
}

func TestAnOwnProgramsJobAsJSON(t *testing.T) {
	mine := ownProgram(t, `echo from the mapper
echo '{"id":"s-1","maps":3,"reduces":2,"parts":[{"key":"p","size":9,"records":5}],"inputBytes":7,"outputRecords":5,"outputBytes":9,"counters":{"millrace":{"mapInputRecords":4}},"mapMs":1,"reduceMs":2,"commitMs":3}'`)
	o := newSession(t).run("run", mine, "in", "out", "--local", "--json")
	require.Equal(t, 0, o.code, o.err)
	require.Equal(t, "from the mapper\n", o.err)
	job := o.json(t).(map[string]any)
	require.Equal(t, "s-1", job["id"])
	require.Equal(t, "COMPLETED", job["state"])
	require.EqualValues(t, 3, job["maps"].(map[string]any)["completed"])
	require.EqualValues(t, 5, job["outputRecords"])
	require.EqualValues(t, 3, job["commitMs"])
	require.EqualValues(t, 1, job["parts"])
	require.Contains(t, job["counters"].(map[string]any)["millrace"], "spilledRecords")
}

// The exit codes of the SDK are ours; one that a program makes up is 1, and always with advice.
func TestTheEndOfAnOwnProgram(t *testing.T) {
	for _, test := range []struct {
		script string
		code   int
		says   []string
	}{
		{"echo log line >&2; exit 3", 1, []string{"log line\nmillrace: mine ended before its job did: exit status 3\nnext: "}},
		{"echo 'panic: boom' >&2; exit 2", 1, []string{"panic: boom\nmillrace: mine ended before", "next: mend the program"}},
		{"kill -9 $$", 1, []string{"signal: killed", "next: "}},
		{"echo 'millrace: the store is away' >&2; exit 3", 3, []string{"millrace: the store is away\nnext: "}},
		{"echo 'millrace: task m-00000 failed: boom' >&2; exit 1", 1, []string{"task m-00000 failed: boom\nnext: mend the program or its input"}},
		{"echo 'millrace: output /x is not empty: it has /x/y' >&2; exit 2", 2, []string{"next: choose another output, or add --overwrite"}},
		{"printf 'millrace: no\\nnext: mine --help\\n' >&2; exit 2", 2, []string{"millrace: no\nnext: mine --help\n"}},
		{"printf 'stack\\nmillrace: task m-00000 failed: panic\\nstack\\n' >&2; exit 1", 1, []string{"stack\nmillrace: task m-00000 failed: panic\nnext: "}},
		{"echo 'millrace: only a remark' >&2; exit 0", 0, []string{"millrace: only a remark\n"}},
	} {
		mine := ownProgram(t, test.script)
		o := newSession(t).run("run", mine, "in", "out", "--local")
		require.Equal(t, test.code, o.code, test.script+"\n"+o.err)
		for _, want := range test.says {
			require.Contains(t, o.err, want, test.script)
		}
		require.LessOrEqual(t, strings.Count(o.err, "next: "), 1, o.err)
	}
	o := newSession(t).run("run", ownProgram(t, "echo 'millrace: no' >&2; exit 1"), "in", "out", "--local", "--json")
	require.True(t, json.Valid([]byte(o.err)), o.err)
}

func TestWhatAnOwnProgramLeavesBehindIsRemoved(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	o := newSession(t).run("run", ownProgram(t, `mkdir "$TMPDIR/millrace-local-1"; kill -9 $$`), "in", "out", "--local")
	require.Equal(t, 1, o.code)

	out := filepath.Join(t.TempDir(), "out")
	mine := ownProgram(t, `mkdir -p "$3/_temporary-1/x"; kill -9 $$`)
	require.Equal(t, 1, newSession(t).run("run", mine, "in", out, "--local").code)
	require.NoDirExists(t, out)
	require.NoError(t, os.MkdirAll(filepath.Join(out, "_temporary-0"), 0o755)) // somebody else's
	require.Equal(t, 1, newSession(t).run("run", mine, "in", out, "--local").code)
	require.DirExists(t, filepath.Join(out, "_temporary-0"))
	require.NoDirExists(t, filepath.Join(out, "_temporary-1"))

	left, err := os.ReadDir(tmp)
	require.NoError(t, err)
	for _, e := range left { // the test's own folders are here too
		require.False(t, strings.HasPrefix(e.Name(), "millrace-"), e.Name())
	}
}

func TestLastLineHoldsOneLineBack(t *testing.T) {
	var b bytes.Buffer
	l := &lastLine{w: &b}
	for _, p := range []string{"a\nb", "c\n", "d", "e\n"} {
		_, err := l.Write([]byte(p))
		require.NoError(t, err)
	}
	require.Equal(t, "a\nbc\n", b.String())
	require.Equal(t, "de\n", string(l.held))
}

func TestMoreThanAnErrorsTextIsNotHeldBack(t *testing.T) {
	var b bytes.Buffer
	l := &lastWords{w: &b}
	text := strings.Repeat("millrace: chatter\n", maxLastWords/10)
	_, err := l.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, l.pass())
	require.Equal(t, text, b.String())
}
