package shuffle

import (
	"bufio"
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"millrace/pkg/api"
	"millrace/pkg/record"
)

// smallSegment writes a segment of two partitions with a few records each.
func smallSegment(f *testing.F, path string) record.Index {
	f.Helper()
	file, err := os.Create(path)
	if err != nil {
		f.Fatal(err)
	}
	w := record.NewWriter(file, 2, record.S2)
	for p := range 2 {
		for _, word := range []string{"a", "bb", "ccc"} {
			if err := w.Append(p, []byte(word), []byte("value of "+word)); err != nil {
				f.Fatal(err)
			}
		}
	}
	x, err := w.Close()
	if err != nil {
		f.Fatal(err)
	}
	if err := file.Close(); err != nil {
		f.Fatal(err)
	}
	return x
}

// duplex is a response that is written as the request is read.
type duplex struct{ bytes.Buffer }

func (*duplex) Header() http.Header              { return http.Header{} }
func (*duplex) WriteHeader(int)                  {}
func (*duplex) Flush()                           {}
func (*duplex) SetReadDeadline(time.Time) error  { return nil }
func (*duplex) SetWriteDeadline(time.Time) error { return nil }

// FuzzAnswer sends anything as a shuffle request: whatever is answered are frames that
// a fetcher can read, and bytes of the segment alone.
func FuzzAnswer(f *testing.F) {
	s := NewStore(f.TempDir())
	if err := s.Open(); err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(f.TempDir(), "seg")
	x := smallSegment(f, path)
	data, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := s.Adopt(job, attemptOf(3), path); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"map":3,"attempt":"` + attemptOf(3) + `"}` + "\n"))
	f.Add([]byte(`{"map":3,"attempt":"` + attemptOf(3) + `","offset":7}` + "\n" + `{"map":1,"attempt":"../../x"}` + "\n"))
	f.Add([]byte(`{"map":3,"attempt":"` + attemptOf(3) + `","offset":-1}` + "\n"))
	f.Add([]byte(`{"map":-3,"attempt":"` + attemptOf(3) + `"}` + "\n"))
	f.Add([]byte(`{"map":3,"attempt":"` + strings.Repeat("\xde", 1000) + `"}` + "\n")) // grows sixfold in an answer
	f.Fuzz(func(t *testing.T, request []byte) {
		out := &duplex{}
		_ = NewServer(s, zap.NewNop()).answer(bufio.NewReaderSize(bytes.NewReader(request), maxLine), out, http.NewResponseController(out), job, 1)
		r := bufio.NewReaderSize(&out.Buffer, maxLine)
		for {
			h, err := readFrame(r)
			if err == io.EOF {
				return
			}
			if err != nil {
				t.Fatalf("%q is answered with what is no frame: %v", request, err)
			}
			body := make([]byte, h.Length-h.Offset)
			if _, err := io.ReadFull(r, body); err != nil {
				t.Fatalf("%q: a frame of %d bytes is cut short: %v", request, len(body), err)
			}
			if h.Error != "" {
				continue
			}
			from := x.Partitions[1].Offset + h.Offset
			if h.Length != x.Partitions[1].Length || !bytes.Equal(body, data[from:from+int64(len(body))]) {
				t.Fatalf("%q: other bytes than the partition's", request)
			}
		}
	})
}

// FuzzStream has a fetcher read anything as a node's answer: what it takes for a
// segment is the one that was asked for, whole and undamaged.
func FuzzStream(f *testing.F) {
	s := NewStore(f.TempDir())
	if err := s.Open(); err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(f.TempDir(), "seg")
	x := smallSegment(f, path)
	if _, err := s.Adopt(job, attemptOf(3), path); err != nil {
		f.Fatal(err)
	}
	good := &duplex{}
	request := bufio.NewReaderSize(bytes.NewReader([]byte(`{"map":3,"attempt":"`+attemptOf(3)+`"}`+"\n")), maxLine)
	if err := NewServer(s, zap.NewNop()).answer(request, good, http.NewResponseController(good), job, 1); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes())
	f.Add(append(bytes.Clone(good.Bytes()), good.Bytes()...))
	f.Add(good.Bytes()[:good.Len()-1])
	f.Add([]byte(`{"map":3,"attempt":"` + attemptOf(3) + `","error":"missing: it is gone"}` + "\n"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, answer []byte) {
		fetch, err := NewFetcher(FetcherConfig{Job: job, Attempt: job + "-r-00001-1-1", Partition: 1, Maps: 4, Dir: dir, Node: "i-self",
			Store: s, Clients: clients{}, Problem: func(*api.SegmentProblem) {}, Log: zap.NewNop()})
		if err != nil {
			t.Fatal(err)
		}
		sp, err := newSpool(fetch, "i-other")
		if err != nil {
			t.Fatal(err)
		}
		defer sp.close()
		loc := &api.SegmentLocation{Map: 3, Attempt: attemptOf(3), Node: "i-other", Address: "https://other", Digest: x.Digest()}
		st := &stream{s: &source{f: fetch, node: "i-other", spool: sp, news: make(chan struct{}, 1)},
			asked: map[int32]*api.SegmentLocation{3: loc}, all: map[*api.SegmentLocation]bool{loc: true}}
		fetch.Update([]*api.SegmentLocation{loc}, nil)
		_ = st.read(t.Context(), bytes.NewReader(answer))
		if sp.end == 0 {
			return
		}
		if sp.end != x.Partitions[1].Length {
			t.Fatalf("%d bytes are kept of a partition of %d", sp.end, x.Partitions[1].Length)
		}
		want, err := os.ReadFile(s.path(key{job, attemptOf(3)}))
		if err != nil {
			t.Fatal(err)
		}
		kept, err := os.ReadFile(sp.file.Name())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(kept[:sp.end], want[x.Partitions[1].Offset:x.Partitions[1].Offset+x.Partitions[1].Length]) {
			t.Fatal("other bytes are kept than the partition's")
		}
	})
}

// FuzzReceive pushes anything as a segment: what is taken has the size, checksum and digest announced.
func FuzzReceive(f *testing.F) {
	path := filepath.Join(f.TempDir(), "seg")
	x := smallSegment(f, path)
	data, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(attemptOf(3), data, int64(len(data)), x.Digest())
	f.Add(attemptOf(3), data[:len(data)-1], int64(len(data)), x.Digest())
	f.Add("../"+attemptOf(3), data, int64(len(data)), x.Digest())
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, attempt string, body []byte, size int64, digest uint64) {
		s := NewStore(dir)
		if err := s.Open(); err != nil {
			t.Fatal(err)
		}
		if size < 0 { // the server refuses it
			return
		}
		err := s.receive(job, attempt, bytes.NewReader(body), size, digest, func() (uint32, error) { return crc32.Checksum(body, castagnoli()), nil })
		left, globErr := filepath.Glob(filepath.Join(dir, incoming, "*"))
		if globErr != nil || len(left) > 0 {
			t.Fatalf("left behind: %v, %v", left, globErr)
		}
		if err != nil {
			return
		}
		if int64(len(body)) != size {
			t.Fatalf("%d bytes are taken for %d", len(body), size)
		}
		if err := s.Drop(job, attempt); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	})
}

// FuzzMapOf: an id that is taken for a map's attempt can be a file's name, and has the index in it.
func FuzzMapOf(f *testing.F) {
	f.Add(job, attemptOf(3))
	f.Add("..", "..-m-1/../x")
	f.Add(job, job+"-m-99999999999-1-1")
	f.Fuzz(func(t *testing.T, job, attempt string) {
		n, ok := MapOf(job, attempt)
		if ok && (n < 0 || filepath.Base(attempt) != attempt || filepath.Base(job) != job || attempt[0] == '.') {
			t.Fatalf("%q of %q is taken for map %d", attempt, job, n)
		}
	})
}
