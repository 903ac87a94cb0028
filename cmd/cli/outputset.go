package cli

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"container/heap"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"millrace/pkg/objectstore"
)

// success is the object that makes an output complete: it names the parts.
type success struct {
	Job     string        `json:"job"`
	Cluster string        `json:"cluster"`
	Program string        `json:"program"`
	Parts   []successPart `json:"parts"`
	Records int64         `json:"records"`
}

type successPart struct {
	Key     string `json:"key"`
	Size    int64  `json:"size"`
	ETag    string `json:"etag"`
	Records int64  `json:"records"`
}

// listParts reads _SUCCESS: only what it names is the result, if it is the job's. only < 0 means all parts.
func listParts(ctx context.Context, store objectstore.Store, job, output string, only int) (bucket string, parts []successPart, err error) {
	u, err := objectstore.ParseURL(output)
	if err != nil {
		return "", nil, err
	}
	prefix := u.Key
	if prefix != "" && !strings.HasSuffix(prefix, "/") {
		prefix += "/"
	}
	r, err := store.Get(ctx, u.Bucket, prefix+"_SUCCESS", 0, -1, "")
	if errors.Is(err, objectstore.ErrNotExist) || errors.Is(err, objectstore.ErrNoSuchBucket) {
		if isScratch(u) {
			return "", nil, faultf(exitFailed, "run it again with a place to keep it: s3://BUCKET/PREFIX/ or hdfs:///FOLDER/ instead of -", "the result of job %s went to standard output, and was not kept", job)
		}
		return "", nil, faultf(exitFailed, "run the job again", "%s has no _SUCCESS any more: the result was removed", output)
	}
	if err != nil {
		return "", nil, err
	}
	defer r.Close()
	var s success
	if err := json.NewDecoder(r).Decode(&s); err != nil {
		return "", nil, fmt.Errorf("read %s_SUCCESS: %w", output, err)
	}
	if s.Job != job {
		return "", nil, faultf(exitFailed, "millrace results "+s.Job, "the result of job %s was replaced: %s is that of job %s now", job, output, s.Job)
	}
	if only < 0 {
		return u.Bucket, s.Parts, nil
	}
	if only >= len(s.Parts) {
		return "", nil, faultf(exitNotFound, fmt.Sprintf("--part 0 to --part %d", len(s.Parts)-1), "there is no part %d: the result has %s", only, plural(len(s.Parts), "part"))
	}
	return u.Bucket, s.Parts[only : only+1], nil
}

// readParts writes the decoded result to w.
func readParts(ctx context.Context, store objectstore.Store, job, output string, only int, w io.Writer) error {
	bucket, parts, err := listParts(ctx, store, job, output, only)
	if err != nil {
		return err
	}
	return eachPart(ctx, store, bucket, parts, func(_ successPart, r io.Reader) error {
		_, err := io.Copy(w, r)
		return err
	})
}

// eachPart hands the decoded parts to f in order. A part that is not the one _SUCCESS names is an error.
func eachPart(ctx context.Context, store objectstore.Store, bucket string, parts []successPart, f func(successPart, io.Reader) error) error {
	for _, p := range parts {
		if err := onePart(ctx, store, bucket, p, f); err != nil {
			return err
		}
	}
	return nil
}

func onePart(ctx context.Context, store objectstore.Store, bucket string, p successPart, f func(successPart, io.Reader) error) error {
	if p.Size == 0 {
		return f(p, strings.NewReader(""))
	}
	body, err := store.Get(ctx, bucket, p.Key, 0, -1, p.ETag)
	if errors.Is(err, objectstore.ErrPrecondition) || errors.Is(err, objectstore.ErrNotExist) {
		return faultf(exitFailed, "run the job again", "%s is not what _SUCCESS names any more", objectstore.URL{Bucket: bucket, Key: p.Key})
	}
	if err != nil {
		return err
	}
	defer body.Close()
	r, err := decode(p.Key, body)
	if err != nil {
		return fmt.Errorf("read %s: %w", objectstore.URL{Bucket: bucket, Key: p.Key}, err)
	}
	defer r.Close()
	return f(p, r)
}

