package client_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"millrace/hdfs"
	"millrace/hdfs/client"
	"millrace/hdfs/client/clienttest"
	"millrace/pkg/objectstore"
)

func ofJob(task string) map[string]string {
	return map[string]string{"millrace-job": "s-1", "millrace-task": task}
}

// The leader makes uploads, attempts elsewhere write and seal them, the leader shows all of them at once.
func TestUploadsOfAJob(t *testing.T) {
	ctx := t.Context()
	f := files(t, clienttest.New())
	leader := store(t, f)
	upload := func(key string) string {
		id, err := leader.CreateUpload(ctx, own, key, ofJob("r-00000"))
		require.NoError(t, err)
		return id
	}
	lost := upload("out/part-0") // another attempt's of the same task
	ids := map[string]string{"out/part-0": upload("out/part-0"), "out/part-1": upload("out/part-1"), "out/_SUCCESS": upload("out/_SUCCESS")}

	listed, err := leader.ListUploads(ctx, own, "out/part-0")
	require.NoError(t, err)
	require.ElementsMatch(t, []objectstore.Upload{{Key: "out/part-0", ID: lost}, {Key: "out/part-0", ID: ids["out/part-0"]}}, listed)

	for key, id := range ids {
		attempt := store(t, f)
		_, err := attempt.UploadPart(ctx, own, key, id, 1, []byte("of "))
		require.NoError(t, err)
		_, err = attempt.UploadPart(ctx, own, key, id, 2, []byte(key))
		require.NoError(t, err)
		_, err = attempt.CompleteUpload(ctx, own, key, id, nil)
		require.ErrorIs(t, err, objectstore.ErrInvalid)
		require.ErrorContains(t, err, "shown with all of job s-1")
		require.ErrorIs(t, leader.SealUpload(ctx, own, key, id), objectstore.ErrInvalid, "who has not written it does not know what should be there")

		require.NoError(t, attempt.SealUpload(ctx, own, key, id))
		require.NoError(t, attempt.SealUpload(ctx, own, key, id), "repeated")
		require.NoError(t, leader.SealUpload(ctx, own, key, id), "it is sealed")
		_, err = attempt.UploadPart(ctx, own, key, id, 3, []byte("late"))
		require.ErrorIs(t, err, objectstore.ErrNoSuchUpload)
		parts, err := leader.ListParts(ctx, own, key, id)
		require.NoError(t, err)
		require.Len(t, parts, 1)
		require.EqualValues(t, len("of "+key), parts[0].Size)
		_, err = leader.Head(ctx, own, key)
		require.ErrorIs(t, err, objectstore.ErrNotExist, "sealed is not shown")
	}

	require.ErrorIs(t, leader.Publish(ctx, own, "s-1", "out/", 3, false, time.Now()), objectstore.ErrInvalid, "there is one too many")
	require.NoError(t, leader.Abort(ctx, own, "s-1", lost))
	hidden, err := leader.Hidden(ctx, own, "s-1")
	require.NoError(t, err)
	require.Len(t, hidden, 3)
	tags := map[string]string{}
	for _, h := range hidden {
		tags[h.Key] = h.ETag
		require.Equal(t, client.Hidden{ID: ids[h.Key], Key: h.Key, Task: "r-00000", Size: int64(len("of " + h.Key)), Sealed: true, ETag: h.ETag}, h)
	}
	for range 2 {
		require.NoError(t, leader.Publish(ctx, own, "s-1", "out/", 3, false, time.Now()))
	}
	for key := range ids {
		rc, err := leader.Get(ctx, own, key, 0, -1, tags[key])
		require.NoError(t, err)
		got, err := io.ReadAll(rc)
		require.NoError(t, err)
		require.Equal(t, "of "+key, string(got))
		require.NoError(t, rc.Close())
	}
}

