package task

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"millrace/pkg/api"
	"millrace/pkg/objectstore"
	"millrace/pkg/objectstore/objectstoretest"
)

// fakeUploads keeps parts, and fails at one if told to.
type fakeUploads struct {
	mu    sync.Mutex
	parts map[int][]byte
	fail  int
}

var errStore = errors.New("store on fire")

func (f *fakeUploads) UploadPart(_ context.Context, _, _, _ string, number int, data []byte) (objectstore.Part, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if number == f.fail {
		return objectstore.Part{}, errStore
	}
	if f.parts == nil {
		f.parts = map[int][]byte{}
	}
	f.parts[number] = bytes.Clone(data)
	return objectstore.Part{Number: number}, nil
}

func (f *fakeUploads) all() []byte {
	var all []byte
	for i := 1; i <= len(f.parts); i++ {
		all = append(all, f.parts[i]...)
	}
	return all
}

func TestPartsReachFiveTerabytes(t *testing.T) {
	var sum int64
	for n := 1; n <= maxParts; n++ {
		if got := PartOffset(n); got != sum {
			t.Fatalf("part %d begins at %d, want %d", n, got, sum)
		}
		if s := PartSize(n); s < 5<<20 || int64(s) > 5<<30 {
			t.Fatalf("part %d has %d bytes, which S3 does not take", n, s)
		}
		sum += int64(PartSize(n))
	}
	if sum < 5<<40 {
		t.Errorf("%d parts hold %d bytes, want 5 TiB", maxParts, sum)
	}
}

func TestLinesOfRecords(t *testing.T) {
	for _, test := range []struct {
		key, value []byte
		want       string
	}{
		{[]byte("k"), []byte("v"), "k\tv\n"},
		{[]byte("k"), nil, "k\n"},
		{nil, []byte("v"), "v\n"},
		{[]byte("k"), []byte{}, "k\t\n"},
		{[]byte{}, []byte("v"), "\tv\n"},
		{nil, nil, "\n"},
	} {
		if got := string(appendLine(nil, test.key, test.value)); got != test.want {
			t.Errorf("%q %q: %q, want %q", test.key, test.value, got, test.want)
		}
	}
}

func TestOutputIsCutIntoParts(t *testing.T) {
	line := []byte(strings.Repeat("x", 99_991))
	for _, count := range []int{0, 1, 83, 84, 85, 300} {
		f := &fakeUploads{}
		o, err := newOutput(t.Context(), f, &api.Output{})
		if err != nil {
			t.Fatal(err)
		}
		var want bytes.Buffer
		for i := range count {
			key := fmt.Appendf(nil, "%07d", i)
			if err := o.write(key, line); err != nil {
				t.Fatal(err)
			}
			want.Write(appendLine(nil, key, line))
		}
		if err := o.close(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(f.all(), want.Bytes()) {
			t.Errorf("%d records: parts do not add up to what was written", count)
		}
		for n, p := range f.parts {
			if n < len(f.parts) && len(p) != PartSize(n) {
				t.Errorf("%d records: part %d of %d has %d bytes", count, n, len(f.parts), len(p))
			}
		}
		if len(f.parts) != o.parts.count() || o.parts.count() == 0 || o.parts.bytes != int64(want.Len()) {
			t.Errorf("%d records: %d parts, %d bytes counted; %d parts, %d bytes written", count, o.parts.count(), o.parts.bytes, len(f.parts), want.Len())
		}
	}
}

func TestARecordOfManyParts(t *testing.T) {
	f := &fakeUploads{}
	o, _ := newOutput(t.Context(), f, &api.Output{})
	value := bytes.Repeat([]byte("0123456"), 5<<20)
	if err := errors.Join(o.write([]byte("k"), value), o.write([]byte("l"), nil), o.close()); err != nil {
		t.Fatal(err)
	}
	if want := append(append([]byte("k\t"), value...), "\nl\n"...); !bytes.Equal(f.all(), want) {
		t.Error("parts do not add up to the record")
	}
}

func TestCompressedOutput(t *testing.T) {
	for codec, open := range map[string]func(io.Reader) (io.Reader, error){
		"gzip": func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
		"zstd": func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) },
	} {
		for _, count := range []int{0, 1, 100_000} {
			f := &fakeUploads{}
			o, err := newOutput(t.Context(), f, &api.Output{Compress: codec})
			if err != nil {
				t.Fatal(err)
			}
			var want bytes.Buffer
			for i := range count {
				fmt.Fprintf(&want, "%d\tx\n", i)
				if err := o.write(fmt.Append(nil, i), []byte("x")); err != nil {
					t.Fatal(err)
				}
			}
			if err := o.close(); err != nil {
				t.Fatal(err)
			}
			r, err := open(bytes.NewReader(f.all()))
			if err != nil {
				t.Fatalf("%s of %d records: %v", codec, count, err)
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want.Bytes()) {
				t.Errorf("%s of %d records: %d bytes, %v; want %d", codec, count, len(got), err, want.Len())
			}
		}
	}
	for _, o := range []*api.Output{{Compress: "rar"}, {Format: "parquet"}, nil} {
		if _, err := newOutput(t.Context(), &fakeUploads{}, o); err == nil {
			t.Errorf("output %v is accepted", o)
		}
	}
}

