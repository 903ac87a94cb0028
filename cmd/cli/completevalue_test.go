package cli

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
)

func TestValuesAreCompleted(t *testing.T) {
	s := newSession(t).serve(&fakeMaster{jobs: []*api.Job{completed()}, nodes: []*api.Node{{Id: "i-1", Name: "core-1"}}})
	for _, c := range []struct{ typed, want string }{
		{"job show ", "last s-ABCDEFGHIJKLM words"},
		{"job why wo", "words"},
		{"results s-", "s-ABCDEFGHIJKLM"},
		{"job show words ", ""}, // it takes one
		{"node show c", "core-1"},
		{"context use ", "dev"},
		{"job list --context d", "dev"},
		{"run word", "wordcount"},
		{"run wordcount s3:", "s3://"},
		{"run wordcount ./loc", ""}, // the shell's own
		{"run wordcount -- wo", ""}, // the program's own
		{"job submit cat --compress ", "gzip none zstd"},
		{"job submit cat --compress=z", "--compress=zstd"},
		{"job submit cat --nonsense=z", ""},
		{"job list --state C", "CANCELLED CANCEL_PENDING COMPLETED"},
		{"completion z", "zsh"},
		{"join-token create --role ", "core master task"},
		{"job submit cat --name x", ""},
	} {
		o := s.run(append([]string{"__complete", "--"}, strings.Split(c.typed, " ")...)...)
		require.Equal(t, 0, o.code, o.err)
		require.Equal(t, c.want, strings.Join(strings.Fields(o.out), " "), c.typed)
	}
	nowhere := newSession(t)
	require.Equal(t, output{}, nowhere.run("__complete", "--", "job", "show", ""), "without a cluster: nothing, quietly")
}

// Every command has examples, and each of them is a command line that this program understands.
func TestEveryExampleParses(t *testing.T) {
	a := testApp()
	n := 0
	for _, inv := range everyCommand(a) {
		example := inv.command().UsageText
		require.NotEmpty(t, example, "%s has no example", inv.name())
		for line := range strings.SplitSeq(example, "\n") {
			words, ok := exampleWords(line)
			if !ok {
				continue
			}
			n++
			got, err := parse(a.commands, a.globals, words)
			require.NoError(t, err, "%s: %s", inv.name(), line)
			require.NotNil(t, got.command().Action, "%s: %s", inv.name(), line)
		}
	}
	t.Logf("%d examples", n)
	require.Greater(t, n, 50)
}

// everyCommand lists the groups and the leaves that people can see.
func everyCommand(a *app) (all []invocation) {
	var walk func(inv invocation)
	walk = func(inv invocation) {
		for _, c := range (&parser{commands: a.commands, inv: inv}).choices() {
			if c.Hidden {
				continue
			}
			deeper := invocation{path: append(inv.path[:len(inv.path):len(inv.path)], c)}
			all = append(all, deeper)
			if len(c.Subcommands) > 0 {
				walk(deeper)
			}
		}
	}
	walk(invocation{})
	return all
}

// exampleWords takes the command's words out of an example: without what surrounds it in the shell, and without the
// remark after it.
func exampleWords(line string) ([]string, bool) {
	if i := strings.Index(line, "   "); i >= 0 {
		line = line[:i]
	}
	if i := strings.Index(line, "$(millrace "); i >= 0 {
		line = strings.TrimRight(line[i+2:], `)"`)
	}
	if i := strings.Index(line, "<(millrace "); i >= 0 {
		line = strings.TrimRight(line[i+2:], ")")
	}
	if i := strings.Index(line, "millrace "); i < 0 {
		return nil, false
	} else if strings.Contains(line[:i], "|") {
		line = line[i:]
	}
	for _, cut := range []string{" | ", " > ", " && "} {
		line, _, _ = strings.Cut(line, cut)
	}
	rest, ok := strings.CutPrefix(strings.TrimSpace(line), "millrace ")
	return strings.Fields(rest), ok
}

func TestTyposAreMet(t *testing.T) {
	s := newSession(t).serve(&fakeMaster{jobs: []*api.Job{completed()}})
	for _, c := range []struct{ typed, says string }{
		{"jbo list", "millrace job"},
		{"job sumbit x", "millrace job submit"},
		{"job submit cat --inptu s3://b/", "--input"},
		{"run wordcuont s3://b/i s3://b/o --local", "wordcount"},
		{"run wordcount s3://b/i s3://b/o --compress gzpi", "gzip"},
		{"run wordcount s3://b/i s3://b/o --output-format txet", "text"},
		{"job list --context dve", "dev"},
		{"context use dve", "dev"},
		{"completion bsh", "bash"},
		{"job list --state RUNING", "RUNNING"},
	} {
		o := s.run(strings.Fields(c.typed)...)
		require.NotEqual(t, 0, o.code, c.typed)
		require.Contains(t, o.err, c.says, "%s", c.typed)
		t.Logf("%s\n%s", c.typed, o.err)
	}
}
