package cli

import (
	"bytes"
	"context"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"millrace/pkg/objectstore"
)

// FuzzClean: nothing that is shown to people moves their cursor.
func FuzzClean(f *testing.F) {
	f.Add("a\x1b[31mred\u009b1m")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range clean(s) {
			if r < ' ' || r >= 0x7f && r < 0xa0 {
				t.Fatalf("%q is shown with %q", s, r)
			}
		}
	})
}

// FuzzEachRecord compares with lines and keys cut by the standard library.
func FuzzEachRecord(f *testing.F) {
	f.Add([]byte("a\t1\nb\n\n\tc"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var want, got []keyValue
		for line := range strings.Lines(string(data)) {
			key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
			want = append(want, keyValue{Key: key, Value: value})
		}
		err := eachRecord(iotest.OneByteReader(bytes.NewReader(data)), func(key, value []byte) error {
			got = append(got, keyValue{Key: string(key), Value: string(value)})
			return nil
		})
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("%q is read as %v, want %v, %v", data, got, want, err)
		}
	})
}

// FuzzDecode: no damage to a compressed part panics or hangs.
func FuzzDecode(f *testing.F) {
	f.Add("x.gz", gz("a\t1\n"))
	f.Add("x.zst", zst("a\t1\n"))
	for _, ext := range codecExtensions {
		f.Add("x"+ext, []byte("\x04\x22\x4d\x18"))
	}
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		r, err := decode(name, bytes.NewReader(data))
		if err != nil {
			return
		}
		defer r.Close()
		_, _ = io.Copy(io.Discard, io.LimitReader(r, 1<<20)) // an error is a good answer
	})
}

// FuzzOutputSet: any _SUCCESS is read or refused; what it does not name rightly is never shown.
func FuzzOutputSet(f *testing.F) {
	f.Add([]byte(`{"parts":[{"key":"out/part-r-00000","size":4,"etag":"x"}]}`), 0)
	f.Add([]byte(`{"parts":[{"key":"../x","size":-4}]}`), -1)
	f.Fuzz(func(t *testing.T, success []byte, only int) {
		ctx := context.Background()
		m := objectstore.NewMemory()
		if err := m.MakeBucket(ctx, "data"); err != nil {
			t.Fatal(err)
		}
		for key, text := range map[string]string{"out/_SUCCESS": string(success), "out/part-r-00000": "a\t1\n"} {
			if _, err := m.Put(ctx, "data", key, strings.NewReader(text), int64(len(text)), objectstore.PutOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		_ = readParts(ctx, m, "", "s3://data/out/", only, io.Discard)
	})
}

// FuzzTop compares with sorting everything.
func FuzzTop(f *testing.F) {
	f.Add("a\t1\nb\t3\nc\t2\nd\tx\n", uint8(2))
	f.Add("a\tNaN\nb\t1\nc\tInf\nd\t-0\n", uint8(1))
	f.Fuzz(func(t *testing.T, text string, n uint8) {
		var all []keyValue
		for line := range strings.Lines(text) {
			key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
			if number, err := strconv.ParseFloat(value, 64); err == nil && !math.IsNaN(number) {
				all = append(all, keyValue{key, value, number})
			}
		}
		slices.SortFunc(all, func(a, b keyValue) int {
			switch {
			case better(a, b):
				return -1
			case better(b, a):
				return 1
			}
			return 0
		})
		n = max(n, 1)
		want := all[:min(int(n), len(all))]
		store, parts := onePartSet(t, text)
		got, err := topRecords(context.Background(), store, "data", parts, int(n))
		if err != nil || len(got) != len(want) {
			t.Fatalf("top %d of %q is %v, want %v, %v", n, text, got, want, err)
		}
		for i := range got {
			if got[i].Key != want[i].Key || got[i].number != want[i].number {
				t.Fatalf("top %d of %q is %v, want %v", n, text, got, want)
			}
		}
	})
}

func onePartSet(t *testing.T, text string) (objectstore.Store, []successPart) {
	t.Helper()
	m := objectstore.NewMemory()
	if err := m.MakeBucket(context.Background(), "data"); err != nil {
		t.Fatal(err)
	}
	o, err := m.Put(context.Background(), "data", "part", strings.NewReader(text), int64(len(text)), objectstore.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return m, []successPart{{Key: "part", Size: int64(len(text)), ETag: o.ETag}}
}
