package fleet

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/pkg/security"
)

// script is a command provider that is a shell script.
func script(t *testing.T, body string) *Command {
	t.Helper()
	path := filepath.Join(t.TempDir(), "provider")
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o700))
	c, err := NewCommand("moon", path, []string{"PATH=" + os.Getenv("PATH"), "DIR=" + filepath.Dir(path)})
	require.NoError(t, err)
	return c
}

func TestACommandProvider(t *testing.T) {
	c := script(t, `
cat > "$DIR/$1"
case $1 in
launch) echo '{"key":"l-1","machine":"vm-7"}' ;;
terminate) echo '{"key":"l-1"}' ;;
list) echo '{"machines":[{"key":"l-1","machine":"vm-7"},{"key":"l-2","machine":"vm-8"}]}' ;;
esac
echo all is well >&2`)
	machine, err := c.Launch(t.Context(), Request{Key: "l-1", Site: "s", Cluster: "j-1", ClusterName: "one", Group: "ig-1", Role: "task", Masters: []string{"https://m:7400"}, Token: "mr1.t"})
	require.NoError(t, err)
	require.Equal(t, "vm-7", machine)
	asked, err := os.ReadFile(filepath.Join(filepath.Dir(c.path), "launch"))
	require.NoError(t, err)
	require.JSONEq(t, `{"key":"l-1","site":"s","cluster":"j-1","clusterName":"one","group":"ig-1","role":"task","masters":["https://m:7400"],"token":"mr1.t"}`, string(asked))
	require.NoError(t, c.Terminate(t.Context(), "l-1", "vm-7"))
	asked, err = os.ReadFile(filepath.Join(filepath.Dir(c.path), "terminate"))
	require.NoError(t, err)
	require.JSONEq(t, `{"key":"l-1","machine":"vm-7"}`, string(asked))
	machines, err := c.List(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string]string{"l-1": "vm-7", "l-2": "vm-8"}, machines)
}

func TestWhatACommandProviderDoesWrongIsSaidWithItsOwnLastWords(t *testing.T) {
	for name, c := range map[string]struct{ launch, list, want string }{
		"it fails":                 {launch: `echo one >&2; echo two >&2; echo three >&2; echo quota exceeded >&2; exit 3`, want: "launch: exit status 3; it said: two | three | quota exceeded"},
		"it is killed":             {launch: `kill -9 $$`, want: "launch: signal: killed"},
		"nothing":                  {launch: `echo trying >&2`, want: "launch: it printed no JSON document; it said: trying"},
		"rubbish":                  {launch: `echo hello world`, want: `its answer is no JSON document as asked for (invalid character 'h'`},
		"half a document":          {launch: `printf '{"key":"l-1",'`, want: "its answer is no JSON document as asked for (unexpected EOF)"},
		"two documents":            {launch: `echo '{"key":"l-1","machine":"a"}{}'`, want: "something follows the document"},
		"another type":             {launch: `echo '{"key":1}'`, want: "no JSON document as asked for"},
		"another key":              {launch: `echo '{"key":"l-2","machine":"vm"}'`, want: `it was asked for l-1 and answers for "l-2"`},
		"no machine":               {launch: `echo '{"key":"l-1"}'`, want: `the answer lacks "key" or "machine"`},
		"two lines of a name":      {launch: `printf '{"key":"l-1","machine":"a\\nb"}'`, want: "one line of at most 256 bytes"},
		"endless":                  {launch: `while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done`, want: "launch: it answers with more than 65536 bytes"},
		"it lists nothing":         {list: `echo '{}'`, want: `list: the answer lacks "machines"`},
		"it lists a key twice":     {list: `echo '{"machines":[{"key":"l-1","machine":"a"},{"key":"l-1","machine":"b"}]}'`, want: "it lists l-1 twice"},
		"it lists a machine twice": {list: `echo '{"machines":[{"key":"l-1","machine":"a"},{"key":"l-2","machine":"a"}]}'`, want: "it lists machine a as l-1 and as l-2"},
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			if c.list != "" {
				_, err = script(t, c.list).List(t.Context())
			} else {
				_, err = script(t, c.launch).Launch(t.Context(), Request{Key: "l-1"})
			}
			require.ErrorContains(t, err, c.want)
			require.Less(t, len(err.Error()), 1200)
		})
	}
}

