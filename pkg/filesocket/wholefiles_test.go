package filesocket_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
	"millrace/pkg/objectstore/objectstoretest"
)

// Whole files may be written below what an attempt copies to, and nowhere else; not any more when it has ended.
func TestWholeFiles(t *testing.T) {
	files := objectstoretest.NewFiles()
	s, c := serve(t, files)
	ctx := t.Context()
	write := func(key, text string, o objectstore.PutOptions) error {
		done, err := c.Put(ctx, bucket, key, strings.NewReader(text), int64(len(text)), o)
		if err == nil {
			require.Equal(t, int64(len(text)), done.Size)
			head, err := c.Head(ctx, bucket, key)
			require.NoError(t, err)
			require.Equal(t, done.ETag, head.ETag)
			require.Equal(t, key, head.Key)
		}
		return err
	}
	require.ErrorIs(t, write("to/a", "x", objectstore.PutOptions{}), objectstore.ErrDenied, "nobody copies")
	_, err := c.Head(ctx, bucket, "to/a")
	require.EqualError(t, err, "head hdfs://j-1/to/a: no such object")

	first, second := s.AllowBelow(bucket, "to/"), s.AllowBelow(bucket, "to/")
	odd, long := "to/a b/ä?&%41#\n", strings.Repeat("0123456789", 1<<20)
	require.NoError(t, write(odd, long, objectstore.PutOptions{IfNoneMatch: true}))
	got, _ := files.Read(bucket + "/" + odd)
	require.True(t, got == long)
	require.NoError(t, write("to/empty", "", objectstore.PutOptions{IfNoneMatch: true}))
	require.ErrorIs(t, write("to/empty", long, objectstore.PutOptions{IfNoneMatch: true}), objectstore.ErrPrecondition)
	require.NoError(t, write("to/empty", "not any more", objectstore.PutOptions{}))
	for _, key := range []string{"to", "to/", "two/a", "t"} {
		require.ErrorIs(t, write(key, long, objectstore.PutOptions{}), objectstore.ErrDenied, key)
	}
	first()
	require.NoError(t, write("to/more", "x", objectstore.PutOptions{}), "the other attempt still runs")
	second()
	require.ErrorIs(t, write("to/more", "y", objectstore.PutOptions{}), objectstore.ErrDenied)
	got, _ = files.Read(bucket + "/to/more")
	require.Equal(t, "x", got)
}

// A file whose data break off at the attempt's end is not written, nor one whose attempt ends.
func TestAFileThatBreaksOff(t *testing.T) {
	files := objectstoretest.NewFiles()
	s, c := serve(t, files)
	revoke := s.AllowBelow(bucket, "to/")
	broken := errors.New("the source has changed")
	text := strings.Repeat("x", 1<<20)
	_, err := c.Put(t.Context(), bucket, "to/a", io.MultiReader(strings.NewReader(text), failing{broken}), 2<<20, objectstore.PutOptions{})
	require.ErrorIs(t, err, broken)
	_, err = c.Put(t.Context(), bucket, "to/b", io.MultiReader(strings.NewReader(text), ending{revoke}, strings.NewReader(text)), 2<<20, objectstore.PutOptions{})
	require.Error(t, err)
	require.Empty(t, files.Names(""))
}

// ending is a reader of nothing that has something done first.
type ending struct{ do func() }

func (e ending) Read([]byte) (int, error) {
	e.do()
	return 0, io.EOF
}