func TestAFailedPartFailsTheOutput(t *testing.T) {
	for fail := 1; fail <= 5; fail++ {
		f := &fakeUploads{fail: fail}
		o, _ := newOutput(t.Context(), f, &api.Output{Bucket: "b", Key: "k"})
		value := bytes.Repeat([]byte("x"), 1<<20)
		var err error
		for i := 0; i < 38 && err == nil; i++ {
			err = o.write(nil, value)
		}
		if err == nil {
			err = o.close()
		}
		if !errors.Is(err, errStore) || !strings.Contains(err.Error(), fmt.Sprintf("part %d of s3://b/k", fail)) {
			t.Errorf("part %d fails: %v", fail, err)
		}
		o.abort()
	}
}

func TestPartsOutlastAnOutage(t *testing.T) {
	for name, test := range map[string]struct {
		away time.Duration
		ok   bool
	}{"a while": {2 * time.Minute, true}, "for good": {time.Hour, false}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := objectstore.NewMemory()
				if err := m.MakeBucket(t.Context(), "bucket"); err != nil {
					t.Fatal(err)
				}
				id, err := m.CreateUpload(t.Context(), "bucket", "k", nil)
				if err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				m.Fault = func(string, string, string) error {
					if time.Since(start) < test.away {
						return fmt.Errorf("503: %w", objectstore.ErrUnreachable)
					}
					return nil
				}
				o, _ := newOutput(t.Context(), objectstore.Retrying(m, objectstore.Attempts(nil, nil)), &api.Output{Bucket: "bucket", Key: "k", UploadId: id})
				value := bytes.Repeat([]byte("x"), 1<<20)
				for i := 0; i < 38 && err == nil; i++ { // more than may be in flight
					err = o.write(nil, value)
				}
				if err == nil {
					err = o.close()
				}
				o.abort()
				if took := time.Since(start); took > min(test.away, 3*time.Minute)+5*time.Second {
					t.Errorf("it took %v", took)
				}
				if test.ok != (err == nil) || err != nil && !errors.Is(err, objectstore.ErrUnreachable) {
					t.Fatal(err)
				}
				if parts, err := m.ListParts(t.Context(), "bucket", "k", id); test.ok && (err != nil || len(parts) != o.parts.count()) {
					t.Errorf("%d parts, %v; want %d", len(parts), err, o.parts.count())
				}
			})
		})
	}
}