// extensions of the codecs that decode knows.
var codecExtensions = []string{".gz", ".zst", ".lz4", ".s2", ".sz", ".snappy", ".bz2"}

// decode reads by the codec that the name's extension says.
func decode(name string, r io.Reader) (io.ReadCloser, error) {
	switch path.Ext(name) {
	case ".gz":
		return gzip.NewReader(r)
	case ".zst":
		z, err := zstd.NewReader(r)
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	case ".lz4":
		return io.NopCloser(lz4.NewReader(r)), nil
	case ".s2", ".sz", ".snappy":
		return io.NopCloser(s2.NewReader(r)), nil
	case ".bz2":
		return io.NopCloser(bzip2.NewReader(r)), nil
	}
	return io.NopCloser(r), nil
}

// decodedName is the name without its codec's extension.
func decodedName(key string) string {
	name := path.Base(key)
	if slices.Contains(codecExtensions, path.Ext(name)) {
		name = strings.TrimSuffix(name, path.Ext(name))
	}
	return name
}

// keyValue is one record of the result. A value is text, as the program wrote it.
type keyValue struct {
	Key    string  `json:"key"`
	Value  string  `json:"value"`
	number float64 // of Value
}

// eachRecord calls f with each line's key and value; both are good until f returns.
func eachRecord(r io.Reader, f func(key, value []byte) error) error {
	b := bufio.NewReaderSize(r, 256<<10)
	var long []byte
	for {
		line, err := b.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			long = append(long, line...)
			continue
		}
		if len(long) > 0 {
			line = append(long, line...)
			long = long[:0]
		}
		if len(line) > 0 {
			key, value, _ := bytes.Cut(bytes.TrimSuffix(line, []byte{'\n'}), []byte{'\t'})
			if err := f(key, value); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// lowest keeps the weakest of the best on top.
type lowest []keyValue

func (h lowest) Len() int           { return len(h) }
func (h lowest) Less(i, j int) bool { return better(h[j], h[i]) }
func (h lowest) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *lowest) Push(x any)        { *h = append(*h, x.(keyValue)) }
func (h *lowest) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// better: the higher value, on ties the key that sorts first.
func better(a, b keyValue) bool {
	if a.number != b.number {
		return a.number > b.number
	}
	return a.Key < b.Key
}

// topRecords finds the n records with the highest values, in bounded memory. A record without a number as value does not count.
func topRecords(ctx context.Context, store objectstore.Store, bucket string, parts []successPart, n int) ([]keyValue, error) {
	h := &lowest{}
	err := eachPart(ctx, store, bucket, parts, func(_ successPart, r io.Reader) error {
		return eachRecord(r, func(key, value []byte) error {
			number, err := strconv.ParseFloat(string(value), 64)
			if err != nil || math.IsNaN(number) || h.Len() == n && number < (*h)[0].number {
				return nil
			}
			heap.Push(h, keyValue{string(key), string(value), number})
			if h.Len() > n {
				heap.Pop(h)
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	top := append([]keyValue{}, *h...)
	slices.SortFunc(top, func(a, b keyValue) int {
		if better(a, b) {
			return -1
		}
		return 1
	})
	return top, nil
}

// jsonRecords writes the result as one JSON array of records, without holding it.
func jsonRecords(ctx context.Context, store objectstore.Store, bucket string, parts []successPart, out io.Writer) error {
	w := bufio.NewWriterSize(out, 64<<10)
	separator := "["
	err := eachPart(ctx, store, bucket, parts, func(_ successPart, r io.Reader) error {
		return eachRecord(r, func(key, value []byte) error {
			data, err := json.Marshal(keyValue{Key: string(key), Value: string(value)})
			if err != nil {
				return err
			}
			w.WriteString(separator)
			separator = ",\n "
			_, err = w.Write(data)
			return err
		})
	})
	if err != nil {
		return err
	}
	if separator == "[" {
		w.WriteString("[")
	}
	w.WriteString("]\n")
	return w.Flush()
}
