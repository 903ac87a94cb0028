//go:build cluster

package clustertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
)

var updateRefusals = flag.Bool("update-refusals", false, "write testdata/refusals.txt anew from what the binary says")

const refusalsFile = "testdata/refusals.txt"

// refusal is one command line of testdata/refusals.txt, and all that it must say.
type refusal struct {
	line    string
	says    string // standard error
	code    int
	comment string // what stands before it in the file
}

// TestRefusals: what cannot be done is refused with the exit code and the very words of
// testdata/refusals.txt, in JSON too, with nothing on standard output and nothing started.
func TestRefusals(t *testing.T) {
	s := newRefusalSite(t)
	before := s.everything()
	cases := readRefusals(t)
	require.Greater(t, len(cases), 150)
	got := make([]refusal, len(cases))
	var wg sync.WaitGroup
	next := make(chan int)
	for range 3 {
		wg.Go(func() {
			for i := range next {
				got[i] = s.run(t, cases[i])
			}
		})
	}
	for i := range cases {
		next <- i
	}
	close(next)
	wg.Wait()
	if *updateRefusals {
		writeRefusals(t, got)
	} else {
		for i, want := range cases {
			if want.says != got[i].says || want.code != got[i].code {
				t.Errorf("$ %s\nwant [%d]\n%sgot [%d]\n%s", want.line, want.code, want.says, got[i].code, got[i].says)
			}
		}
	}
	require.Equal(t, before, s.everything(), "nothing was started, and nothing is left")
	t.Logf("%d command lines", len(cases))
}

// refusalSite is a cluster with something in its store, a job that holds an output, and a
// folder with files to go wrong with.
type refusalSite struct {
	*cluster
	env     []string          // of the command lines
	version string            // of the binary
	values  map[string]string // what varies, by the name that it has in the file
}

func newRefusalSite(t *testing.T) *refusalSite {
	c := startCluster(t, "--core", "1", "--task", "1", "--slots", "1")
	s := &refusalSite{cluster: c, values: map[string]string{}}
	c.mr("fs", "mb", "s3://data")
	for _, key := range []string{"in/a.txt", "in/x/b.txt"} {
		require.Zero(t, c.tryIn(strings.NewReader("some words\n"), "fs", "put", "-", "s3://data/"+key).code)
	}
	for _, path := range []string{"/there/file", "/there/other"} {
		require.Zero(t, c.tryIn(strings.NewReader("some words\n"), "fs", "put", "-", "hdfs://"+path).code)
	}
	s.values["JOB"] = c.json("run", "wordcount", "s3://data/in", "s3://data/taken", "--name", "done").str("id")
	gate := filepath.Join(t.TempDir(), "go-on")
	s.values["HOLDER"] = c.submit("--mapper", "while [ ! -e "+gate+" ]; do sleep 0.05; done; cat", "--reducer", "cat", "--name", "holder",
		"--input", "s3://data/in/a.txt", "--output", "s3://data/reserved/x")
	c.waitJobUntil(s.values["HOLDER"], "runs", func(o object) bool { return o.num("maps", "running") == 1 })
	t.Cleanup(func() { os.WriteFile(gate, nil, 0o600); c.waitJob(s.values["HOLDER"]) })

	busy, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { busy.Close() })
	s.values["BUSY"] = busy.Addr().String()
	dir := t.TempDir()
	s.values["DIR"] = dir
	s.files(t, dir)

	bin := t.TempDir()
	require.NoError(t, os.Symlink(binary(t), filepath.Join(bin, "millrace")))
	s.values["STORE"] = c.json("context", "show").str("s3Endpoint")
	s.values["TAKEN_DIR"] = filepath.Join(c.dir, "core-1")
	s.values["DEV_DIR"] = c.dir
	s.version = c.json("version").str("version")
	s.env = append(c.environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	if os.Getuid() == 0 { // whom permissions do not stop otherwise
		s.env = append(s.env, "LIMITED=setpriv --bounding-set=-dac_override,-dac_read_search --")
	}
	for name, value := range s.values {
		s.env = append(s.env, name+"="+value)
	}
	return s
}