func TestAnAttemptFailsOfAStoreThatStaysAwayByTheStoresName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := objectstore.NewMemory()
		m.Fault = func(string, string, string) error { return objectstore.ErrUnreachable }
		p, err := testProgram(&api.Program{})
		if err != nil {
			t.Fatal(err)
		}
		r := Run(t.Context(), Config{Store: m, Program: p, Lease: &api.ChildLease{
			Attempt: "a", Kind: api.TaskKind_TASK_KIND_MAP, Partitions: 1, WorkDir: t.TempDir(), Store: &api.ObjectStore{Endpoint: "http://store:9000"},
			Split: &api.Split{Pieces: []*api.Piece{{Bucket: "b", Key: "k", Length: 3, ObjectSize: 3}}}}})
		f := r.Failure
		if f.GetKind() != api.FailureKind_FAILURE_KIND_RESOURCE || !strings.Contains(f.Message, "object store http://store:9000") || f.Input != "s3://b/k" {
			t.Errorf("failure %v", f)
		}
	})
}

func TestWritingAllocatesNothingPerRecord(t *testing.T) {
	o, _ := newOutput(t.Context(), &fakeUploads{}, &api.Output{})
	defer o.abort()
	o.parts.buf = make([]byte, 0, 1<<20)
	key, value := []byte("key"), []byte("value")
	if n := testing.AllocsPerRun(1000, func() { _ = o.write(key, value) }); n != 0 {
		t.Errorf("%v allocations per record", n)
	}
}

// A file is written in order, one part on its way while the next is filled, and sealed when all of it is there.
func TestOutputInABlockStore(t *testing.T) {
	files := objectstoretest.NewFiles()
	ctx := t.Context()
	id, err := files.CreateUpload(ctx, "hdfs://j-1", "out/part-r-00000", map[string]string{"millrace-job": "s-1"})
	if err != nil {
		t.Fatal(err)
	}
	o, err := newOutput(ctx, files, &api.Output{Bucket: "hdfs://j-1", Key: "out/part-r-00000", UploadId: id})
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for i := range 5 {
		key := strings.Repeat(fmt.Sprint(i), firstPart*2/3)
		want.WriteString(key + "\n")
		if err := o.write([]byte(key), nil); err != nil {
			t.Fatal(err)
		}
	}
	if files.Hidden("s-1")[0].Sealed {
		t.Error("it is sealed while it is written")
	}
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
	h := files.Hidden("s-1")[0]
	if !h.Sealed || string(h.Data) != want.String() {
		t.Errorf("sealed: %v; %d bytes, want %d", h.Sealed, len(h.Data), want.Len())
	}
	if h.Parts != o.parts.count() || o.parts.bytes != int64(len(h.Data)) {
		t.Errorf("it reports %d parts of %d bytes, there are %d of %d", o.parts.count(), o.parts.bytes, h.Parts, len(h.Data))
	}
}

func TestEmptyOutputInABlockStore(t *testing.T) {
	files := objectstoretest.NewFiles()
	id, _ := files.CreateUpload(t.Context(), "hdfs://j-1", "k", map[string]string{"millrace-job": "s-1"})
	o, err := newOutput(t.Context(), files, &api.Output{Bucket: "hdfs://j-1", Key: "k", UploadId: id})
	if err = errors.Join(err, o.close()); err != nil {
		t.Fatal(err)
	}
	if h := files.Hidden("s-1")[0]; !h.Sealed || len(h.Data) != 0 {
		t.Errorf("%+v", h)
	}
}

// An attempt that is given up, or whose last part has failed, seals nothing.
func TestNothingIsSealedAfterAnError(t *testing.T) {
	files := objectstoretest.NewFiles()
	id, _ := files.CreateUpload(t.Context(), "hdfs://j-1", "k", map[string]string{"millrace-job": "s-1"})
	ctx, cancel := context.WithCancelCause(t.Context())
	o, err := newOutput(ctx, files, &api.Output{Bucket: "hdfs://j-1", Key: "k", UploadId: id})
	if err = errors.Join(err, o.write([]byte("k"), nil)); err != nil {
		t.Fatal(err)
	}
	cancel(ErrKilled)
	if err := o.close(); !errors.Is(err, ErrKilled) {
		t.Errorf("%v", err)
	}
	if files.Hidden("s-1")[0].Sealed {
		t.Error("it is sealed")
	}
	if _, err := newOutput(t.Context(), &fakeUploads{}, &api.Output{Bucket: "hdfs://j-1", Key: "k"}); err == nil {
		t.Error("a store that cannot seal is taken")
	}
}
