package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/client"
)

func TestContexts(t *testing.T) {
	s := newSession(t).serve(&fakeMaster{})
	require.Equal(t, 0, s.run("context", "set", "other", "--s3", "http://minio:9000", "--s3-access-key", "a", "--s3-secret-key", "b").code)
	require.Equal(t, 4, s.run("context", "use", "nowhere").code)
	require.Equal(t, 0, s.run("context", "use", "other").code)
	show := s.run("context", "show", "--json")
	require.Equal(t, "http://minio:9000", show.json(t).(map[string]any)["s3Endpoint"])
	require.NotContains(t, show.out, `"b"`, "a secret")
	list := s.run("context", "list", "--json").json(t).([]any)
	require.Len(t, list, 2)
	require.Equal(t, false, list[0].(map[string]any)["current"])
	require.Equal(t, true, list[1].(map[string]any)["current"])
	st, err := os.Stat(filepath.Join(s.home, ".millrace", "contexts", "other.json"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode().Perm())
	require.Equal(t, 0, s.run("context", "rm", "other").code)
	require.Equal(t, 4, s.run("context", "show").code, "none is current now")
	require.Equal(t, 4, s.run("job", "list", "--context", "other").code, "it is gone")
	require.Equal(t, 0, s.run("job", "list", "--context", "dev").code)
	require.Equal(t, 2, s.run("context", "set", "dev").code)
}

// What `context env` prints is evaluated by a shell, whatever a key contains.
func TestContextEnvIsForAShell(t *testing.T) {
	s := newSession(t).serve(&fakeMaster{})
	o := s.run("context", "env")
	require.Equal(t, 0, o.code, o.err)
	sh := exec.Command("sh", "-c", o.out+`echo "$AWS_ENDPOINT_URL $AWS_SECRET_ACCESS_KEY $RCLONE_CONFIG_MILLRACE_SECRET_ACCESS_KEY $MC_HOST_millrace"`)
	out, err := sh.Output()
	require.NoError(t, err)
	require.Equal(t, "http://127.0.0.1:9 it's secret it's secret http://ak:it's secret@127.0.0.1:9\n", string(out))
	require.Equal(t, "it's secret", s.run("context", "env", "--json").json(t).(map[string]any)["AWS_SECRET_ACCESS_KEY"])
}

// mc reads scheme://KEY:SECRET[:TOKEN]@HOST and undoes no escapes.
func TestMcHost(t *testing.T) {
	require.Equal(t, "https://k:a/b+c%2F@h:9000", mcHost(client.S3{Endpoint: "https://h:9000", AccessKey: "k", SecretKey: "a/b+c%2F"}))
	require.Equal(t, "http://k:s:tok:en@h", mcHost(client.S3{Endpoint: "http://h", AccessKey: "k", SecretKey: "s", SessionToken: "tok:en"}))
	require.Empty(t, mcHost(client.S3{Endpoint: "http://h", AccessKey: "k", SecretKey: "a:b"}), "b would be a session token")
	s := newSession(t)
	o := s.run("context", "env", "--s3", "http://h:1", "--s3-access-key", "k", "--s3-secret-key", "a:b")
	require.NotContains(t, o.out, "export MC_HOST")
	require.Contains(t, o.out, "# no MC_HOST_millrace")
}

func TestContextEnvLeavesNothingOfAnotherKey(t *testing.T) {
	s := newSession(t)
	args := []string{"context", "env", "--s3", "http://h:1", "--s3-access-key", "k", "--s3-secret-key", "s"}
	require.NotContains(t, s.run(args...).out, "unset")
	s.vars["AWS_SESSION_TOKEN"] = "old"
	require.Contains(t, s.run(args...).out, "unset AWS_SESSION_TOKEN\n")
	require.Contains(t, s.run(append(args, "--s3-session-token", "new")...).out, "export AWS_SESSION_TOKEN=new\n")
}

func TestContextEnvGivesTheRootCertificatesAsAFile(t *testing.T) {
	s := newSession(t)
	pem := "-----BEGIN CERTIFICATE-----\n"
	ca := filepath.Join(s.home, "ca.pem")
	require.NoError(t, os.WriteFile(ca, []byte(pem), 0o600))
	for range 2 {
		o := s.run("context", "env", "--s3", "https://h:1", "--s3-access-key", "k", "--s3-secret-key", "s", "--s3-ca", ca, "--json")
		require.Equal(t, 0, o.code, o.err)
		file := o.json(t).(map[string]any)["AWS_CA_BUNDLE"].(string)
		require.Equal(t, file, o.json(t).(map[string]any)["RCLONE_CA_CERT"])
		kept, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, pem, string(kept))
	}
}

func TestDuckDBSecret(t *testing.T) {
	sql, err := duckDBSecret(client.S3{Endpoint: "https://s3.example:9000", AccessKey: "a", SecretKey: "it's"})
	require.NoError(t, err)
	require.Equal(t, "CREATE OR REPLACE SECRET millrace (\n  TYPE s3,\n  KEY_ID 'a',\n  SECRET 'it''s',\n  REGION 'us-east-1',\n  ENDPOINT 's3.example:9000',\n  URL_STYLE 'path',\n  USE_SSL true\n);\n", sql)
}

func TestTokensAreReadFromFilesAndStandardInput(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte("  from-file\n"), 0o600))
	for given, want := range map[string]string{"plain": "plain", "@" + file: "from-file", "-": "from-stdin"} {
		a := newApp(Env{Stdin: strings.NewReader("from-stdin\n"), Getenv: func(string) string { return "" }})
		a.commands = append(a.commands, a.leaf(spec{name: "probe", usage: "u", flags: a.workerCommand().Subcommands[0].Flags, do: func(c *call) error {
			got, err := c.secret("token")
			require.NoError(t, err)
			require.Equal(t, want, got)
			return nil
		}}))
		inv, err := parse(a.commands, a.globals, []string{"probe", "--token", given})
		require.NoError(t, err)
		require.NoError(t, a.run(t.Context(), inv))
	}
}