// files are what the command lines of the table name in $DIR.
func (s *refusalSite) files(t *testing.T, dir string) {
	write := func(name, text string, mode os.FileMode) {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), mode))
	}
	write("types.yaml", "program: wordcount\nreduces: many\nsplitSize: 0\nmemory: big\ninput: {a: b}\ninptu: s3://data/in\noutput: s3://data/taken\ntimeout: -1s\noverwrite: perhaps\nenv: [A]\npriority: 1.5\nargs:\n- [x]\n", 0o644)
	write("tab.yaml", "program: wordcount\ninput:\n\t- s3://data/in\n", 0o644)
	write("syntax.yaml", "program: wordcount\ninput: [1\noutput: s3://data/o\n", 0o644)
	write("twice.yaml", "program: wordcount\noutput: s3://data/o\ninput: s3://data/in\nprogram: cat\n", 0o644)
	write("two.yaml", "program: wordcount\n---\nprogram: cat\n", 0o644)
	write("empty.yaml", "", 0o644)
	write("comment.yaml", "# nothing yet\n", 0o644)
	write("list.yaml", "- program: wordcount\n", 0o644)
	write("words.yaml", "count the words\n", 0o644)
	write("latin.yaml", "program: wordcount\nname: caf\xe9\n", 0o644)
	write("utf16.yaml", "\xff\xfep\x00r\x00", 0o644)
	write("huge.yaml", strings.Repeat("# much too much\n", 1<<17), 0o644)
	write("deep.yaml", strings.Repeat("[", 100_000), 0o644)
	write("job.json", "{\n\t\"program\": \"wordcuont\",\n\t\"input\": [\"s3://data/none\"],\n\t\"output\": \"s3://data/taken\"\n}\n", 0o644)
	write("plain.txt", "just text\n", 0o644)
	write("no-shebang", "just text\n", 0o755)
	write("script.sh", "#!/bin/sh\necho hello\n", 0o755)
	write("interpreter", "#!/no/such/interpreter\n", 0o755)
	write("other-machine", "\x7fELF\x02\x01\x01"+strings.Repeat("\x00", 9)+"\x02\x00\xf3\x00\x01\x00\x00\x00"+strings.Repeat("\x00", 200), 0o755)
	write("broken/go.mod", "module broken\n\ngo 1.24\n", 0o644)
	text := "package main\n\nfunc main() {\n"
	for i := range 15 {
		text += fmt.Sprintf("\tundefined%d()\n", i)
	}
	write("broken/main.go", text+"}\n", 0o644)
	write("lib/go.mod", "module lib\n\ngo 1.24\n", 0o644)
	write("lib/lib.go", "package lib\n", 0o644)
	write("newer/format.json", `{"format":2,"version":"v9.0.0"}`, 0o600)
	write("half-restored/restoring", "2026-01-01T00:00:00Z\n", 0o600)
	write("newer-dev/dev.json", `{"format":2,"ports":{}}`, 0o600)
	write("bad-home/contexts/bad.json", "{", 0o600)
	write("bad-home/current-context", "bad\n", 0o600)
	write("odd-home/current-context", "../../etc\n", 0o600)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "no-home"), 0o755))
	write("token", "mr1.nonsense", 0o600)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "read-only"), 0o500))
}

