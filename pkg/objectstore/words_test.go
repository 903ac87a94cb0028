package objectstore_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
	"millrace/pkg/objectstore/fakes3"
)

// Every mood that asking again cannot mend: what it is, what it says, what mends it; and
// nobody is asked twice.
func TestRefusalsSayWhatMendsThem(t *testing.T) {
	refuse := func(status int, code string) *fakes3.Refusal {
		return &fakes3.Refusal{Status: status, Code: code, Message: code}
	}
	plain := func(status int, text string) *fakes3.Refusal {
		return &fakes3.Refusal{Status: status, Message: text, Plain: true}
	}
	for name, c := range map[string]struct {
		answer     *fakes3.Refusal
		kind       error
		says, next string
		head       bool // a HEAD's answer, which has no body, says as much
	}{
		"region":            {fakes3.WrongRegion("eu-west-1"), objectstore.ErrDenied, "wants region eu-west-1, not us-east-1", "--s3-region eu-west-1", true},
		"region in text":    {&fakes3.Refusal{Status: 400, Code: "AuthorizationHeaderMalformed", Message: "the region 'us-east-1' is wrong; expecting 'ap-south-1'"}, objectstore.ErrDenied, "wants region ap-south-1", "AWS_REGION=ap-south-1", false},
		"region unsaid":     {refuse(400, "InvalidRegion"), objectstore.ErrDenied, "InvalidRegion", "now us-east-1", false},
		"redirect":          {&fakes3.Refusal{Status: 301, Code: "PermanentRedirect", Region: "eu-central-1"}, objectstore.ErrDenied, "wants region eu-central-1", "AWS_REGION=eu-central-1", true},
		"expired":           {refuse(400, "ExpiredToken"), objectstore.ErrDenied, "session token has expired", "AWS_SESSION_TOKEN", false},
		"unknown key":       {refuse(403, "InvalidAccessKeyId"), objectstore.ErrDenied, "does not know the access key KEYID", "AWS_ACCESS_KEY_ID", false},
		"wrong secret":      {refuse(403, "SignatureDoesNotMatch"), objectstore.ErrDenied, "secret key does not belong to the access key KEYID", "AWS_SECRET_ACCESS_KEY", false},
		"clock behind":      {fakes3.Skewed(20 * time.Minute), objectstore.ErrDenied, "ahead of this machine's", "NTP", false},
		"clock ahead":       {fakes3.Skewed(-3 * time.Hour), objectstore.ErrDenied, "behind this machine's", "NTP", false},
		"denied":            {refuse(403, "AccessDenied"), objectstore.ErrDenied, "access denied", "", true},
		"http to https":     {plain(400, "Client sent an HTTP request to an HTTPS server.\n"), objectstore.ErrUnreachable, "it speaks HTTPS, not HTTP", "use https://", false},
		"bucket name":       {refuse(400, "InvalidBucketName"), objectstore.ErrInvalid, "InvalidBucketName", "lower-case", false},
		"key with dots":     {refuse(400, "XMinioInvalidObjectName"), objectstore.ErrInvalid, "s3://bucket/the/key", "another key", false},
		"not an S3 at all":  {plain(404, "404 page not found"), objectstore.ErrNotExist, "", "", true},
		"no such operation": {refuse(501, "NotImplemented"), objectstore.ErrInvalid, "NotImplemented", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			fake := &fakes3.Server{Store: objectstore.NewMemory(), Answer: func(*http.Request) *fakes3.Refusal { return c.answer }}
			s, err := objectstore.NewS3(objectstore.Config{Endpoint: fakes3.Start(t, fake), AccessKey: "KEYID", SecretKey: "secret"})
			require.NoError(t, err)
			check := func(err error) {
				require.ErrorIs(t, err, c.kind)
				require.ErrorContains(t, err, c.says)
				require.Contains(t, objectstore.Advice(err), c.next)
				if c.next == "" {
					require.Empty(t, objectstore.Advice(err))
				}
				var e *objectstore.Error
				require.ErrorAs(t, err, &e)
				require.NotEmpty(t, e.Endpoint)
			}
			_, err = s.Get(t.Context(), "bucket", "the/key", 0, -1, "")
			check(err)
			_, err = s.UploadPart(t.Context(), "bucket", "the/key", "id", 1, []byte("x"))
			check(err)
			require.EqualValues(t, 2, fake.Requests(), "nobody is asked twice")
			if c.head {
				_, err = s.Head(t.Context(), "bucket", "the/key")
				check(err)
			}
		})
	}
}

