package input_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/klauspost/compress/s2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"millrace/jobs/input"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

func filled(t *testing.T, bucket string, keys ...string) *objectstore.Memory {
	m := objectstore.NewMemory()
	require.NoError(t, m.MakeBucket(t.Context(), bucket))
	for _, key := range keys {
		_, err := m.Put(t.Context(), bucket, key, strings.NewReader(key), int64(len(key)), objectstore.PutOptions{})
		require.NoError(t, err)
	}
	return m
}

func TestList(t *testing.T) {
	m := filled(t, "texts", "a.txt", "b/", "b/1.txt", "b/2.csv", "b/_SUCCESS", "b/c/3.txt", "b/.hidden/4.txt", "b-x/5.txt",
		"_logs/6.txt", "star*/7.txt", "star*", "dir", "dir/8.txt", "e/_a/9.txt")
	for in, want := range map[string][]string{
		"s3://texts/a.txt":           {"a.txt"},
		"s3a://texts/a.txt":          {"a.txt"},
		"s3://texts/b":               {"b/1.txt", "b/2.csv", "b/c/3.txt"},
		"s3://texts/b/":              {"b/1.txt", "b/2.csv", "b/c/3.txt"},
		"s3://texts/b/c":             {"b/c/3.txt"},
		"s3://texts/dir":             {"dir"}, // the key itself comes first
		"s3://texts/dir/":            {"dir/8.txt"},
		"s3://texts/_logs":           {"_logs/6.txt"}, // hidden is what begins so below the input
		"s3://texts/b/_SUCCESS":      {"b/_SUCCESS"},
		"s3://texts/e/_a":            {"e/_a/9.txt"},
		"s3://texts":                 {"a.txt", "b-x/5.txt", "b/1.txt", "b/2.csv", "b/c/3.txt", "dir", "dir/8.txt", "star*", "star*/7.txt"},
		"s3://texts/*.txt":           {"a.txt"},
		"s3://texts/b/*":             {"b/1.txt", "b/2.csv"},
		"s3://texts/b/**":            {"b/1.txt", "b/2.csv", "b/c/3.txt"},
		"s3://texts/**/*.txt":        {"a.txt", "b-x/5.txt", "b/1.txt", "b/c/3.txt", "dir/8.txt", "star*/7.txt"},
		"s3://texts/b*/*.txt":        {"b-x/5.txt", "b/1.txt"},
		"s3://texts/b*/":             {"b-x/5.txt", "b/1.txt", "b/2.csv", "b/c/3.txt"},
		"s3://texts/b/{1,2}.*":       {"b/1.txt", "b/2.csv"},
		"s3://texts/b/[12].txt":      {"b/1.txt"},
		"s3://texts/b/?.txt":         {"b/1.txt"},
		"s3://texts/star*":           {"star*"}, // a key may have a glob's characters
		"s3://texts/star*/":          {"star*/7.txt"},
		"s3://texts/{a.txt,b/1.txt}": {"a.txt", "b/1.txt"},
		"s3://texts/b-?":             {"b-x/5.txt"}, // folders match where no key does
		"s3://texts/?/[c]":           {"b/c/3.txt"},
		"s3://texts/{b,b-x}":         {"b-x/5.txt", "b/1.txt", "b/2.csv", "b/c/3.txt"},
	} {
		objects, err := input.List(t.Context(), m, []string{in})
		require.NoError(t, err, in)
		var got []string
		for _, o := range objects {
			require.Equal(t, "texts", o.Bucket)
			require.NotEmpty(t, o.ETag)
			require.EqualValues(t, len(o.Key), o.Size)
			got = append(got, o.Key)
		}
		require.Equal(t, want, got, in)
	}
}

func TestListTakesEachObjectOnce(t *testing.T) {
	m := filled(t, "texts", "a", "b", "c/d")
	objects, err := input.List(t.Context(), m, []string{"s3://texts/c/", "s3://texts/*", "s3n://texts/b", "s3://texts/"})
	require.NoError(t, err)
	var got []string
	for _, o := range objects {
		got = append(got, o.Key)
	}
	require.Equal(t, []string{"c/d", "a", "b"}, got)
}

func TestListSaysWhatIsWrong(t *testing.T) {
	m := filled(t, "texts", "a", "b/_x", "empty/")
	for _, in := range []string{"s3://texts/none", "s3://texts/a/", "s3://texts/*.gz", "s3://texts/b/", "s3://texts/empty/"} {
		_, err := input.List(t.Context(), m, []string{"s3://texts/a", in})
		var none *input.NoMatchError
		require.ErrorAs(t, err, &none, in)
		require.Equal(t, in, none.Input)
		require.ErrorContains(t, err, in)
	}
	_, err := input.List(t.Context(), m, []string{"s3://elsewhere/x"})
	require.ErrorIs(t, err, objectstore.ErrNoSuchBucket)
	require.ErrorContains(t, err, "input s3://elsewhere/x")
	_, err = input.List(t.Context(), m, []string{"s3://texts/[a"})
	require.ErrorContains(t, err, "not a valid glob")
	_, err = input.List(t.Context(), m, []string{"gs://texts/a"})
	require.ErrorContains(t, err, `"gs://texts/a"`)
}

// A glob is listed from its longest fixed prefix; one object takes one request.
func TestListAsksForLittle(t *testing.T) {
	m := filled(t, "texts", "logs/2024-01/a", "logs/2025-01/a")
	l := &watched{Memory: m}
	_, err := input.List(t.Context(), l, []string{"s3://texts/logs/2024-*/a"})
	require.NoError(t, err)
	_, err = input.List(t.Context(), l, []string{"s3://texts/logs/2024-01/a"})
	require.NoError(t, err)
	require.Equal(t, []string{"head logs/2024-*/a", "list logs/2024-", "head logs/2024-01/a"}, l.asked)
}

