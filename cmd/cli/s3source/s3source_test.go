package s3source

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/client"
)

const (
	config = `
[default]
region = eu-west-1
endpoint_url = http://default:9000

[profile work]
region = eu-central-1
services = minio
aws_access_key_id = work-key
aws_secret_access_key = work-secret

[profile aws]
region = ap-south-1

[profile empty]
region = x

[services minio]
s3 =
  endpoint_url = http://work:9000
ec2 =
  endpoint_url = http://wrong:1
`
	credentials = `# keys
[default]
aws_access_key_id = default-key
aws_secret_access_key = default-secret

[aws]
aws_access_key_id = aws-key
aws_secret_access_key = aws-secret
aws_session_token = aws-token
`
)

// The table of CLI.md: one source, in this order, never mixed.
func TestResolve(t *testing.T) {
	home := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(home, ".aws"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(home, ".aws", "config"), []byte(config), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(home, ".aws", "credentials"), []byte(credentials), 0o600))
	ca := filepath.Join(home, "ca.pem")
	require.NoError(t, os.WriteFile(ca, []byte("PEM"), 0o600))

	type env = map[string]string
	context := &client.Context{Name: "dev", S3: &client.S3{Endpoint: "http://context:9000", AccessKey: "context-key", SecretKey: "context-secret"}}
	keys := env{"AWS_ACCESS_KEY_ID": "env-key", "AWS_SECRET_ACCESS_KEY": "env-secret"}
	with := func(base env, more ...string) env {
		out := env{}
		for k, v := range base {
			out[k] = v
		}
		for i := 0; i < len(more); i += 2 {
			out[more[i]] = more[i+1]
		}
		return out
	}
	for _, test := range []struct {
		name    string
		flags   Flags
		env     env
		context *client.Context
		nowhere bool // no ~/.aws

		kind     Kind
		said     string
		endpoint string
		key      string
		err      string
	}{
		{name: "flags before everything", flags: Flags{Endpoint: "http://flags:9000/", AccessKey: "k", SecretKey: "s"}, env: with(keys, "AWS_ENDPOINT_URL", "http://env:9000", "AWS_PROFILE", "work"), context: context,
			kind: FromFlags, said: "flags", endpoint: "http://flags:9000", key: "k"},
		{name: "the environment's keys go with --s3: they name no store", flags: Flags{Endpoint: "http://flags:9000"}, env: keys, context: context, kind: FromFlags, said: "flags", endpoint: "http://flags:9000", key: "env-key"},
		{name: "the same store twice", flags: Flags{Endpoint: "http://env:9000"}, env: with(keys, "AWS_ENDPOINT_URL", "http://env:9000/"), kind: FromFlags, said: "flags", endpoint: "http://env:9000", key: "env-key"},
		{name: "a key of another store is not sent", flags: Flags{Endpoint: "http://flags:9000"}, env: with(keys, "AWS_ENDPOINT_URL", "http://env:9000"), err: "belongs to http://env:9000"},
		{name: "nor a profile's", flags: Flags{Endpoint: "http://flags:9000"}, env: env{"AWS_PROFILE": "work"}, err: "belongs to http://work:9000"},
		{name: "nor the context's", flags: Flags{Endpoint: "http://flags:9000"}, context: context, nowhere: true, err: "no key for the object store http://flags:9000"},
		{name: "half a key", flags: Flags{Endpoint: "http://flags:9000", AccessKey: "k"}, err: "go together"},
		{name: "a key without a store", flags: Flags{AccessKey: "k", SecretKey: "s"}, context: context, err: "not its URL"},
		{name: "an endpoint in the environment", env: with(keys, "AWS_ENDPOINT_URL", "http://env:9000", "AWS_PROFILE", "work"), context: context, kind: FromEnvironment, said: "AWS_ENDPOINT_URL", endpoint: "http://env:9000", key: "env-key"},
		{name: "S3's own endpoint goes first", env: with(keys, "AWS_ENDPOINT_URL", "http://other:1", "AWS_ENDPOINT_URL_S3", "http://env:9000"), kind: FromEnvironment, said: "AWS_ENDPOINT_URL_S3", endpoint: "http://env:9000", key: "env-key"},
		{name: "an endpoint without a key", env: env{"AWS_ENDPOINT_URL": "http://env:9000", "AWS_PROFILE": "work"}, context: context, err: "not both set"},
		{name: "a profile with services", env: env{"AWS_PROFILE": "work"}, context: context, kind: FromProfile, said: "AWS_PROFILE work", endpoint: "http://work:9000", key: "work-key"},
		{name: "a profile of AWS proper", env: env{"AWS_PROFILE": "aws"}, context: context, kind: FromProfile, said: "AWS_PROFILE aws", endpoint: "https://s3.ap-south-1.amazonaws.com", key: "aws-key"},
		{name: "a profile without a key", env: env{"AWS_PROFILE": "empty"}, context: context, err: `AWS_PROFILE names "empty"`},
		{name: "the context", env: keys, context: context, kind: FromContext, said: "context dev", endpoint: "http://context:9000", key: "context-key"},
		{name: "keys alone mean AWS", env: with(keys, "AWS_DEFAULT_REGION", "us-west-2"), context: &client.Context{Name: "bare"}, kind: FromDefault, said: "AWS_ACCESS_KEY_ID", endpoint: "https://s3.us-west-2.amazonaws.com", key: "env-key"},
		{name: "the default profile", kind: FromDefault, said: "default profile", endpoint: "http://default:9000", key: "default-key"},
		{name: "nothing", nowhere: true, kind: None},
		{name: "not a URL", flags: Flags{Endpoint: "minio:9000", AccessKey: "k", SecretKey: "s"}, err: "does not start with http"},
		{name: "no such CA", flags: Flags{Endpoint: "https://m", AccessKey: "k", SecretKey: "s", CAFile: home + "/none"}, err: "--s3-ca"},
	} {
		t.Run(test.name, func(t *testing.T) {
			at := home
			if test.nowhere {
				at = t.TempDir()
			}
			s, err := Resolve(test.flags, func(k string) string { return test.env[k] }, at, test.context)
			if test.err != "" {
				var mistake *Error
				require.ErrorAs(t, err, &mistake)
				require.Contains(t, mistake.Message, test.err)
				require.NotEmpty(t, mistake.Next)
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.kind, s.Kind)
			require.Equal(t, test.said, s.Name)
			require.Equal(t, test.endpoint, s.S3.Endpoint)
			require.Equal(t, test.key, s.S3.AccessKey)
		})
	}

	s, err := Resolve(Flags{}, func(k string) string { return env{"AWS_CA_BUNDLE": ca}[k] }, home, context)
	require.NoError(t, err)
	require.Equal(t, "PEM", s.S3.CABundle)
	require.Empty(t, context.S3.CABundle, "the context itself is not changed")
}

func FuzzINI(f *testing.F) {
	f.Add(config)
	f.Add("[a\nx=\n y = z\n[")
	f.Fuzz(func(t *testing.T, text string) { parseINI(text) })
}
