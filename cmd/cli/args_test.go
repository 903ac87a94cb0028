package cli

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v2"
)

func testApp() *app { return newApp(Env{Getenv: func(string) string { return "" }}) }

func TestFlagsWorkBeforeAndAfterArguments(t *testing.T) {
	for _, test := range []struct{ line, want string }{
		{"job show last --json", "millrace --json job show -- last"},
		{"job --json show last", "millrace --json job show -- last"},
		{"--json job show last", "millrace --json job show -- last"},
		{"job show --server https://a:1 last --server=https://b:2", "millrace --server=https://a:1 --server=https://b:2 job show -- last"},
		{"job submit wordcount --input s3://input/{a,b} --wait --output s3://o/", "millrace job submit --input=s3://input/{a,b} --wait --output=s3://o/ -- wordcount"},
		{"run grep s3://input - --reduces 0 -- -i --json x", "millrace run --reduces=0 -- grep s3://input - -i --json x"},
		{"job submit p -Da.b=c=d -D e=f", "millrace job submit --property=a.b=c=d --property=e=f -- p"},
		{"fs ls -R s3://bkt", "millrace fs ls --recursive -- s3://bkt"},
		{"fs list -rR s3://bkt", "millrace fs ls --recursive --recursive -- s3://bkt"},
		{"job submit -f job.yaml", "millrace job submit --job-file=job.yaml --"},
		{"job logs last -f", "millrace job logs --follow -- last"},
		{"master --dir d", "millrace master run --dir=d --"},
		{"worker --dir d --token -", "millrace worker run --dir=d --token=- --"},
		{"node ls", "millrace node list --"},
		{"node describe x", "millrace node show -- x"},
		{"cluster status", "millrace cluster show --"},
		{"context rm x", "millrace context remove -- x"},
		{"join-token rm x", "millrace join-token revoke -- x"},
		{"job submit --mapper -x", "millrace job submit --mapper=-x --"},
		{"fs rm -- -strange", "millrace fs rm -- -strange"},
		{"--version", "millrace version --"},
		{"--json --version", "millrace --json version --"},
		{"job list --json=true", "millrace --json=true job list --"},
	} {
		a := testApp()
		inv, err := parse(a.commands, a.globals, strings.Fields(test.line))
		require.NoError(t, err, test.line)
		require.Equal(t, test.want, strings.Join(inv.argv(), " "), test.line)
	}
}

func TestWhatFollowsTheDashesIsKeptApart(t *testing.T) {
	a := testApp()
	inv, err := parse(a.commands, a.globals, []string{"run", "grep", "in", "out", "--", "-F", "--", "x"})
	require.NoError(t, err)
	require.Equal(t, []string{"grep", "in", "out"}, inv.args)
	require.Equal(t, []string{"-F", "--", "x"}, inv.after)
}

