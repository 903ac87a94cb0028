//go:build cluster

package clustertest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// elsewhere are the commands of the pages that this test does not run, and who does.
var elsewhere = map[string]string{
	"make demo":  "it is TestDemo, and builds first as .ci/run does",
	"make test":  ".ci/run runs it",
	"make build": ".ci/run runs it: this test has its binary from there",
}

// languages are those of code blocks that hold no commands.
var languages = []string{"text", "go", "python", "yaml", "json", "sql"}

// command is one command of a page.
type command struct {
	page  string
	line  int
	text  string
	exits int
	scene bool // set for the commands that follow, not to be read
}

func (c command) String() string { return fmt.Sprintf("%s:%d: %s", c.page, c.line, c.text) }

var exitsWith = regexp.MustCompile(`#.*\bexits (\d+)`)

// commandsOf takes the commands from a page: the lines of its sh blocks, those that end in \ joined; what a
// comment says of the exit code holds. A comment <!-- before: COMMAND --> sets the scene, unseen by readers.
func commandsOf(t *testing.T, page string, text string) (list []command) {
	language, inside, joined, start := "", false, "", 0
	for i, line := range strings.Split(text, "\n") {
		fence, isFence := strings.CutPrefix(line, "```")
		before, isBefore := strings.CutPrefix(line, "<!-- before: ")
		switch {
		case isFence && inside:
			require.Empty(t, joined, "%s:%d: a command that does not end", page, i+1)
			inside = false
		case isFence:
			language, inside = fence, true
			require.Contains(t, append(languages, "sh"), language, "%s:%d: say what the block is: ```sh is run by this test", page, i+1)
		case isBefore && !inside:
			list = append(list, command{page: page, line: i + 1, text: strings.TrimSuffix(before, " -->"), scene: true})
		case !inside:
		case language != "sh":
			require.NotRegexp(t, `^\s*(\$ )?(bin/)?millrace [a-z]`, line, "%s:%d: a command in a block that is not sh is run by nobody", page, i+1)
		case strings.TrimSpace(line) == "" && joined == "":
		default:
			if joined == "" {
				start = i + 1
			}
			if rest, more := strings.CutSuffix(line, `\`); more {
				joined += rest
				continue
			}
			c := command{page: page, line: start, text: strings.TrimSpace(joined + line)}
			if m := exitsWith.FindStringSubmatch(c.text); m != nil {
				c.exits, _ = strconv.Atoi(m[1])
			}
			list, joined = append(list, c), ""
		}
	}
	return list
}

// reader is somebody who types what the pages say: one home, one folder (a copy of the checkout), one shell.
type reader struct {
	t          *testing.T
	root, home string
	env        []string
	words      map[string]string // what stands in the pages for what is different everywhere
	kept       []*exec.Cmd       // started, and in the foreground until the end
	ended      []chan struct{}
}

func newReader(t *testing.T) *reader {
	r := &reader{t: t, root: t.TempDir(), home: t.TempDir()}
	out, err := exec.Command("git", "-C", "../..", "ls-files", "-z").Output()
	require.NoError(t, err)
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		data, err := os.ReadFile(filepath.Join("../..", name))
		if os.IsNotExist(err) { // deleted, and not committed yet
			continue
		}
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(filepath.Join(r.root, filepath.Dir(name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(r.root, name), data, 0o755))
	}
	require.NoError(t, os.MkdirAll(filepath.Join(r.root, "bin"), 0o755))
	require.NoError(t, os.Symlink(binary(t), filepath.Join(r.root, "bin", "millrace")))
	require.NoError(t, os.Mkdir(filepath.Join(r.home, "tmp"), 0o755))
	r.env = []string{"HOME=" + r.home, "PATH=" + filepath.Join(r.root, "bin") + ":" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir(),
		"GOCACHE=" + goEnv("GOCACHE"), "GOMODCACHE=" + goEnv("GOMODCACHE"), "GOFLAGS=" + os.Getenv("GOFLAGS"), "GOPROXY=" + goEnv("GOPROXY")}
	t.Cleanup(r.close)
	return r
}

func (r *reader) close() {
	for i, cmd := range r.kept {
		cmd.Process.Signal(os.Interrupt)
		<-r.ended[i]
	}
	waitFor(r.t, "no process of the pages is left", func() (bool, string) {
		left := processesNaming(r.home)
		return len(left) == 0, strings.Join(left, "\n")
	})
}

// do runs one command in the shell, whose variables stay; it says how it ended.
func (r *reader) do(text string) (output string, code int) {
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*patience) // some of them build programs
	defer cancel()
	state := filepath.Join(r.home, "shell")
	script := fmt.Sprintf("[ -f %[1]s ] && . %[1]s\ncd %[2]s\n%[3]s\ncode=$?\nexport -p > %[1]s\nexit $code\n", state, r.root, text)
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Env = r.env
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Run() // its exit code says it
	return out.String(), cmd.ProcessState.ExitCode()
}

// count says how many lines of what a command prints have a word.
func (r *reader) count(text, word string) int {
	out, _ := r.do(text)
	n := 0
	for line := range strings.Lines(out) {
		if strings.Contains(line, word) {
			n++
		}
	}
	return n
}

// keep starts a command that stays in the foreground, and waits until it says that it is ready.
func (r *reader) keep(text, ready string) (rest string) {
	r.t.Helper()
	cmd := exec.Command("bash", "-c", fmt.Sprintf("[ -f %[1]s ] && . %[1]s\ncd %[2]s\nexec %[3]s", filepath.Join(r.home, "shell"), r.root, text))
	cmd.Env = r.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out, in, err := os.Pipe()
	require.NoError(r.t, err)
	cmd.Stdout, cmd.Stderr = in, in
	require.NoError(r.t, cmd.Start())
	in.Close()
	ended, found := make(chan struct{}), make(chan string, 1)
	r.kept, r.ended = append(r.kept, cmd), append(r.ended, ended)
	var said lockedBuffer
	go func() {
		defer close(ended)
		for s := bufio.NewScanner(out); s.Scan(); {
			fmt.Fprintln(&said, s.Text())
			if _, rest, ok := strings.Cut(s.Text(), ready); ok {
				select {
				case found <- rest:
				default:
				}
			}
		}
		cmd.Wait()
	}()
	select {
	case rest = <-found:
	case <-ended:
		r.t.Fatalf("%s ended:\n%s", text, said.String())
	case <-r.t.Context().Done():
		r.t.Fatalf("%s: not ready:\n%s", text, said.String())
	}
	return rest
}

// run runs a command of a page, as its reader would.
func (r *reader) run(c command) {
	r.t.Helper()
	text := c.text
	for from, to := range r.words {
		text = strings.ReplaceAll(text, from, to)
	}
	switch {
	case strings.HasPrefix(text, "bin/millrace dev"), strings.HasPrefix(text, "millrace dev"):
		url := r.keep(text, "ready: ")
		if r.words["PORT"] == "" { // the first one
			r.words["PORT"] = url[strings.LastIndexByte(url, ':')+1:]
		}
	case strings.HasPrefix(text, "millrace worker"):
		before := r.count("millrace node list --json", "RUNNING")
		r.keep(text, "")
		waitFor(r.t, "one node more is running", func() (bool, string) {
			now := r.count("millrace node list --json", "RUNNING")
			return now > before, fmt.Sprint(now)
		})
	case strings.HasPrefix(text, "millrace master run"):
		before := r.count("millrace master list --json", "VOTER")
		r.keep(text, "")
		waitFor(r.t, "one master more votes", func() (bool, string) {
			now := r.count("millrace master list --json", "VOTER")
			return now > before, fmt.Sprint(now)
		})
	default:
		out, code := r.do(text)
		require.Equal(r.t, c.exits, code, "%s\n%s", c, out)
	}
}

var inlineCommand = regexp.MustCompile("`(millrace [a-z][^`]*)`")

// The pages are right: every command in them is run, in their order, by somebody who has nothing but the checkout.
// What stands within a sentence is parsed at least.
func TestEveryCommandOfThePagesRuns(t *testing.T) {
	m := startMinIO(t)
	r := newReader(t)
	r.words = map[string]string{
		"/tmp/": filepath.Join(r.home, "tmp") + "/", "http://minio:9000": m.endpoint,
		"AWS_ACCESS_KEY_ID=…": "AWS_ACCESS_KEY_ID=" + m.key, "AWS_SECRET_ACCESS_KEY=…": "AWS_SECRET_ACCESS_KEY=" + m.secret,
	}
	pages := []string{"README.md"}
	more, err := filepath.Glob("../../docs/*.md")
	require.NoError(t, err)
	for _, p := range more {
		if "docs/"+filepath.Base(p) == machinesPage { // TestThePageOnRealMachines follows it, on machines
			continue
		}
		pages = append(pages, filepath.Join("docs", filepath.Base(p)))
	}
	ran, parsed, scenes := 0, 0, 0
	var not, others []string
	for _, page := range pages {
		data, err := os.ReadFile(filepath.Join("../..", page))
		require.NoError(t, err)
		if m := runBy.FindStringSubmatch(string(data)); m != nil {
			requireTest(t, page, m[1])
			others = append(others, page+" ("+m[1]+")")
			continue
		}
		os.Remove(filepath.Join(r.home, "shell")) // each page has a terminal of its own
		for _, c := range commandsOf(t, page, string(data)) {
			if why := elsewhere[strings.TrimSpace(strings.Split(c.text, "#")[0])]; why != "" {
				not = append(not, fmt.Sprintf("%s (%s)", c, why))
				continue
			}
			if c.scene {
				scenes++
			} else {
				ran++
			}
			r.run(c)
		}
		for _, m := range inlineCommand.FindAllStringSubmatch(string(data), -1) {
			out, code := r.do(m[1] + " --help")
			require.Zero(t, code, "%s: `%s`\n%s", page, m[1], out)
			parsed++
		}
	}
	t.Logf("followed by other tests: %s", strings.Join(others, ", "))
	t.Logf("%d pages: %d commands run, %d within sentences parsed, %d scenes set, %d run elsewhere:\n%s", len(pages), ran, parsed, scenes, len(not), strings.Join(not, "\n"))
	require.LessOrEqual(t, len(not), 3, "commands that nobody runs here are to stay few")
}

// runBy names the test that follows a page which takes more than this machine's processes.
var runBy = regexp.MustCompile(`^<!-- run by: (Test\w+) -->`)

// requireTest sees to it that such a test is there, and reads the page.
func requireTest(t *testing.T, page, name string) {
	t.Helper()
	out, err := exec.Command("git", "-C", "../..", "grep", "-l", "-e", "func "+name+"(", "--", "cmd/clustertest/*_test.go").Output()
	require.NoError(t, err, "%s: no test is called %s", page, name)
	text, err := os.ReadFile(filepath.Join("../..", strings.TrimSpace(string(out))))
	require.NoError(t, err)
	require.Contains(t, string(text), page, "%s does not read the page", name)
}

var quoted = regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")

// What the page about failures quotes, the program says.
func TestThePageQuotesWhatIsSaid(t *testing.T) {
	page, err := os.ReadFile("../../docs/troubleshooting.md")
	require.NoError(t, err)
	quotes := quoted.FindAllStringSubmatch(string(page), -1)
	require.NotEmpty(t, quotes)
	for _, q := range quotes {
		for piece := range strings.SplitSeq(q[1], "…") {
			if piece = strings.TrimSpace(piece); piece == "" {
				continue
			}
			out, err := exec.Command("git", "-C", "../..", "grep", "-lF", piece, "--", "*.go", ":!*_test.go").Output()
			require.NoError(t, err, "nothing says %q", piece)
			require.NotEmpty(t, out)
		}
	}
}
