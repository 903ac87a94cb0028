package input

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
)

// Inputs that overlap, in whatever way, give each object once, and it is said.
func TestInputsThatOverlap(t *testing.T) {
	s := objectstore.NewMemory()
	require.NoError(t, s.MakeBucket(context.Background(), "bkt"))
	for _, key := range []string{"in/a", "in/x/b", "in/x/c", "other"} {
		_, err := s.Put(context.Background(), "bkt", key, strings.NewReader("x"), 1, objectstore.PutOptions{})
		require.NoError(t, err)
	}
	for _, test := range []struct {
		inputs  []string
		objects int
		note    string
	}{
		{[]string{"s3://bkt/in"}, 3, ""},
		{[]string{"s3://bkt/in/a", "s3://bkt/in/x"}, 3, ""},
		{[]string{"s3://bkt/in", "s3://bkt/in/x"}, 3, "input: 2 objects are matched by two inputs: each is read once"},
		{[]string{"s3://bkt/in/x/", "s3a://bkt/in"}, 3, "input: 2 objects are matched by two inputs: each is read once"},
		{[]string{"s3://bkt/in/x/b", "s3://bkt/in/x/*"}, 2, "input: 1 object is matched by two inputs: each is read once"},
		{[]string{"s3://bkt/in", "s3://bkt/in/", "s3://bkt/**/b"}, 3, "input: 3 objects are matched by up to 3 inputs: each is read once"},
	} {
		objects, err := List(context.Background(), s, test.inputs)
		require.NoError(t, err)
		require.Len(t, objects, test.objects, test.inputs)
		require.Equal(t, test.note, strings.Join(Notes(objects), "\n"), test.inputs)
	}
}