var (
	pidName  = regexp.MustCompile(`pid \d+, [^)]+`)
	pidAlone = regexp.MustCompile(`pid \d+`)
	logLine  = regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\dT.*\n`)
)

// settle puts names in the place of what varies.
func (s *refusalSite) settle(text string) string {
	names := make([]string, 0, len(s.values))
	for name := range s.values {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return len(s.values[b]) - len(s.values[a]) })
	for _, name := range names {
		text = strings.ReplaceAll(text, s.values[name], "$"+name)
	}
	text = strings.ReplaceAll(text, "this is version "+s.version, "this is version $VERSION")
	text = strings.ReplaceAll(text, "this one is "+runtime.GOARCH, "this one is $ARCH")
	text = pidName.ReplaceAllString(text, "pid N, NAME")
	text = pidAlone.ReplaceAllString(text, "pid N")
	return logLine.ReplaceAllString(text, "")
}

// run runs one line, and again with --json, which must say the same.
func (s *refusalSite) run(t *testing.T, want refusal) refusal {
	got := want
	out, says, code := s.shell(t, want.line)
	got.says, got.code = s.settle(says), code
	if out != "" {
		t.Errorf("$ %s\nprints: %s", want.line, out)
	}
	if code == 0 {
		t.Errorf("$ %s\nis not refused: %s", want.line, says)
	}
	if strings.Contains(want.line, "--json") {
		return got
	}
	lines := strings.Split(strings.TrimSpace(got.says), "\n")
	var mistakes []string
	next := ""
	for i, l := range lines {
		text, mistake := strings.CutPrefix(l, "millrace: ")
		advice, last := strings.CutPrefix(l, "next: ")
		switch {
		case last && i == len(lines)-1:
			next = advice
		case mistake && !slices.Contains(mistakes, text):
			mistakes = append(mistakes, text)
		case !mistake && strings.HasPrefix(l, "s3: ") && i == 0:
		default:
			t.Errorf("$ %s\na line that is neither a mistake nor the advice, or twice: %s", want.line, l)
		}
	}
	if next == "" || len(mistakes) == 0 {
		t.Errorf("$ %s\nwants mistakes and one piece of advice:\n%s", want.line, says)
	}
	// Behind -- it would be the program's; fs cat and redirections have no place for it.
	if strings.Contains(want.line, " -- ") || strings.Contains(want.line, " <") || strings.Contains(want.line, " fs cat ") {
		return got
	}
	out, says, code = s.shell(t, want.line+" --json")
	lines = strings.Split(strings.TrimSpace(logLine.ReplaceAllString(says, "")), "\n")
	var e struct {
		Error    string
		Errors   []string
		Next     string
		ExitCode int
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &e); err != nil || out != "" || len(lines) > 1 {
		t.Errorf("$ %s --json\n%v: %s%s", want.line, err, out, says)
		return got
	}
	for i := range e.Errors {
		e.Errors[i] = s.settle(e.Errors[i])
	}
	if code != got.code || e.ExitCode != got.code || !slices.Equal(e.Errors, mistakes) || s.settle(e.Next) != next || e.Error == "" {
		t.Errorf("$ %s --json\nexit code %d, %+v\nand not [%d] %q, %q", want.line, code, e, got.code, mistakes, next)
	}
	return got
}

func (s *refusalSite) shell(t *testing.T, line string) (out, says string, code int) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", line)
	cmd.Env, cmd.Dir = s.env, s.values["DIR"]
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Errorf("$ %s\n%v %v", line, err, ctx.Err())
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

// everything is what there is in the cluster and its store, a line each.
func (s *refusalSite) everything() []string {
	var all []string
	for _, j := range s.jsonList("job", "list") {
		all = append(all, "job "+j.str("id")+" "+j.str("state"))
	}
	for _, n := range s.jsonList("node", "list") {
		all = append(all, "node "+n.str("id"))
	}
	for _, k := range s.jsonList("join-token", "list") {
		all = append(all, "token "+k.str("id"))
	}
	for _, x := range s.jsonList("context", "list") {
		all = append(all, "context "+x.str("name"))
	}
	for _, f := range s.jsonList("fs", "ls", "-R", "hdfs:///") {
		all = append(all, "file "+f.str("path"))
	}
	store := s.store()
	buckets, err := store.ListBuckets(context.Background())
	require.NoError(s.t, err)
	for _, b := range buckets {
		all = append(all, "bucket "+b.Name)
		for o, err := range store.List(context.Background(), b.Name, "", objectstore.ListOptions{}) {
			require.NoError(s.t, err)
			all = append(all, "object "+b.Name+"/"+o.Key)
		}
	}
	for _, key := range []string{"o/part-00000", "o/part-r-00000", "taken/part-00000", "taken/part-r-00000"} {
		uploads, err := store.ListUploads(context.Background(), "data", key)
		require.NoError(s.t, err)
		require.Empty(s.t, uploads)
	}
	return all
}

// readRefusals reads the table: a line that starts with "$ " is a command, the lines after it are what it
// says on standard error, [N] is its exit code.
func readRefusals(t *testing.T) (all []refusal) {
	data, err := os.ReadFile(refusalsFile)
	require.NoError(t, err)
	var r refusal
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSuffix(line, "\n")
		switch command, ok := strings.CutPrefix(line, "$ "); {
		case ok:
			r = refusal{line: command, comment: r.comment}
		case r.line == "":
			r.comment += line + "\n"
		case strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]"):
			_, err := fmt.Sscanf(line, "[%d]", &r.code)
			require.NoError(t, err, line)
			all = append(all, r)
			r = refusal{}
		default:
			r.says += line + "\n"
		}
	}
	require.Empty(t, r.line, "the last one has no exit code")
	return all
}

func writeRefusals(t *testing.T, all []refusal) {
	var b strings.Builder
	for _, r := range all {
		fmt.Fprintf(&b, "%s$ %s\n%s[%d]\n", r.comment, r.line, r.says, r.code)
	}
	require.NoError(t, os.WriteFile(refusalsFile, []byte(b.String()), 0o644))
}
