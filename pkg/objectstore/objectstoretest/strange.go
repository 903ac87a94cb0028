package objectstoretest

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
)

// StrangeKeys are keys that S3 takes and that get harmed easily on the way: by cleaning
// of paths, by escaping once too often or too seldom, by XML. File systems and MinIO
// refuse those with empty, "." and ".." segments, and control characters.
func StrangeKeys() []string {
	return []string{
		"a//b", "//a", "/a", "a/", "a//", "./x", "x/.", "../y", "y/..", "a/../b", "a/./b", ".", "..", "...", "..a/b..",
		"%2F", "a%2Fb", "%", "%%", "%25", "+", "a+b", "a b", " a ", "&", "a&b=c", "?", "a?b", "#", "a#b", "=", ";", ":", "@", ",", "$", "!", "*", "'", "(", ")",
		"\"quoted\"", "<tag>", "&amp;", "]]>", "back\\slash", "[x]", "{y}", "^", "`", "|", "~",
		"ünïcode/日本/🙂", "e\u0301", "\u00e9", "\u202eright", "no-break\u00a0space",
		"line\nfeed", "carriage\rreturn", "crlf\r\n", "tab\t", "one\x01two", "\x7f",
		strings.Repeat("k", 1024), strings.Repeat("日", 341) + "x", strings.Repeat("%", 1024), strings.Repeat("a/", 512),
	}
}

// RunStrangeKeys holds a store that takes every key against all of them: each is
// written, described, read, listed, uploaded in parts and deleted, and no other one is touched.
func RunStrangeKeys(t *testing.T, s objectstore.Store) {
	bucket := Bucket(t, s)
	keys := StrangeKeys()
	for _, key := range keys {
		put(t, s, bucket, key, "of "+key)
	}
	slices.Sort(keys)
	require.Equal(t, keys, list(t, s, bucket, "", objectstore.ListOptions{}))
	for _, key := range keys {
		require.Equal(t, "of "+key, get(t, s, bucket, key, 0, -1), "%q", key)
		h, err := s.Head(t.Context(), bucket, key)
		require.NoError(t, err, "%q", key)
		require.Equal(t, key, h.Key)
		require.Contains(t, list(t, s, bucket, key, objectstore.ListOptions{}), key)

		id, err := s.CreateUpload(t.Context(), bucket, key, nil)
		require.NoError(t, err, "%q", key)
		p, err := s.UploadPart(t.Context(), bucket, key, id, 1, []byte("again "+key))
		require.NoError(t, err, "%q", key)
		open, err := s.ListUploads(t.Context(), bucket, key)
		require.NoError(t, err, "%q", key)
		require.Len(t, open, 1, "%q", key)
		parts, err := s.ListParts(t.Context(), bucket, key, id)
		require.NoError(t, err, "%q", key)
		require.Equal(t, []objectstore.Part{p}, parts, "%q", key)
		_, err = s.CompleteUpload(t.Context(), bucket, key, id, parts)
		require.NoError(t, err, "%q", key)
		require.Equal(t, "again "+key, get(t, s, bucket, key, 0, -1), "%q", key)
	}
	for i, key := range keys { // listing goes on after every one of them
		require.Equal(t, keys[i+1:], append([]string{}, list(t, s, bucket, "", objectstore.ListOptions{StartAfter: key})...), "after %q", key)
	}
	half := len(keys) / 2
	for i, key := range keys[:half] {
		require.NoError(t, s.Delete(t.Context(), bucket, key), "%q", key)
		require.Equal(t, keys[i+1:], list(t, s, bucket, "", objectstore.ListOptions{}), "without %q", key)
	}
	require.NoError(t, s.Delete(t.Context(), bucket, keys[half:]...))
	require.Empty(t, list(t, s, bucket, "", objectstore.ListOptions{}))
}
