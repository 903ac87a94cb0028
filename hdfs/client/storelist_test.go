package client_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"millrace/hdfs"
	"millrace/hdfs/client"
	"millrace/hdfs/client/clienttest"
	"millrace/pkg/objectstore"
)

func store(t testing.TB, f *client.Files) *client.Store {
	t.Helper()
	s := client.NewStore(client.StoreConfig{BlockSize: block, Open: func(cluster string) (*client.Files, error) {
		if cluster != "" {
			return nil, fmt.Errorf("%s: %w", cluster, hdfs.ErrNotExist)
		}
		return f, nil
	}})
	t.Cleanup(func() { s.Close() })
	return s
}

const own = objectstore.HDFS

// A listing of files is that of an object store with the same keys, whatever is asked for.
func TestListingsAreThoseOfAnObjectStore(t *testing.T) {
	name := rapid.StringMatching(`[ab][-.0a]{0,2}`)
	key := rapid.Custom(func(t *rapid.T) string { return strings.Join(rapid.SliceOfN(name, 1, 3).Draw(t, "names"), "/") })
	part := rapid.OneOf(rapid.Just(""), key, rapid.StringMatching(`[-./0ab]{0,6}`))
	rapid.Check(t, func(rt *rapid.T) {
		c := clienttest.New()
		f := files(t, c)
		twin := objectstore.NewMemory()
		require.NoError(rt, twin.MakeBucket(t.Context(), "twin"))
		for k := range maps.Keys(rapid.MapOfN(key, rapid.Just(true), 0, 30).Draw(rt, "keys")) {
			w, err := f.Create(t.Context(), hdfs.Create{Path: "/" + k})
			if err != nil {
				continue // a folder is there, or a file above it
			}
			if w.Close() == nil {
				_, err = twin.Put(t.Context(), "twin", k, strings.NewReader(""), 0, objectstore.PutOptions{})
				require.NoError(rt, err)
			}
		}
		s := store(t, f)
		for range 10 {
			prefix := part.Draw(rt, "prefix")
			o := objectstore.ListOptions{Delimiter: rapid.Bool().Draw(rt, "delimiter"), StartAfter: part.Draw(rt, "after"), Max: rapid.IntRange(0, 5).Draw(rt, "max")}
			require.Equal(rt, keys(rt, twin, "twin", prefix, o), keys(rt, s, own, prefix, o), "prefix %q, %+v", prefix, o)
		}
	})
}

func keys(t require.TestingT, s objectstore.Store, bucket, prefix string, o objectstore.ListOptions) []string {
	out := []string{}
	for x, err := range s.List(ctx, bucket, prefix, o) {
		require.NoError(t, err)
		out = append(out, fmt.Sprint(x.Key, x.Prefix))
	}
	return out
}

// Ranges of names are listed at once over files, too.
func TestListAllOverFiles(t *testing.T) {
	f := files(t, clienttest.New())
	var want []string
	for i := range 300 {
		key := fmt.Sprintf("d%d/part-%05d", i%7, i)
		write(t, f, "/"+key, nil)
		want = append(want, key)
	}
	slices.Sort(want)
	got, err := objectstore.ListAll(t.Context(), store(t, f), own, "d", func(o objectstore.Object) (string, bool) { return o.Key, true })
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func TestListingShowsEmptyFoldersAsPrefixes(t *testing.T) {
	f := files(t, clienttest.New())
	require.NoError(t, f.Mkdir(t.Context(), "/a/empty"))
	write(t, f, "/a/f", nil)
	s := store(t, f)
	require.Equal(t, []string{"a/empty/true", "a/ffalse"}, keys(t, s, own, "a/", objectstore.ListOptions{Delimiter: true}))
	require.Equal(t, []string{"a/ffalse"}, keys(t, s, own, "", objectstore.ListOptions{}))
}

func TestListingThatBreaks(t *testing.T) {
	c := clienttest.New()
	f, err := client.New(client.Config{Names: c, Blocks: c, Patience: -1})
	require.NoError(t, err)
	write(t, f, "/a", nil)
	write(t, f, "/b/c", nil)
	s := store(t, f)
	n := 0
	c.Asked = func(op string) error {
		if n++; op == "List" && n > 1 {
			return fmt.Errorf("no leader: %w", hdfs.ErrUnavailable)
		}
		return nil
	}
	var got []string
	var last error
	for o, err := range s.List(t.Context(), own, "", objectstore.ListOptions{}) {
		got, last = append(got, o.Key), err
	}
	require.Equal(t, []string{"a", ""}, got)
	require.ErrorIs(t, last, objectstore.ErrUnreachable, "a listing never just ends")
	require.ErrorIs(t, last, hdfs.ErrUnavailable)
	require.True(t, errors.As(last, new(*objectstore.Error)))
}
