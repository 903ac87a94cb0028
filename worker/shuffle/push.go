package shuffle

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	pushStall = 30 * time.Second // without a byte taken or an answer
	maxReason = 512              // of a refusal's text, in bytes
)

// Push sends a segment file to the node at an address (https://host:port), which
// has verified it when this returns nil.
func Push(ctx context.Context, client *http.Client, address, job, attempt, path string, digest uint64) error {
	f, err := openSegment(path)
	if err != nil {
		return fmt.Errorf("push segment: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("push segment: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(pushStall, func() { cancel(errors.New("stalled")) })
	defer stall.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, segmentURL(address, job, attempt), nil)
	if err != nil {
		return fmt.Errorf("push segment: %w", err)
	}
	req.ContentLength = -1 // chunked: the checksum comes after the bytes
	req.Trailer = http.Header{headerSum: nil}
	req.Header.Set(headerSize, strconv.FormatInt(st.Size(), 10))
	req.Header.Set(headerDigest, strconv.FormatUint(digest, 10))
	req.Body = &pushBody{f: f, stall: stall, trailer: req.Trailer}
	resp, err := client.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && ctx.Err() != nil {
			err = cause
		}
		return fmt.Errorf("push segment to %s: %w", address, err)
	}
	defer resp.Body.Close()
	return answered("push segment to "+address, resp)
}

// Discard drops a segment that was pushed and turned out not to be wanted.
func Discard(ctx context.Context, client *http.Client, address, job, attempt string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, segmentURL(address, job, attempt), nil)
	if err != nil {
		return fmt.Errorf("discard segment: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("discard segment: %w", err)
	}
	defer resp.Body.Close()
	return answered("discard segment at "+address, resp)
}

func segmentURL(address, job, attempt string) string {
	return strings.TrimSuffix(address, "/") + "/v1/segments/" + job + "/" + attempt
}

func answered(what string, resp *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxReason))
	if resp.StatusCode/100 == 2 {
		return nil
	}
	refusal := fmt.Errorf("%s: %s: %s", what, resp.Status, strings.TrimSpace(string(text)))
	if resp.StatusCode == http.StatusInsufficientStorage {
		refusal = fmt.Errorf("%w: %w", ErrNoRoom, refusal)
	}
	return errors.Join(refusal, err)
}

// pushBody sums up what passes and leaves the sum in the trailer.
type pushBody struct {
	f       *os.File
	sum     uint32
	stall   *time.Timer
	trailer http.Header
}

func (b *pushBody) Read(p []byte) (int, error) {
	b.stall.Reset(pushStall)
	n, err := b.f.Read(p)
	b.sum = crc32.Update(b.sum, castagnoli(), p[:n])
	if err == io.EOF {
		b.trailer.Set(headerSum, strconv.FormatUint(uint64(b.sum), 10))
	}
	return n, err
}

// Close leaves the file to Push.
func (b *pushBody) Close() error { return nil }