// What an executable repeats of the token that it was given is in no error: those are in the cluster's events, for all to read.
func TestACommandProviderThatTellsTheTokenIsNotRepeated(t *testing.T) {
	token, err := security.NewToken([]byte(caPEM))
	require.NoError(t, err)
	for name, body := range map[string]string{
		"as an answer":         `cat; echo; echo what?`,
		"in other words":       `cat > /dev/null; echo "no such token: $TOKEN"`,
		"for people":           `cat >&2; exit 1`,
		"cut":                  `cat > /dev/null; printf %s "$TOKEN" >&2; head -c 4030 /dev/zero | tr '\0' ' ' >&2; exit 1`,
		"as the key":           `printf '{"key":"%s","machine":"vm"}' "$TOKEN"`,
		"its secret by itself": `echo "$TOKEN" | cut -d. -f3 >&2; exit 1`,
	} {
		t.Run(name, func(t *testing.T) {
			c := script(t, body)
			c.environ = append(c.environ, "TOKEN="+token.String())
			_, err := c.Launch(t.Context(), Request{Key: "l-1", Token: token.String()})
			require.Error(t, err)
			require.NotContains(t, err.Error(), token.Secret)
			require.NotContains(t, err.Error(), token.Secret[len(token.Secret)-12:])
		})
	}
}

// One that hangs is ended when its time is over, and with it what it has started, which would hold its output open.
func TestACommandProviderThatHangs(t *testing.T) {
	c := script(t, `echo still waiting for the moon >&2; sleep 1000 & : > "$DIR/hangs"; sleep 1000`)
	ctx, cancel := context.WithCancelCause(t.Context())
	launched := make(chan error, 1)
	go func() {
		_, err := c.Launch(ctx, Request{Key: "l-1"})
		launched <- err
	}()
	require.Eventually(t, func() bool {
		_, err := os.Stat(filepath.Join(filepath.Dir(c.path), "hangs"))
		return err == nil
	}, time.Minute, 5*time.Millisecond)
	cancel(os.ErrDeadlineExceeded)
	err := <-launched
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.ErrorContains(t, err, "it said: still waiting for the moon")
}

// A daemon that it leaves behind is ended, and does not hold up the answer for long.
func TestACommandProviderThatLeavesADaemonBehind(t *testing.T) {
	c := script(t, `sleep 1000 &
echo $! > "$DIR/pid"
echo '{"key":"l-1","machine":"vm"}'`)
	machine, err := c.Launch(t.Context(), Request{Key: "l-1"})
	require.NoError(t, err)
	require.Equal(t, "vm", machine)
}

func TestProvidersThatCannotBe(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	require.NoError(t, os.WriteFile(plain, nil, 0o600))
	for _, c := range []struct{ name, path, want string }{
		{"pool", plain, "are taken"}, {"process", plain, "are taken"}, {"", plain, "a name of its own"}, {"a b", plain, "without spaces"},
		{"moon", dir, "is not executable"}, {"moon", plain, "chmod +x it"}, {"moon", filepath.Join(dir, "none"), "no such file"},
	} {
		_, err := NewCommand(c.name, c.path, nil)
		require.ErrorContains(t, err, c.want)
	}
}

// Whatever an executable prints, what is taken of it is one document with a key and a machine that can be written on one line.
func FuzzAnswers(f *testing.F) {
	for _, s := range []string{`{"key":"l-1","machine":"vm"}`, `{"key":"l-1","machine":"a\nb"}`, `{}`, `[]`, `{"key":1}`, `{"machines":[{}]}`, "{}{}", "", "\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var a launchAnswer
		if err := decode(data, &a); err != nil {
			require.LessOrEqual(t, len(err.Error()), 8*errorsOneRow)
			return
		}
		if a.check() == nil {
			require.NotContains(t, a.Machine, "\n")
			require.NotEmpty(t, a.Key)
			require.LessOrEqual(t, len(a.Machine), machineMost)
		}
	})
}
