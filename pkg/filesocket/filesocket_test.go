package filesocket_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/filesocket"
	"millrace/pkg/objectstore"
	"millrace/pkg/objectstore/objectstoretest"
)

const bucket = "hdfs://j-1"

func serve(t testing.TB, store filesocket.Store) (*filesocket.Server, *filesocket.Client) {
	t.Helper()
	s, err := filesocket.Listen(store, os.Geteuid())
	require.NoError(t, err)
	c := filesocket.NewClient(s.Name())
	t.Cleanup(func() {
		c.Close()
		require.NoError(t, s.Close())
	})
	return s, c
}

func read(c *filesocket.Client, key string, offset, length int64, etag string) (string, error) {
	r, err := c.Get(context.Background(), bucket, key, offset, length, etag)
	if err != nil {
		return "", err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	return string(data), err
}

func TestFilesAreRead(t *testing.T) {
	files := objectstoretest.NewFiles()
	_, c := serve(t, files)
	const odd = "a b/ä?&%41#"
	text := strings.Repeat("0123456789", 100_000)
	files.Write(bucket+"/"+odd, text)
	head, err := files.Head(t.Context(), bucket, odd)
	require.NoError(t, err)
	for _, r := range []struct{ offset, length int64 }{{0, -1}, {0, 10}, {123_456, 500_000}, {999_999, 1}, {1_000_000, -1}, {0, 0}} {
		got, err := read(c, odd, r.offset, r.length, head.ETag)
		require.NoError(t, err, "%+v", r)
		want := text[r.offset:]
		if r.length >= 0 {
			want = want[:r.length]
		}
		require.True(t, want == got, "%+v: %d bytes", r, len(got))
	}
	files.Write(bucket+"/"+odd, "another")
	_, err = read(c, odd, 0, -1, head.ETag)
	require.ErrorIs(t, err, objectstore.ErrPrecondition)
	_, err = read(c, "none", 0, -1, "")
	require.ErrorIs(t, err, objectstore.ErrNotExist)
	require.EqualError(t, err, "get hdfs://j-1/none: no such object", "as if the store had been asked itself")
	_, err = read(c, odd, 100, -1, "")
	require.ErrorIs(t, err, objectstore.ErrInvalid)
}

func TestUploadsThatAreAllowed(t *testing.T) {
	files := objectstoretest.NewFiles()
	s, c := serve(t, files)
	ctx := t.Context()
	id, err := files.CreateUpload(ctx, bucket, "out/part", map[string]string{"millrace-job": "s-1"})
	require.NoError(t, err)
	_, err = c.UploadPart(ctx, bucket, "out/part", id, 1, []byte("a"))
	require.ErrorIs(t, err, objectstore.ErrDenied, "no attempt here has it")
	revoke := s.Allow(bucket, "out/part", id)
	big := bytes.Repeat([]byte("x"), 8<<20)
	for i, data := range [][]byte{[]byte("ab"), big, {}} {
		part, err := c.UploadPart(ctx, bucket, "out/part", id, i+1, data)
		require.NoError(t, err)
		require.Equal(t, i+1, part.Number)
		require.EqualValues(t, len(data), part.Size)
	}
	_, err = c.UploadPart(ctx, bucket, "out/part", id, 9, []byte("a"))
	require.ErrorIs(t, err, objectstore.ErrInvalid, "what the store says")
	require.NoError(t, c.SealUpload(ctx, bucket, "out/part", id))
	h := files.Hidden("s-1")[0]
	require.True(t, h.Sealed)
	require.Equal(t, "ab"+string(big), string(h.Data))
	revoke()
	require.ErrorIs(t, c.SealUpload(ctx, bucket, "out/part", id), objectstore.ErrDenied)
	_ = s.Allow(bucket, "out/part", "gone")
	require.ErrorIs(t, c.SealUpload(ctx, bucket, "out/part", "gone"), objectstore.ErrNoSuchUpload)
}

// breaking is a store whose bodies break off.
type breaking struct {
	filesocket.Store
	err error
}

func (b breaking) Get(context.Context, string, string, int64, int64, string) (io.ReadCloser, error) {
	return io.NopCloser(io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<20)), failing{b.err})), nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// An error in the midst of a body is that error at the other end, and never the body's end.
func TestABodyThatBreaksOff(t *testing.T) {
	for _, kind := range []error{objectstore.ErrUnreachable, objectstore.ErrNotExist, objectstore.ErrDamaged, io.ErrUnexpectedEOF} {
		_, c := serve(t, breaking{err: fmt.Errorf("all replicas of b-1 are away:\nä: %w", kind)})
		got, err := read(c, "k", 0, -1, "")
		require.Len(t, got, 1<<20)
		require.ErrorIs(t, err, kind)
		require.ErrorContains(t, err, "all replicas of b-1 are away:\nä")
	}
	_, c := serve(t, breaking{err: errors.New("panic at the disk")})
	_, err := read(c, "k", 0, -1, "")
	require.ErrorIs(t, err, objectstore.ErrUnreachable, "what nobody knows may pass")
}

