package hdfs

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestErrorsTravel(t *testing.T) {
	for _, k := range kinds {
		err := fmt.Errorf("open it: %w", &PathError{Op: "open", Path: "/a", Err: k.err})
		require.Equal(t, k.name, Kind(err))
		told := OfKind(Kind(err), err.Error())
		require.ErrorIs(t, told, k.err)
		require.EqualError(t, told, err.Error())
	}
	require.Empty(t, Kind(errors.New("something else")))
	require.EqualError(t, OfKind("of a later version", "as it was said"), "as it was said")
}

func TestAPathIsNamedOnce(t *testing.T) {
	at := func(op, path string, err error) error { return &PathError{Op: op, Path: path, Err: err} }
	told := OfKind("not-folder", at("create", "/a/b", ErrNotDir).Error())
	for _, c := range []struct {
		err  error
		want string
	}{
		{at("create", "/a/b", ErrNotDir), "create hdfs:///a/b: is a file, not a folder"},
		{at("create", "/a/b", told), "create hdfs:///a/b: is a file, not a folder"},
		{at("open", "/a/b", told), "open hdfs:///a/b: create hdfs:///a/b: is a file, not a folder"},
		{at("rename", "/a", at("rename", "/b", ErrExist)), "rename hdfs:///a: hdfs:///b: file already exists"},
		{at("rename", "/a", OfKind("exist", at("rename", "/a", at("rename", "/b", ErrExist)).Error())), "rename hdfs:///a: hdfs:///b: file already exists"},
		{&PathError{"read", "ch", "/a", ErrNoReplica}, "read hdfs://ch/a: no replica can be read"},
		{&PathError{"create", "ch", "/a/b", told}, "create hdfs://ch/a/b: is a file, not a folder"},
		{&PathError{"create", "ch", "/a/b", &PathError{"create", "ch", "/a/b", ErrNotDir}}, "create hdfs://ch/a/b: is a file, not a folder"},
		{&PathError{"rename", "ch", "/a", at("rename", "/b", ErrExist)}, "rename hdfs://ch/a: hdfs://ch/b: file already exists"},
	} {
		require.EqualError(t, c.err, c.want)
	}
	require.ErrorIs(t, at("create", "/a/b", told), ErrNotDir)
}
