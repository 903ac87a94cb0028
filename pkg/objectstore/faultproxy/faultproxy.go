// Package faultproxy stands between S3 clients and a store in tests: it names and counts
// every request and does to each what the test says. It passes the Host header on as it came,
// so that signatures stay good, and holds no more of a body than a test asks it to.
package faultproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"
)

// Fault is what happens to a request. The zero value lets it pass.
type Fault struct {
	// Before is waited for before the request is forwarded, After when it has been carried
	// out and its answer is not yet given. An error resets the client's connection.
	Before, After func(context.Context) error

	Status int    // answer this instead of forwarding …
	Code   string // … with this S3 error code …
	Header http.Header

	ResetBefore bool // break the connection, the store hears nothing
	ResetAfter  bool // the store has carried it out, the client hears nothing
	Twice       bool // the store gets it a second time, after the first answer is in

	// Late, if set, breaks the client's connection now and forwards the request when it
	// returns nil: a request that arrives after its sender has given it up. Landed, if set, is
	// called when it has been carried out, or its body has never come whole.
	Late   func() error
	Landed func()

	CutAfter    int64 // > 0: the answer's body breaks off after so many bytes
	StallAfter  int64 // > 0: … stops coming after so many, and its connection stays open
	BytesPerSec int64 // > 0: the answer's body is no faster than that
}

// Proxy forwards S3 requests. It is for tests: Close waits for what is under way.
type Proxy struct {
	URL string // http://127.0.0.1:PORT

	target *url.URL
	hook   func(Request) Fault
	server *http.Server
	client *http.Transport
	wg     sync.WaitGroup

	mu     sync.Mutex
	n      int
	counts map[Op]int
}

// New starts a proxy to a store (http://HOST:PORT). hook is asked about each request, from many
// goroutines at once; nil lets all pass.
func New(target string, hook func(Request) Fault) (*Proxy, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, fmt.Errorf("fault proxy: %w", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("fault proxy: %w", err)
	}
	if hook == nil {
		hook = func(Request) Fault { return Fault{} }
	}
	p := &Proxy{
		URL: "http://" + l.Addr().String(), target: u, hook: hook, counts: map[Op]int{},
		client: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
	}
	p.server = &http.Server{Handler: p, ErrorLog: log.New(io.Discard, "", 0)}
	p.wg.Go(func() { _ = p.server.Serve(l) }) // ends with Close
	return p, nil
}

// Close breaks what is under way and waits for it. Idempotent.
func (p *Proxy) Close() error {
	err := p.server.Close()
	p.wg.Wait()
	p.client.CloseIdleConnections()
	return err
}

// Count is how many requests of these kinds have come; of all kinds if none is named.
func (p *Proxy) Count(ops ...Op) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(ops) == 0 {
		return p.n
	}
	n := 0
	for _, op := range ops {
		n += p.counts[op]
	}
	return n
}

func (p *Proxy) count(r *Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n++
	p.counts[r.Op]++
	r.N = p.n
}

// ServeHTTP carries out one request and its fault.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.wg.Add(1)
	defer p.wg.Done()
	request := parse(r)
	p.count(&request)
	f := p.hook(request)
	if f.Before != nil && f.Before(r.Context()) != nil {
		panic(http.ErrAbortHandler) // net/http's way to break the connection
	}
	switch {
	case f.ResetBefore:
		panic(http.ErrAbortHandler)
	case f.Late != nil:
		p.late(r, f)
		panic(http.ErrAbortHandler)
	case f.Status != 0:
		refuse(w, r, f)
		return
	}
	p.forward(w, r, f)
}

// late keeps the request and forwards it when its time has come.
func (p *Proxy) late(r *http.Request, f Fault) {
	landed := f.Landed
	if landed == nil {
		landed = func() {}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		landed()
		return
	}
	again := r.Clone(context.WithoutCancel(r.Context()))
	p.wg.Go(func() {
		if f.Late() == nil {
			p.send(again, body)
			landed()
		}
	})
}

// send carries out a request whose answer nobody wants.
func (p *Proxy) send(r *http.Request, body []byte) {
	out := r.Clone(r.Context())
	out.RequestURI, out.URL.Scheme, out.URL.Host = "", p.target.Scheme, p.target.Host
	out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	if answer, err := p.client.RoundTrip(out); err == nil {
		_, _ = io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
	}
}

// refuse answers in the store's place, as S3 says no.
func refuse(w http.ResponseWriter, r *http.Request, f Fault) {
	_, _ = io.Copy(io.Discard, r.Body) // the client may still be sending: it should hear the answer
	for name, values := range f.Header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(f.Status)
	if r.Method != http.MethodHead && f.Code != "" {
		fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>fault injected by a test</Message></Error>`, f.Code)
	}
}

var errHeld = errors.New("the answer was held back")

func (p *Proxy) forward(w http.ResponseWriter, r *http.Request, f Fault) {
	var body []byte
	if f.Twice {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	rp := &httputil.ReverseProxy{
		Transport: p.client,
		ErrorLog:  log.New(io.Discard, "", 0),
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.Out.URL.Scheme, pr.Out.URL.Host = p.target.Scheme, p.target.Host
			pr.Out.Host = pr.In.Host // it is signed
		},
		ModifyResponse: func(answer *http.Response) error {
			if f.Twice {
				p.send(r.Clone(context.WithoutCancel(r.Context())), body)
			}
			if f.After != nil && f.After(r.Context()) != nil || f.ResetAfter {
				return errHeld
			}
			if f.CutAfter > 0 || f.BytesPerSec > 0 || f.StallAfter > 0 {
				answer.Body = &badBody{ReadCloser: answer.Body, ctx: r.Context(), f: f}
			}
			return nil
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	rp.ServeHTTP(w, r)
}

// badBody is a body that is slow, or breaks off.
type badBody struct {
	io.ReadCloser
	ctx  context.Context
	f    Fault
	sent int64
}

func (b *badBody) Read(data []byte) (int, error) {
	if b.f.CutAfter > 0 {
		left := b.f.CutAfter - b.sent
		if left <= 0 {
			return 0, errHeld
		}
		data = data[:min(int64(len(data)), left)]
	}
	if b.f.StallAfter > 0 {
		left := b.f.StallAfter - b.sent
		if left <= 0 {
			<-b.ctx.Done()
			return 0, b.ctx.Err()
		}
		data = data[:min(int64(len(data)), left)]
	}
	if rate := b.f.BytesPerSec; rate > 0 {
		data = data[:min(int64(len(data)), max(rate/20, 1))]
		pause := time.NewTimer(time.Second * time.Duration(len(data)) / time.Duration(rate))
		defer pause.Stop()
		select {
		case <-pause.C:
		case <-b.ctx.Done():
			return 0, b.ctx.Err()
		}
	}
	n, err := b.ReadCloser.Read(data)
	b.sent += int64(n)
	return n, err
}
