package objectstore_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
)

func TestParseURL(t *testing.T) {
	for in, want := range map[string]objectstore.URL{
		"s3://bucket":            {Bucket: "bucket"},
		"s3://bucket/":           {Bucket: "bucket"},
		"s3://bucket/key":        {Bucket: "bucket", Key: "key"},
		"s3a://bucket/a/b/":      {Bucket: "bucket", Key: "a/b/"},
		"s3n://buck.et-1//x":     {Bucket: "buck.et-1", Key: "/x"},
		"S3://Old_Bucket/x":      {Bucket: "Old_Bucket", Key: "x"},
		"s3://bucket/%41 ?#*":    {Bucket: "bucket", Key: "%41 ?#*"},
		"s3://bucket/../x/./y":   {Bucket: "bucket", Key: "../x/./y"},
		"s3://bucket/s3://other": {Bucket: "bucket", Key: "s3://other"},
		"hdfs:///":               {Bucket: "hdfs://"},
		"hdfs:///a/b":            {Bucket: "hdfs://", Key: "a/b"},
		"HDFS:////a//b/":         {Bucket: "hdfs://", Key: "a/b/"},
		"hdfs:///ä %41/*.{x,y}":  {Bucket: "hdfs://", Key: "ä %41/*.{x,y}"},
		"hdfs://other":           {Bucket: "hdfs://other"},
		"hdfs://j-1ABC/a..b":     {Bucket: "hdfs://j-1ABC", Key: "a..b"},
	} {
		got, err := objectstore.ParseURL(in)
		require.NoError(t, err, in)
		require.Equal(t, want, got, in)
		again, err := objectstore.ParseURL(got.String())
		require.NoError(t, err)
		require.Equal(t, got, again)
	}
	for in, want := range map[string]string{
		"":                "not an object store URL",
		"bucket/key":      "not an object store URL",
		"/tmp/file":       "not an object store URL",
		"http://bucket/x": "its scheme is http",
		"s3://":           "names no bucket",
		"s3:///key":       "names no bucket",
		"s3://ab/x":       "3 to 63",
		"s3://a b c/x":    "must not contain",
		"s3://-abc/x":     "begin and end",
		"s3://a..b/x":     `".."`,
		"hdfs://":         "names no path",
		"hdfs://h:8020/x": "must not contain ':'",
		"hdfs:///a/../b":  `cannot have ".."`,
		"hdfs:///./b":     `cannot have "."`,
	} {
		_, err := objectstore.ParseURL(in)
		require.ErrorContains(t, err, want, in)
		require.ErrorContains(t, err, `"`+in+`"`, "the error names the input")
	}
	_, err := objectstore.ParseURL("s3://bucket/" + strings.Repeat("x", 1025))
	require.ErrorContains(t, err, "1025 bytes")
	_, err = objectstore.ParseURL("hdfs:///" + strings.Repeat("x", 4095))
	require.ErrorContains(t, err, "4095 bytes")
}

func TestParseS3(t *testing.T) {
	u, err := objectstore.ParseS3("s3://bucket/key")
	require.NoError(t, err)
	require.Equal(t, objectstore.URL{Bucket: "bucket", Key: "key"}, u)
	for in, want := range map[string]string{"hdfs:///x": "must be in an object store", "hdfs://c/x": "must be in an object store", "s3://": "names no bucket", "x": "not an object store URL: want s3://BUCKET/KEY", "http://x": "its scheme is http"} {
		_, err := objectstore.ParseS3(in)
		require.NotContains(t, err.Error(), "hdfs:///PATH", "it would not do")
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, `"`+in+`"`)
	}
}

func FuzzParseURL(f *testing.F) {
	f.Add("s3://bucket/key")
	f.Add("s3a://x")
	f.Add("hdfs://c//a//b/")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := objectstore.ParseURL(s)
		if err != nil {
			return
		}
		if again, err := objectstore.ParseURL(u.String()); err != nil || again != u {
			t.Fatalf("%q is %v, which is read as %v, %v", s, u, again, err)
		}
	})
}
