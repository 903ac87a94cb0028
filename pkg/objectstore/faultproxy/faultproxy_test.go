package faultproxy_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore/faultproxy"
)

// backend notes what reaches the store.
type backend struct {
	mu   sync.Mutex
	seen []string
	came chan struct{}
}

func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	b.mu.Lock()
	b.seen = append(b.seen, r.Method+" "+r.Host+" "+r.URL.RequestURI()+" "+string(body))
	b.mu.Unlock()
	select {
	case b.came <- struct{}{}:
	default:
	}
	io.WriteString(w, strings.Repeat("x", 1000))
}

func (b *backend) all() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.seen
}

func setUp(t *testing.T, hook func(faultproxy.Request) faultproxy.Fault) (*backend, *faultproxy.Proxy) {
	b := &backend{came: make(chan struct{}, 100)}
	s := httptest.NewServer(b)
	t.Cleanup(s.Close)
	p, err := faultproxy.New(s.URL, hook)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return b, p
}

func do(t *testing.T, method, url, body string) (int, string, error) {
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	r.GetBody = nil // nobody repeats it
	answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(text), err
}

func TestRequestsAreNamed(t *testing.T) {
	var last faultproxy.Request
	_, p := setUp(t, func(r faultproxy.Request) faultproxy.Fault { last = r; return faultproxy.Fault{} })
	for _, c := range []struct {
		method, path string
		want         faultproxy.Op
	}{
		{"GET", "/", faultproxy.ListBuckets}, {"HEAD", "/b/", faultproxy.HeadBucket}, {"PUT", "/b", faultproxy.MakeBucket}, {"DELETE", "/b/", faultproxy.RemoveBucket},
		{"GET", "/b/?list-type=2&prefix=x", faultproxy.List}, {"GET", "/b/?uploads&prefix=x", faultproxy.ListUploads}, {"POST", "/b/?delete", faultproxy.DeleteObjects},
		{"GET", "/b/?location", faultproxy.Other},
		{"HEAD", "/b/k", faultproxy.Head}, {"GET", "/b/k", faultproxy.Get}, {"PUT", "/b/k", faultproxy.Put}, {"DELETE", "/b/k", faultproxy.Delete},
		{"POST", "/b/k?uploads", faultproxy.CreateUpload}, {"PUT", "/b/k?partNumber=3&uploadId=u", faultproxy.UploadPart}, {"GET", "/b/k?uploadId=u", faultproxy.ListParts},
		{"POST", "/b/k?uploadId=u", faultproxy.CompleteUpload}, {"DELETE", "/b/k?uploadId=u", faultproxy.AbortUpload},
	} {
		_, _, err := do(t, c.method, p.URL+c.path, "")
		require.NoError(t, err)
		require.Equal(t, c.want, last.Op, "%s %s", c.method, c.path)
	}
	require.Equal(t, 17, p.Count())
	require.Equal(t, 1, p.Count(faultproxy.UploadPart))
	_, _, err := do(t, "PUT", p.URL+"/buck/a%2Fb%20c//d?partNumber=3&uploadId=u%2B", "")
	require.NoError(t, err)
	require.Equal(t, "buck", last.Bucket)
	require.Equal(t, "a/b c//d", last.Key)
	require.Equal(t, "u+", last.UploadID)
	require.Equal(t, 3, last.Part)
	require.Equal(t, 18, last.N)
	_, _, err = do(t, "GET", p.URL+"/buck/?list-type=2&prefix=a%2Fb", "")
	require.NoError(t, err)
	require.Equal(t, "a/b", last.Prefix)
}

func TestWhatPassesIsNotChanged(t *testing.T) {
	b, p := setUp(t, nil)
	_, text, err := do(t, "PUT", p.URL+"/b/a%2Fb//c%20d?x=%2B", "body")
	require.NoError(t, err)
	require.Len(t, text, 1000)
	require.Equal(t, []string{"PUT " + strings.TrimPrefix(p.URL, "http://") + " /b/a%2Fb//c%20d?x=%2B body"}, b.all(), "the host is the one that was signed")
}

func TestFaults(t *testing.T) {
	failing := func(context.Context) error { return errors.New("no") }
	for name, c := range map[string]struct {
		fault   faultproxy.Fault
		reached int // the store
		status  int // 0: the connection breaks
		length  int
	}{
		"passes":       {faultproxy.Fault{}, 1, 200, 1000},
		"answered":     {faultproxy.Fault{Status: 503, Code: "SlowDown"}, 0, 503, -1},
		"reset before": {faultproxy.Fault{ResetBefore: true}, 0, 0, 0},
		"reset after":  {faultproxy.Fault{ResetAfter: true}, 1, 0, 0},
		"held before":  {faultproxy.Fault{Before: failing}, 0, 0, 0},
		"held after":   {faultproxy.Fault{After: failing}, 1, 0, 0},
		"twice":        {faultproxy.Fault{Twice: true}, 2, 200, 1000},
		"slow":         {faultproxy.Fault{BytesPerSec: 1 << 20}, 1, 200, 1000},
	} {
		t.Run(name, func(t *testing.T) {
			b, p := setUp(t, func(faultproxy.Request) faultproxy.Fault { return c.fault })
			status, text, err := do(t, "PUT", p.URL+"/b/k", "body")
			require.Len(t, b.all(), c.reached)
			if c.status == 0 {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.status, status)
			if c.length >= 0 {
				require.Len(t, text, c.length)
			} else {
				require.Contains(t, text, "<Code>SlowDown</Code>")
			}
		})
	}
}

func TestABodyBreaksOff(t *testing.T) {
	_, p := setUp(t, func(faultproxy.Request) faultproxy.Fault { return faultproxy.Fault{CutAfter: 10} })
	_, text, err := do(t, "GET", p.URL+"/b/k", "")
	require.Error(t, err)
	require.LessOrEqual(t, len(text), 10)
}

// A late request reaches the store after its sender has given it up.
func TestALateRequest(t *testing.T) {
	arrive, landed := make(chan struct{}), make(chan struct{})
	b, p := setUp(t, func(faultproxy.Request) faultproxy.Fault {
		return faultproxy.Fault{Late: func() error { <-arrive; return nil }, Landed: func() { close(landed) }}
	})
	_, _, err := do(t, "PUT", p.URL+"/b/k", "body")
	require.Error(t, err)
	require.Empty(t, b.all())
	close(arrive)
	<-landed
	require.Len(t, b.all(), 1)
	require.Contains(t, b.all()[0], "/b/k body")
}
