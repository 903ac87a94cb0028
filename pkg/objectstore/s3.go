package objectstore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// Config says how to reach an S3-compatible store. The zero Region is us-east-1.
type Config struct {
	Endpoint     string // http://host:port or https://…
	Region       string
	AccessKey    string // without a key requests are not signed
	SecretKey    string
	SessionToken string
	CAPEM        string // extra root certificates, PEM

	// Retry is how long and how often the store is asked again.
	Retry Retry
	// Stall bounds the time in which nothing of a body moves, either way. 0 means 20 s.
	Stall time.Duration
	// Waiting, if given, is called once for each request of which nothing has moved for WaitingAfter, by any goroutine; the
	// request does not return before it has.
	Waiting func()
}

// s3Store speaks S3 through minio-go's Core: its Client hides parts, buffers
// and chooses part sizes, all of which belong to our callers.
type s3Store struct {
	core              minio.Core
	tls               bool
	endpoint          string
	region, accessKey string    // for errors
	wantMD5           *sync.Map // names of buckets whose uploads need a Content-MD5
}

const (
	// stallWithin is the usual Stall.
	stallWithin = 20 * time.Second
	// idlePerHost keeps the connections of a busy node open: slots times
	// parallel ranges, and a commit's 64 uploads.
	idlePerHost = 256
	// firstByte bounds the wait for a response's header. A store may put a
	// large upload together before it answers.
	firstByte = 2 * time.Minute
)

// NewS3 returns a Store that speaks S3 with path-style addresses, and repeats requests as
// c.Retry says (Retrying). It starts nothing.
func NewS3(c Config) (Store, error) {
	host, secure, err := endpoint(c.Endpoint)
	if err != nil {
		return nil, err
	}
	transport, err := newTransport(c.CAPEM)
	if err != nil {
		return nil, fmt.Errorf("object store %s: %w", c.Endpoint, err)
	}
	if (c.AccessKey == "") != (c.SecretKey == "") {
		return nil, fmt.Errorf("object store %s: access key and secret key go together, one is missing", c.Endpoint)
	}
	if c.Stall <= 0 {
		c.Stall = stallWithin
	}
	if c.Region == "" {
		c.Region = "us-east-1"
	}
	core, err := minio.NewCore(host, &minio.Options{
		Creds:        credentials.NewStaticV4(c.AccessKey, c.SecretKey, c.SessionToken),
		Secure:       secure,
		Transport:    matching{&watched{base: transport, stall: c.Stall, firstByte: firstByte, waiting: c.Waiting}},
		Region:       c.Region, // given, so that no request asks for it
		BucketLookup: minio.BucketLookupPath,
		MaxRetries:   1, // requests are repeated above, under one budget
	})
	if err != nil {
		return nil, fmt.Errorf("object store %s: %w", c.Endpoint, err)
	}
	return Retrying(&s3Store{core: *core, tls: secure, endpoint: strings.TrimRight(c.Endpoint, "/"), region: c.Region, accessKey: c.AccessKey, wantMD5: &sync.Map{}}, c.Retry), nil
}

func endpoint(s string) (host string, secure bool, err error) {
	if s == "" {
		return "", false, errors.New("no object store endpoint given: want http://HOST:PORT or https://HOST")
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return "", false, fmt.Errorf("object store endpoint %q: %w", s, err)
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return "", false, fmt.Errorf("object store endpoint %q: want http://HOST:PORT or https://HOST", s)
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil:
		return "", false, fmt.Errorf("object store endpoint %q: want a host and port alone, without user, path and query", s)
	}
	return u.Host, u.Scheme == "https", nil
}

func newTransport(caPEM string) (*http.Transport, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if caPEM != "" {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool() // no system roots on this machine: ours alone
		}
		if !pool.AppendCertsFromPEM([]byte(caPEM)) {
			return nil, errors.New("the extra root certificates are not PEM certificates")
		}
		conf.RootCAs = pool
	}
	dialer := &net.Dialer{
		Timeout: 5 * time.Second,
		// A store whose machine died is noticed within 30 s, also in mid-body.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3},
	}
	var http1 http.Protocols
	http1.SetHTTP1(true) // one connection per stream is faster for bulk
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialer.DialContext,
		TLSClientConfig:       conf,
		TLSHandshakeTimeout:   10 * time.Second,
		Protocols:             &http1,
		MaxIdleConns:          2 * idlePerHost,
		MaxIdleConnsPerHost:   idlePerHost,
		IdleConnTimeout:       60 * time.Second,
		ExpectContinueTimeout: time.Second,
		WriteBufferSize:       64 << 10,
		ReadBufferSize:        64 << 10,
		DisableCompression:    true, // bytes as they are stored: sizes and ranges count those
	}, nil
}

func (s *s3Store) ListBuckets(ctx context.Context) ([]Bucket, error) {
	ctx = listen(ctx)
	list, err := s.core.ListBuckets(ctx)
	if err != nil {
		return nil, s.fail(ctx, "list buckets", "", "", err)
	}
	out := make([]Bucket, len(list))
	for i, b := range list {
		out[i] = Bucket{Name: b.Name, CreatedAt: b.CreationDate}
	}
	return out, nil
}

func (s *s3Store) MakeBucket(ctx context.Context, bucket string) error {
	ctx = listen(ctx)
	if reason := badNewBucket(bucket); reason != "" {
		return invalid("make bucket", bucket, "", "the bucket name "+reason)
	}
	return s.fail(ctx, "make bucket", bucket, "", s.core.MakeBucket(ctx, bucket, minio.MakeBucketOptions{}))
}

func (s *s3Store) RemoveBucket(ctx context.Context, bucket string) error {
	ctx = listen(ctx)
	if err := checkBucket("remove bucket", bucket); err != nil {
		return err
	}
	return s.fail(ctx, "remove bucket", bucket, "", s.core.RemoveBucket(ctx, bucket))
}

func (s *s3Store) BucketExists(ctx context.Context, bucket string) (bool, error) {
	ctx = listen(ctx)
	if err := checkBucket("look for bucket", bucket); err != nil {
		return false, err
	}
	ok, err := s.core.BucketExists(ctx, bucket)
	return ok, s.fail(ctx, "look for bucket", bucket, "", err)
}