func TestUploadsOfAJobThatFails(t *testing.T) {
	ctx := t.Context()
	c := clienttest.New()
	f := files(t, c)
	leader, attempt := store(t, f), store(t, f)
	one, err := leader.CreateUpload(ctx, own, "out/a", ofJob("m-1"))
	require.NoError(t, err)
	_, err = leader.CreateUpload(ctx, own, "out/b", ofJob("m-2"))
	require.NoError(t, err)
	_, err = attempt.UploadPart(ctx, own, "out/a", one, 1, []byte("x"))
	require.NoError(t, err)

	require.NoError(t, leader.AbortUpload(ctx, own, "out/a", one))
	_, err = leader.ListParts(ctx, own, "out/a", one)
	require.ErrorIs(t, err, objectstore.ErrNoSuchUpload)
	require.ErrorIs(t, attempt.SealUpload(ctx, own, "out/a", one), objectstore.ErrNoSuchUpload, "it was taken from the attempt")

	require.ErrorIs(t, leader.Abort(ctx, own, "s-2", one), objectstore.ErrInvalid, "another job's")
	require.NoError(t, leader.Abort(ctx, own, "s-1"))
	require.Zero(t, c.Unfinished())
}

func TestUploadIDsThatAreNone(t *testing.T) {
	s := store(t, files(t, clienttest.New()))
	for _, id := range []string{"no-such-upload", "1", "1.", "1..", "x.y.z", "-1.l.g", "7.lease."} {
		_, err := s.UploadPart(t.Context(), own, "f", id, 1, nil)
		require.ErrorIs(t, err, objectstore.ErrNoSuchUpload, id)
	}
	mine, err := s.CreateUpload(t.Context(), own, "f", nil)
	require.NoError(t, err)
	_, err = s.UploadPart(t.Context(), own, "another", mine, 1, nil)
	require.ErrorIs(t, err, objectstore.ErrNoSuchUpload)
}

// A part whose predecessor never comes does not wait for ever; one whose predecessors do come waits as long as that takes.
func TestPartsWaitForTheirTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := files(t, clienttest.New())
		s := store(t, f)
		defer s.Close()
		id, err := s.CreateUpload(t.Context(), own, "f", nil)
		require.NoError(t, err)
		_, err = s.UploadPart(t.Context(), own, "f", id, 2, []byte("x"))
		require.ErrorIs(t, err, objectstore.ErrInvalid)
		require.ErrorContains(t, err, "the part before it has not come")

		var wg sync.WaitGroup
		for _, n := range []int{5, 1, 2, 3, 4} {
			wg.Go(func() {
				_, err := s.UploadPart(t.Context(), own, "f", id, n, []byte{byte('0' + n)})
				assert.NoError(t, err, n)
			})
			time.Sleep(50 * time.Second)
		}
		wg.Wait()
	})
}

func TestPartWhoseContextEndsIsTheEndOfItsUpload(t *testing.T) {
	c := clienttest.New()
	s := store(t, files(t, c))
	id, err := s.CreateUpload(t.Context(), own, "f", nil)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	_, err = s.UploadPart(ctx, own, "f", id, 1, []byte("one"))
	require.NoError(t, err)
	cancel()
	_, err = s.UploadPart(ctx, own, "f", id, 2, []byte("two"))
	require.ErrorIs(t, err, context.Canceled)
	_, err = s.UploadPart(t.Context(), own, "f", id, 2, []byte("two"))
	require.NoError(t, err, "it had not begun: nothing is lost")

	c.Writes = func(hdfs.Block) error { return errors.New("all nodes are gone") }
	_, err = s.UploadPart(t.Context(), own, "f", id, 3, []byte("three"))
	require.ErrorContains(t, err, "all nodes are gone")
	require.ErrorIs(t, err, objectstore.ErrUnreachable)
	_, err = s.UploadPart(t.Context(), own, "f", id, 3, []byte("three"))
	require.ErrorIs(t, err, objectstore.ErrNoSuchUpload)
}

func TestUploadWhoseLeaseIsOver(t *testing.T) {
	c := clienttest.New()
	s := store(t, files(t, c))
	id, err := s.CreateUpload(t.Context(), own, "f", nil)
	require.NoError(t, err)
	p, err := s.UploadPart(t.Context(), own, "f", id, 1, []byte("one"))
	require.NoError(t, err)
	c.Expire()
	_, err = s.CompleteUpload(t.Context(), own, "f", id, []objectstore.Part{p})
	require.ErrorIs(t, err, objectstore.ErrNoSuchUpload)
	require.ErrorIs(t, err, hdfs.ErrLease)
}

func TestStoreThatIsClosedGivesUpItsUploads(t *testing.T) {
	c := clienttest.New()
	s := store(t, files(t, c))
	_, err := s.CreateUpload(t.Context(), own, "f", nil)
	require.NoError(t, err)
	require.Equal(t, 1, c.Unfinished())
	require.NoError(t, s.Close())
	require.Zero(t, c.Unfinished())
}
