package objectstore_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
	"millrace/pkg/objectstore/objectstoretest"
)

func TestMemoryFaults(t *testing.T) {
	m := objectstore.NewMemory()
	require.NoError(t, m.MakeBucket(t.Context(), "bucket"))
	broken := errors.New("broken")
	on := func(op string) func(string, string, string) error {
		return func(o, bucket, key string) error {
			if o == op && bucket == "bucket" && key == "o" {
				return broken
			}
			return nil
		}
	}
	put := func() error {
		_, err := m.Put(t.Context(), "bucket", "o", strings.NewReader("x"), 1, objectstore.PutOptions{})
		return err
	}
	m.Fault = on("Put")
	require.ErrorIs(t, put(), broken)
	_, err := m.Head(t.Context(), "bucket", "o")
	require.ErrorIs(t, err, objectstore.ErrNotExist, "nothing was done")

	m.Fault, m.Lost = nil, on("Put")
	require.ErrorIs(t, put(), broken)
	_, err = m.Head(t.Context(), "bucket", "o")
	require.NoError(t, err, "it was done, the answer was lost")
}

// What MinIO does and other stores may not.
func TestMemoryIsAsMinIO(t *testing.T) {
	m := objectstore.NewMemory()
	require.NoError(t, m.MakeBucket(t.Context(), "bucket"))
	id, err := m.CreateUpload(t.Context(), "bucket", "o", nil)
	require.NoError(t, err)
	p, err := m.UploadPart(t.Context(), "bucket", "o", id, 1, []byte("x"))
	require.NoError(t, err)
	_, err = m.CompleteUpload(t.Context(), "bucket", "o", id, []objectstore.Part{p})
	require.NoError(t, err)
	_, err = m.CompleteUpload(t.Context(), "bucket", "o", id, []objectstore.Part{p})
	require.ErrorIs(t, err, objectstore.ErrNoSuchUpload)
	require.ErrorIs(t, m.AbortUpload(t.Context(), "bucket", "o", id), objectstore.ErrNoSuchUpload)
}

func TestMemoryTakesEveryKey(t *testing.T) {
	objectstoretest.RunStrangeKeys(t, objectstore.NewMemory())
}
