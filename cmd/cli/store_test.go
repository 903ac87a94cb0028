package cli

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
	"millrace/pkg/objectstore"
	"millrace/pkg/objectstore/fakes3"
	"millrace/pkg/objectstore/objectstoretest"
)

// against adds flags that name a store.
func against(url string, args ...string) []string {
	return append(args, "--s3", url, "--s3-access-key", "KEYID", "--s3-secret-key", "secret")
}

// Whatever a store refuses, a command says which store it was, why, and what mends it.
func TestAStoresMoodsOnTheCommandLine(t *testing.T) {
	refuse := func(status int, code string) *fakes3.Refusal {
		return &fakes3.Refusal{Status: status, Code: code, Message: code}
	}
	for name, c := range map[string]struct {
		answer     *fakes3.Refusal
		code       int
		says, next string
	}{
		"wrong region": {fakes3.WrongRegion("eu-west-1"), 3, "the store wants region eu-west-1, not us-east-1", "--s3-region eu-west-1"},
		"expired":      {refuse(400, "ExpiredToken"), 3, "the session token has expired", "AWS_SESSION_TOKEN"},
		"unknown key":  {refuse(403, "InvalidAccessKeyId"), 3, "does not know the access key KEYID", "AWS_ACCESS_KEY_ID"},
		"wrong secret": {refuse(403, "SignatureDoesNotMatch"), 3, "secret key", "AWS_SECRET_ACCESS_KEY"},
		"skew":         {fakes3.Skewed(time.Hour), 3, "ahead of this machine's", "NTP"},
		"denied":       {refuse(403, "AccessDenied"), 3, "access denied", "millrace context show"},
		"busy":         {refuse(503, "SlowDown"), 3, "SlowDown", "check that the object store is up"},
		"HTTPS port":   {&fakes3.Refusal{Status: 400, Plain: true, Message: "Client sent an HTTP request to an HTTPS server."}, 3, "it speaks HTTPS", "use https://127.0.0.1"},
		"bucket name":  {refuse(400, "InvalidBucketName"), 2, "InvalidBucketName", "lower-case"},
		"key":          {refuse(400, "XMinioInvalidObjectName"), 2, "s3://bucket/a/../b", "another key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := fakes3.Start(t, &fakes3.Server{Store: objectstore.NewMemory(), Answer: func(*http.Request) *fakes3.Refusal { return c.answer }})
			o := newSession(t).run(against(url, "fs", "cat", "s3://bucket/a/../b")...)
			require.Equal(t, c.code, o.code, o.err)
			require.Contains(t, o.err, c.says)
			require.Contains(t, o.err, "\nnext: ")
			require.Contains(t, o.err[strings.Index(o.err, "\nnext: "):], c.next)
			if c.code == 3 {
				require.Contains(t, o.err, "millrace: object store "+url)
			}
		})
	}
	t.Run("down", func(t *testing.T) {
		o := newSession(t).run(against("http://127.0.0.1:1", "fs", "ls", "s3://bucket/")...)
		require.Equal(t, 3, o.code)
		require.Contains(t, o.err, "object store http://127.0.0.1:1: ")
		require.Contains(t, o.err, "connection refused")
	})
	t.Run("bucket name that is not even sent", func(t *testing.T) {
		for _, name := range []string{"s3://Capital", "s3://ab", "s3://under_score"} {
			o := newSession(t).run(against("http://127.0.0.1:1", "fs", "mb", name)...)
			require.Equal(t, 2, o.code, o.err)
			require.Contains(t, o.err, "bucket name")
		}
	})
}

// What people name a key arrives as it was typed, by every command.
func TestCommandsKeepStrangeKeys(t *testing.T) {
	memory := objectstore.NewMemory()
	require.NoError(t, memory.MakeBucket(t.Context(), "bucket"))
	url := fakes3.Start(t, &fakes3.Server{Store: memory})
	s := newSession(t)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte("text"), 0o600))
	for _, key := range objectstoretest.StrangeKeys() {
		if strings.HasSuffix(key, "/") || strings.ContainsAny(key, `*?[{`) {
			continue // a folder; a pattern
		}
		o := s.run(against(url, "fs", "put", file, "s3://bucket/"+key)...)
		require.Zero(t, o.code, "%q: %s", key, o.err)
		x, err := memory.Head(t.Context(), "bucket", key)
		require.NoError(t, err, "%q", key)
		require.EqualValues(t, 4, x.Size)
		require.Equal(t, "text", s.run(against(url, "fs", "cat", "s3://bucket/"+key)...).out, "%q", key)
		require.Zero(t, s.run(against(url, "fs", "stat", "s3://bucket/"+key)...).code, "%q", key)
		require.Zero(t, s.run(against(url, "fs", "cp", "s3://bucket/"+key, "s3://bucket/copy")...).code, "%q", key)
		require.Zero(t, s.run(against(url, "fs", "get", "s3://bucket/"+key, filepath.Join(t.TempDir(), "got"))...).code, "%q", key)
		require.Zero(t, s.run(against(url, "fs", "rm", "s3://bucket/"+key)...).code, "%q", key)
		_, err = memory.Head(t.Context(), "bucket", key)
		require.ErrorIs(t, err, objectstore.ErrNotExist, "%q", key)
	}
	for _, key := range []string{"up/../../out", "up/..", "a//b"} {
		require.Zero(t, s.run(against(url, "fs", "put", file, "s3://bucket/tree/"+key)...).code)
	}
	o := s.run(against(url, "fs", "get", "-r", "s3://bucket/tree/", filepath.Join(t.TempDir(), "tree"))...)
	require.NotZero(t, o.code)
	require.Contains(t, o.err, "would lead out of")
}

func TestJobShowSaysHowManyMapsWereLocal(t *testing.T) {
	j := running()
	s := newSession(t).serve(&fakeMaster{jobs: []*api.Job{j}})
	require.NotContains(t, s.run("job", "show", "last").out, "local maps", "it reads from an object store")
	j.Counters = append(j.Counters, &api.Counter{Group: "millrace", Name: "localMaps", Value: 12}, &api.Counter{Group: "millrace", Name: "otherMaps", Value: 2})
	s = newSession(t).serve(&fakeMaster{jobs: []*api.Job{j}})
	require.Regexp(t, `local maps +12 of 14`, s.run("job", "show", "last").out)
	doc := s.run("job", "show", "last", "--json").json(t).(map[string]any)
	engine := doc["counters"].(map[string]any)["millrace"].(map[string]any)
	require.EqualValues(t, 12, engine["localMaps"])
	require.EqualValues(t, 2, engine["otherMaps"])
}

func TestJobShowSaysWhatWasRepeated(t *testing.T) {
	j := running()
	j.StoreRetries, j.StoreTrouble = 12, "503 SlowDown"
	s := newSession(t).serve(&fakeMaster{jobs: []*api.Job{j}})
	require.Contains(t, s.run("job", "show", "last").out, "12 requests repeated, last: 503 SlowDown")
	doc := s.run("job", "show", "last", "--json").json(t).(map[string]any)
	require.EqualValues(t, 12, doc["storeRetries"])
	require.Equal(t, "503 SlowDown", doc["storeTrouble"])
}