func TestConnectionsSayWhatMendsThem(t *testing.T) {
	handler := http.NotFoundHandler()
	quiet := func(s *httptest.Server, secure bool) *httptest.Server {
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		if secure {
			s.StartTLS()
		} else {
			s.Start()
		}
		t.Cleanup(s.Close)
		return s
	}
	secure, plain := quiet(httptest.NewUnstartedServer(handler), true), quiet(httptest.NewUnstartedServer(handler), false)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}))
	old := httptest.NewUnstartedServer(handler)
	cert, oldCA := expired(t)
	old.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	quiet(old, true)
	port := func(u string) string { return u[strings.LastIndexByte(u, ':'):] }

	for name, c := range map[string]struct{ endpoint, ca, says, next string }{
		"unknown authority": {secure.URL, "", "authority that this machine does not know", "AWS_CA_BUNDLE=FILE or --s3-ca FILE"},
		"another name":      {"https://localhost" + port(secure.URL), ca, "localhost", "use a name in the URL"},
		"expired":           {old.URL, oldCA, "expired", "renew the store's certificate"},
		"https to http":     {"https://127.0.0.1" + port(plain.URL), "", "it speaks HTTP, not HTTPS", "use http://127.0.0.1"},
		"http to https":     {"http://127.0.0.1" + port(secure.URL), "", "it speaks HTTPS, not HTTP", "use https://127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := objectstore.NewS3(objectstore.Config{Endpoint: c.endpoint, AccessKey: "k", SecretKey: "s", CAPEM: c.ca,
				Retry: objectstore.Retry{Patience: time.Hour}}) // which is not used
			require.NoError(t, err)
			_, err = s.Get(t.Context(), "bucket", "key", 0, -1, "")
			require.ErrorIs(t, err, objectstore.ErrUnreachable)
			require.ErrorContains(t, err, c.says)
			require.Contains(t, objectstore.Advice(err), c.next)
		})
	}
}

// expired is a certificate for 127.0.0.1 whose time is over.
func expired(t *testing.T) (tls.Certificate, string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// What a store asks for with Retry-After is waited for.
func TestRetryAfter(t *testing.T) {
	var asked atomic.Int64
	fake := &fakes3.Server{Store: objectstore.NewMemory(), Answer: func(*http.Request) *fakes3.Refusal {
		if asked.Add(1) == 1 {
			return &fakes3.Refusal{Status: 503, Code: "SlowDown", Header: http.Header{"Retry-After": {"1"}}}
		}
		return nil
	}}
	var tally objectstore.Tally
	s, err := objectstore.NewS3(objectstore.Config{Endpoint: fakes3.Start(t, fake), Retry: objectstore.Retry{Patience: time.Minute, Tally: &tally}})
	require.NoError(t, err)
	start := time.Now()
	require.NoError(t, s.MakeBucket(t.Context(), "bucket"))
	require.GreaterOrEqual(t, time.Since(start), time.Second)
	require.EqualValues(t, 1, tally.Count())
	require.Equal(t, "503 SlowDown", tally.Last())
}

// A store that is there and does nothing is noticed, in either direction, and what it
// sent is not asked for again.
func TestStalls(t *testing.T) {
	text := strings.Repeat("0123456789", 100_000)
	var asked atomic.Int64
	over := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		first := asked.Add(1) == 1
		w.Header().Set("ETag", `"e"`)
		if r.Method == http.MethodPut {
			if first {
				<-over // takes nothing
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			return
		}
		http.ServeContent(&stalling{ResponseWriter: w, r: r, stall: first}, r, "o", time.Unix(1, 0), strings.NewReader(text))
	}))
	defer server.Close()
	defer close(over)
	var tally objectstore.Tally
	s, err := objectstore.NewS3(objectstore.Config{Endpoint: server.URL, Stall: 300 * time.Millisecond, Retry: objectstore.Attempts(nil, &tally)})
	require.NoError(t, err)
	rc, err := s.Get(t.Context(), "bucket", "o", 0, -1, "")
	require.NoError(t, err)
	data, err := io.ReadAll(rc)
	require.NoError(t, err)
	require.NoError(t, rc.Close())
	require.True(t, text == string(data))
	require.GreaterOrEqual(t, tally.Count(), int64(1))
	require.Equal(t, "no progress", tally.Last())
	before := tally.Count()

	asked.Store(0)
	big := make([]byte, 48<<20) // more than lies in the connection's buffers
	_, err = s.UploadPart(t.Context(), "bucket", "o", "id", 1, big)
	require.NoError(t, err)
	require.Greater(t, tally.Count(), before)
}

// stalling sends half of a body and then nothing.
type stalling struct {
	http.ResponseWriter
	r     *http.Request
	stall bool
	sent  int
}

func (s *stalling) Write(p []byte) (int, error) {
	if s.stall && s.sent > 400_000 {
		<-s.r.Context().Done()
		return 0, s.r.Context().Err()
	}
	s.sent += len(p)
	n, err := s.ResponseWriter.Write(p)
	s.ResponseWriter.(http.Flusher).Flush()
	return n, err
}