func TestMistakesSuggestWhatWasMeant(t *testing.T) {
	for _, test := range []struct{ line, says, next string }{
		{"jbo list", `unknown command "jbo"`, "millrace job"},
		{"job sumbit", `unknown command "job sumbit"`, "millrace job submit"},
		{"job --foo bar list", "job has no flag --foo", "--help"},
		{"job --foo list", "job has no flag --foo", "--help"},
		{"job submit --inptu x", "has no flag --inptu", "--input"},
		{"job submit --inp", "has no flag --inp", "--input"},
		{"fs ls --jsno", "has no flag --jsno", "--json"},
		{"fs ls -x", "has no flag -x", "--help"},
		{"job submit --input", "flag --input needs a value", "--help"},
		{"job submit --input --output s3://xyz/", "flag --input needs a value", "--help"},
		{"run wordcount a b --reduce 2", "has no flag --reduce", "--reduces "},
		{"run wordcount a b --reduce=2", "has no flag --reduce", "--reduces "},
		{"run wordcount a b --reduce cat", "has no flag --reduce", "--reduce"},
		{"run wordcount a b --timeout 5", "--timeout 5: write it like 90s or 5m", "--help"},
		{"run wordcount a b --reduces two", "--reduces two: not a whole number", "--help"},
		{"run wordcount a b --reduces 99999999999999999999", "out of range", "--help"},
		{"run wordcount a b --wait=often", "has no flag --wait", "--help"},
		{"run wordcount a b --local=often", "--local often: it takes no value", "--help"},
		{"run wordcount a b --priority=", `--priority "": not a whole number`, "--help"},
		{"frobnicate", `unknown command "frobnicate"`, "--help"},
		{"run a --reduces x --redcues 2 --timeout 5 --splitsize 3", "run has no flag --redcues; millrace run has no flag --splitsize; --reduces x: not a whole number; --timeout 5: write", "--reduces  (was that meant?); millrace run --split-size  (was that meant?); millrace run --help"},
		{"job --frob shwo", `no flag --frob; unknown command "job shwo"`, "millrace job show"},
		{"job -- x", `unknown command "job x"`, "--help"},
	} {
		a := testApp()
		inv, err := parse(a.commands, a.globals, strings.Fields(test.line))
		if err == nil { // what the command is left to say
			err = joinFaults(inv.wrong)
		}
		var f *fault
		require.ErrorAs(t, err, &f, test.line)
		require.Equal(t, exitUsage, f.code)
		require.Contains(t, f.Error(), test.says, test.line)
		require.Contains(t, f.next, test.next, test.line)
	}
}

func TestWantsJSONHoweverWrongTheRestIs(t *testing.T) {
	require.True(t, wantsJSON([]string{"jbo", "--json"}))
	require.False(t, wantsJSON([]string{"run", "grep", "a", "b", "--", "--json"}))
}

// Whatever is typed, parsing ends without a panic, and words are neither lost nor made up.
func FuzzParse(f *testing.F) {
	f.Add("job submit wordcount --input s3://input --output s3://output -- a b")
	f.Add("fs ls -rR --json=true - -- -")
	f.Add("master --dir")
	f.Fuzz(func(t *testing.T, line string) {
		a := testApp()
		words := strings.Fields(line)
		inv, err := parse(a.commands, a.globals, words)
		if err != nil || inv.help {
			return
		}
		for _, w := range slices.Concat(inv.args, inv.after) {
			require.Contains(t, words, w)
		}
		require.LessOrEqual(t, len(inv.args)+len(inv.after), len(words))
	})
}

func TestEveryCommandHasUsageAndExample(t *testing.T) {
	var walk func(prefix string, commands []*cli.Command)
	walk = func(prefix string, commands []*cli.Command) {
		for _, c := range commands {
			name := strings.TrimSpace(prefix + " " + c.Name)
			require.NotEmpty(t, c.Usage, name)
			require.Contains(t, c.UsageText, "millrace", name)
			seen := map[string]bool{}
			for _, f := range c.Flags {
				for _, n := range f.Names() {
					require.False(t, seen[n], "%s: flag %s twice", name, n)
					seen[n] = true
				}
			}
			for _, g := range globalFlags() {
				require.False(t, seen[g.Names()[0]], "%s hides the global flag %s", name, g.Names()[0])
			}
			walk(name, c.Subcommands)
		}
	}
	walk("", testApp().commands)
}

func TestCompletion(t *testing.T) {
	a := testApp()
	for _, test := range []struct {
		words []string
		want  []string
	}{
		{[]string{"jo"}, []string{"job", "join", "join-token"}},
		{[]string{"job", "s"}, []string{"show", "submit"}},
		{[]string{"job", "tasks", "--f"}, []string{"--failed"}},
		{[]string{"--json", "node", ""}, []string{"add", "drain", "exec", "list", "logs", "remove", "resume", "show"}},
		{[]string{"nonsense", ""}, nil},
		{[]string{"job", "show", ""}, nil},
	} {
		found, _ := complete(a.commands, a.globals, test.words)
		require.Equal(t, test.want, found, test.words)
	}
}
