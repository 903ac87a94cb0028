//go:build cluster

package clustertest

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// oddSecret has everything in it that shells, SQL and URLs take for their own.
const oddSecret = `s'e"c$HOME` + "`id`" + `\r \\ %2F/+&;|<>(){}[]*?!#~=,^ end`

// client is a program that reads S3 objects, as `context env` has set it up. $OUT is the result set, as s3://…;
// $BUCKET and $PREFIX are its two halves.
type client struct {
	name   string
	needs  string // on the PATH
	script string // of bash; prints the result
}

var s3Clients = []client{
	{"aws", "aws", `aws s3 cp --quiet "$OUT"part-r-00000 -`},
	{"aws, recursive copy", "aws", `aws s3 cp --quiet --recursive "$OUT" "$DIR" && cat "$DIR"/part-*`},
	{"boto3", "python", `python - <<'P'
import boto3, os, sys, json
s3 = boto3.client("s3")
success = json.load(s3.get_object(Bucket=os.environ["BUCKET"], Key=os.environ["PREFIX"] + "_SUCCESS")["Body"])
for part in success["parts"]:
    o = s3.get_object(Bucket=os.environ["BUCKET"], Key=part["key"])
    assert o["ETag"].strip('"') == part["etag"].strip('"'), (o["ETag"], part)
    sys.stdout.write(o["Body"].read().decode())
P`},
	{"polars", "python", `python - <<'P'
import polars, os
part = "s3://" + os.environ["BUCKET"] + "/" + os.environ["PREFIX"] + "part-r-00000"
for word, n in polars.scan_csv(part, separator="\t", has_header=False, quote_char=None, glob=False).collect().rows():
    print(word, n, sep="\t")
P`},
	{"rclone", "rclone", `rclone cat "millrace:$BUCKET/$PREFIX"part-r-00000`},
	{"rclone, copy", "rclone", `rclone copy "millrace:$BUCKET/$PREFIX" "$DIR" && cat "$DIR"/part-*`},
}

// need finds a program, or says that it is not on this machine: CI has all of them.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is not installed: .ci/run should have done that", program)
		}
		t.Skipf("%s is not installed here", program)
	}
}

func TestOtherProgramsReadAResultSet(t *testing.T) {
	clients := os.Getenv("MILLRACE_CLIENTS")
	if clients == "" {
		t.Fatal("MILLRACE_CLIENTS is not set: run these tests with `make test-cluster`")
	}
	t.Setenv("PATH", filepath.Join(clients, "bin")+":"+os.Getenv("PATH"))
	m := startMinIOAs(t, "key", oddSecret)
	var c *cluster
	for _, store := range []struct {
		name, prefix string
		cluster      *cluster
	}{
		{"embedded", "words/", startCluster(t)},
		{"minio", "réßult (50%) + it's #1 = \"x\" & a=b/", startClusterEnv(t, m.environ(), "--s3", m.endpoint)},
	} {
		c = store.cluster
		prefix := store.prefix
		out := "s3://results/" + prefix
		c.mr("fs", "mb", "s3://results")
		c.tryIn(strings.NewReader("to be or not to be\nthat is\n"), "fs", "put", "-", "s3://results/in/text")
		c.mr("run", "wordcount", "s3://results/in/", out, "--reduces", "1")
		want := c.mr("results", "last")
		require.Contains(t, want, "to\t2\n")
		for _, client := range s3Clients {
			t.Run(client.name+"/"+store.name, func(t *testing.T) {
				need(t, client.needs)
				cmd := exec.Command("bash", "-c", `eval "$("$MILLRACE" context env)" && `+client.script)
				cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "MILLRACE_HOME=" + c.home, "MILLRACE=" + binary(t),
					"OUT=" + out, "BUCKET=results", "PREFIX=" + prefix, "DIR=" + t.TempDir(), "LANG=C.UTF-8"}
				var said strings.Builder
				cmd.Stderr = &said
				got, err := cmd.Output()
				require.NoError(t, err, said.String())
				require.Equal(t, want, string(got), said.String())
			})
		}
	}
	t.Run("duckdb parses the secret", func(t *testing.T) {
		for _, sql := range []string{c.mr("context", "env", "--duckdb"), c.mr("context", "env", "--duckdb", "--s3", "https://h:1", "--s3-access-key", "a';--", "--s3-secret-key", "''", "--s3-session-token", "t\"'")} {
			cmd := exec.Command("python", "-c", `import duckdb, sys
statements = duckdb.connect().extract_statements(sys.stdin.read())
assert len(statements) == 1, statements
print(statements[0].type)`)
			cmd.Stdin = strings.NewReader(sql)
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s\n%s", sql, out)
			t.Logf("%s", out)
		}
	})
}

// A shell gives back what went in, each in its own way of quoting.
func TestContextEnvInEveryShell(t *testing.T) {
	home := t.TempDir()
	// Nothing is asked of this store: its port is closed.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	endpoint := "http://" + l.Addr().String()
	l.Close()
	set := exec.Command(binary(t), "context", "set", "odd", "--s3", endpoint, "--s3-access-key", "key", "--s3-secret-key", oddSecret)
	set.Env = []string{"MILLRACE_HOME=" + home, "HOME=" + home}
	out, err := set.CombinedOutput()
	require.NoError(t, err, string(out))
	for _, shell := range []string{"bash", "zsh", "fish", "dash"} {
		t.Run(shell, func(t *testing.T) {
			need(t, shell)
			cmd := exec.Command(shell, "-c", `eval "$($MILLRACE context env --context odd)"; printf '%s\n%s\n%s' "$AWS_SECRET_ACCESS_KEY" "$RCLONE_CONFIG_MILLRACE_SECRET_ACCESS_KEY" "$MC_HOST_millrace"`)
			cmd.Env = []string{"MILLRACE_HOME=" + home, "HOME=" + home, "PATH=" + os.Getenv("PATH"), "MILLRACE=" + binary(t), "LANG=C.UTF-8"}
			got, err := cmd.Output()
			require.NoError(t, err)
			require.Equal(t, oddSecret+"\n"+oddSecret+"\n"+strings.Replace(endpoint, "://", "://key:"+oddSecret+"@", 1), string(got))
		})
	}
}