// When the worker goes, who reads or writes hears of it.
func TestTheWorkerGoes(t *testing.T) {
	stuck := &waiting{began: make(chan struct{}), over: make(chan struct{})}
	s, err := filesocket.Listen(stuck, os.Geteuid())
	require.NoError(t, err)
	c := filesocket.NewClient(s.Name())
	defer c.Close()
	s.Allow(bucket, "k", "u")
	answered := make(chan error)
	go func() {
		_, err := c.UploadPart(context.Background(), bucket, "k", "u", 1, []byte("x"))
		answered <- err
	}()
	<-stuck.began
	require.NoError(t, s.Close())
	require.ErrorIs(t, <-answered, objectstore.ErrUnreachable)
	<-stuck.over // the store's call has ended, too
	_, err = read(c, "k", 0, -1, "")
	require.ErrorIs(t, err, objectstore.ErrUnreachable)
}

// Who gives up ends what the store does for him.
func TestACallThatIsGivenUp(t *testing.T) {
	stuck := &waiting{began: make(chan struct{}), over: make(chan struct{})}
	s, c := serve(t, stuck)
	s.Allow(bucket, "k", "u")
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-stuck.began; cancel() }()
	_, err := c.UploadPart(ctx, bucket, "k", "u", 1, []byte("x"))
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, objectstore.ErrUnreachable)
	<-stuck.over
}

// waiting is a store that does nothing until nobody waits.
type waiting struct {
	filesocket.Store
	began, over chan struct{}
}

func (w *waiting) UploadPart(ctx context.Context, _, _, _ string, _ int, _ []byte) (objectstore.Part, error) {
	close(w.began)
	<-ctx.Done()
	close(w.over)
	return objectstore.Part{}, ctx.Err()
}

// What a process sends that is no attempt is refused, and never believed.
func TestNonsense(t *testing.T) {
	s, _ := serve(t, objectstoretest.NewFiles())
	s.Allow(bucket, "k", "u")
	for request, want := range map[string]string{
		"GET /v1/file?offset=x&length=1 HTTP/1.1":                                                       "422",
		"PUT /v1/part?bucket=hdfs://j-1&key=k&upload=u&number=1 HTTP/1.1\r\nContent-Length: 99999999":   "422",
		"PUT /v1/part?bucket=hdfs://j-1&key=k&upload=u&number=x HTTP/1.1\r\nContent-Length: 0":          "422",
		"PUT /v1/part?bucket=hdfs://j-1&key=k&upload=u&number=1 HTTP/1.1\r\nTransfer-Encoding: chunked": "422",
		"PUT /v1/part?bucket=hdfs://j-1&key=k%00&upload=u&number=1 HTTP/1.1\r\nContent-Length: 0":       "422",
		"DELETE /v1/file?bucket=hdfs://j-1&key=k HTTP/1.1":                                              "405",
		"GET /v1/else HTTP/1.1": "404",
	} {
		conn, err := net.Dial("unix", s.Name())
		require.NoError(t, err)
		_, err = conn.Write([]byte(request + "\r\nHost: files\r\nConnection: close\r\n\r\n"))
		require.NoError(t, err)
		buf := make([]byte, 12)
		_, err = io.ReadFull(conn, buf)
		require.NoError(t, err, request)
		require.Equal(t, "HTTP/1.1 "+want, string(buf), request)
		conn.Close()
	}
}

// fromDisk is a store of one file on a disk.
type fromDisk struct {
	filesocket.Store
	path string
}

func (f fromDisk) Get(_ context.Context, _, _ string, offset, length int64, _ string) (io.ReadCloser, error) {
	file, err := os.Open(f.path)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(file, offset, length), file}, nil
}

// What the way through the worker costs: 8 MiB ranges of a file in the page cache, and the same without it.
func BenchmarkGet(b *testing.B) {
	const size, step = 128 << 20, 8 << 20
	disk := fromDisk{path: filepath.Join(b.TempDir(), "block")}
	require.NoError(b, os.WriteFile(disk.path, make([]byte, size), 0o600))
	_, client := serve(b, disk)
	buf := make([]byte, step)
	for name, store := range map[string]interface {
		Get(ctx context.Context, bucket, key string, offset, length int64, ifMatch string) (io.ReadCloser, error)
	}{"socket": client, "file": disk} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(step)
			for i := range b.N {
				r, err := store.Get(b.Context(), bucket, "k", int64(i)*step%size, step, "")
				require.NoError(b, err)
				_, err = io.ReadFull(r, buf)
				require.NoError(b, err)
				require.NoError(b, r.Close())
			}
		})
	}
}
