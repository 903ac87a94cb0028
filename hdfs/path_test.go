package hdfs

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCleanPath(t *testing.T) {
	for in, want := range map[string]string{
		"/":                    "/",
		"//a///b/":             "/a/b",
		"/ä ö/…":               "/ä ö/…",
		"/a/..b/.c/d..":        "/a/..b/.c/d..",
		"/" + longName(255):    "/" + longName(255),
		"/a b%20c*?[x]{y,z}\\": "/a b%20c*?[x]{y,z}\\",
	} {
		got, err := CleanPath(in)
		require.NoError(t, err, in)
		require.Equal(t, want, got)
	}
}

func longName(n int) string { return strings.Repeat("n", n) }

func TestPathsThatCannotBe(t *testing.T) {
	for in, says := range map[string]string{
		"":                              "it is empty",
		"a/b":                           "it must begin with /",
		"./a":                           "it must begin with /",
		"/a/../b":                       `".." is no name for a file`,
		"/./a":                          `"." is no name for a file`,
		"/a\xff":                        "it is not UTF-8",
		"/a\x00b":                       "control character",
		"/a\nb":                         "control character",
		"/" + longName(256):             "has 256 bytes, more than 255",
		strings.Repeat("/abcdefg", 512): "it has 4096 bytes, more than 4095",
	} {
		_, err := CleanPath(in)
		require.ErrorIs(t, err, ErrInvalid, in)
		require.ErrorContains(t, err, says)
		require.Less(t, len(err.Error()), 600)
	}
}

func FuzzCleanPath(f *testing.F) {
	f.Add("/a//b/../c")
	f.Fuzz(func(t *testing.T, in string) {
		p, err := CleanPath(in)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			return
		}
		again, err := CleanPath(p)
		require.NoError(t, err)
		require.Equal(t, p, again, "canonical")
		require.LessOrEqual(t, len(p), len(in))
	})
}