type watched struct {
	*objectstore.Memory
	asked []string
}

func (w *watched) List(ctx context.Context, bucket, prefix string, o objectstore.ListOptions) iter.Seq2[objectstore.Object, error] {
	w.asked = append(w.asked, "list "+prefix)
	return w.Memory.List(ctx, bucket, prefix, o)
}

func (w *watched) Head(ctx context.Context, bucket, key string) (objectstore.Object, error) {
	w.asked = append(w.asked, "head "+key)
	return w.Memory.Head(ctx, bucket, key)
}

// shape writes splits down: key:offset+length, pieces joined, splits separated.
func shape(splits []*api.Split) string {
	var out []string
	for _, s := range splits {
		var pieces []string
		for _, p := range s.Pieces {
			text := fmt.Sprintf("%s:%d+%d", p.Key, p.Offset, p.Length)
			if p.Whole {
				text += "!"
			}
			pieces = append(pieces, text)
		}
		out = append(out, strings.Join(pieces, " "))
	}
	return strings.Join(out, " | ")
}

func TestCut(t *testing.T) {
	o := func(key string, size int64) input.Object {
		return input.Object{Bucket: "texts", Key: key, Size: size, ETag: "e"}
	}
	for _, c := range []struct {
		objects []input.Object
		want    string
	}{
		{nil, ""},
		{[]input.Object{o("empty", 0)}, ""},
		{[]input.Object{o("a", 10)}, "a:0+10"},
		{[]input.Object{o("a", 25)}, "a:0+10 | a:10+10 | a:20+5"},
		{[]input.Object{o("a", 3), o("b", 3), o("c", 4), o("d", 1)}, "a:0+3 b:0+3 c:0+4 | d:0+1"},
		{[]input.Object{o("a", 13), o("b", 4), o("c", 4)}, "a:0+10 | a:10+3 b:0+4 | c:0+4"},
		{[]input.Object{o("a", 3), o("z.gz", 50), o("Z.GZ", 1), o("b", 3)}, "a:0+3 | z.gz:0+50! | Z.GZ:0+1! | b:0+3"},
		{[]input.Object{o("a", 3), o("empty", 0), o("b", 3)}, "a:0+3 b:0+3"},
	} {
		require.Equal(t, c.want, shape(input.Cut(c.objects, 10, "text")))
	}
	s := input.Cut([]input.Object{o("a", 5)}, 0, "text")
	require.Empty(t, cmp.Diff([]*api.Split{{Format: "text", Pieces: []*api.Piece{{Bucket: "texts", Key: "a", Length: 5, ObjectSize: 5, Etag: "e"}}}}, s, protocmp.Transform()))
}

// Every byte of every object is in exactly one piece, and no split is too big.
func TestCutCoversEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(1, 50).Draw(t, "size")
		var objects []input.Object
		next := map[string]int64{}
		for i, n := range rapid.SliceOfN(rapid.Int64Range(0, 200), 0, 20).Draw(t, "sizes") {
			objects = append(objects, input.Object{Bucket: "texts", Key: fmt.Sprint(i), Size: n})
		}
		for _, s := range input.Cut(objects, size, "") {
			require.NotEmpty(t, s.Pieces)
			total := int64(0)
			for _, p := range s.Pieces {
				require.Equal(t, next[p.Key], p.Offset)
				require.Positive(t, p.Length)
				next[p.Key] += p.Length
				total += p.Length
			}
			require.LessOrEqual(t, total, size)
		}
		for _, o := range objects {
			require.Equal(t, o.Size, next[o.Key])
		}
	})
}

func plan(n int) *input.Plan {
	var objects []input.Object
	for i := range n {
		objects = append(objects, input.Object{Bucket: "texts", Key: fmt.Sprintf("dir/object-%06d", i), Size: 300, ETag: fmt.Sprintf("%032x", i)})
	}
	return input.NewPlan(input.Cut(objects, 128, "text"))
}

func TestPlanThereAndBack(t *testing.T) {
	for _, n := range []int{0, 1, 1000} {
		p := plan(n)
		data, digest, err := p.Encode()
		require.NoError(t, err)
		again, sameDigest, err := p.Encode()
		require.NoError(t, err)
		require.Equal(t, data, again)
		require.Equal(t, digest, sameDigest)
		back, err := input.Decode(data, digest)
		require.NoError(t, err)
		require.EqualValues(t, n*300, back.Bytes)
		require.Len(t, back.Splits, len(p.Splits))
		require.Empty(t, cmp.Diff(p, back, protocmp.Transform(), cmpopts.EquateEmpty()))
	}
}

func TestDamagedPlan(t *testing.T) {
	data, digest, err := plan(10).Encode()
	require.NoError(t, err)
	for i := range data {
		bad := slices.Clone(data)
		bad[i] ^= 4
		_, err := input.Decode(bad, digest)
		require.ErrorIs(t, err, input.ErrPlan)
	}
	_, err = input.Decode(data[:len(data)-1], digest)
	require.ErrorIs(t, err, input.ErrPlan)
}

func FuzzDecode(f *testing.F) {
	data, _, err := plan(3).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("MILLPLN1\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if n, err := s2.DecodedLen(bytes.TrimPrefix(data, []byte("MILLPLN1"))); err == nil && n > 1<<20 {
			return // up to the limit for plans it is given the memory that it asks for: that takes too long here
		}
		sum := sha256.Sum256(data)
		p, err := input.Decode(data, hex.EncodeToString(sum[:]))
		if err != nil {
			require.ErrorIs(t, err, input.ErrPlan)
			return
		}
		if _, _, err := p.Encode(); err != nil {
			t.Fatal(err)
		}
	})
}
