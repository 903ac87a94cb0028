package task

import (
	"context"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"millrace/pkg/api"
)

// output formats records as text and sends them up as the parts of one upload.
// Not for concurrent use.
type output struct {
	parts   *parts
	codec   io.WriteCloser // nil: the text goes straight into the part
	text    []byte         // before the codec
	records int64
}

// codecBuffer is how much text goes to the codec at a time.
const codecBuffer = 64 << 10

func newOutput(ctx context.Context, store Uploader, to *api.Output) (*output, error) {
	if to == nil {
		return nil, fmt.Errorf("the lease has no output")
	}
	if to.Format != "" && to.Format != "text" {
		return nil, fmt.Errorf("output format %q is not known", to.Format)
	}
	p, err := newParts(ctx, store, to)
	if err != nil {
		return nil, err
	}
	o := &output{parts: p}
	switch to.Compress {
	case "", "none":
	case "gzip", "gz":
		o.codec = gzip.NewWriter(o.parts)
	case "zstd", "zst":
		w, err := zstd.NewWriter(o.parts, zstd.WithEncoderConcurrency(1))
		if err != nil {
			return nil, fmt.Errorf("start zstd: %w", err)
		}
		o.codec = w
	default:
		return nil, fmt.Errorf("codec %q is not known", to.Compress)
	}
	return o, nil
}

// write adds one line: key TAB value; a nil value gives the key alone, a nil key the value alone.
func (o *output) write(key, value []byte) error {
	o.records++
	if o.codec == nil {
		o.parts.buf = appendLine(o.parts.buf, key, value)
		if len(o.parts.buf) < o.parts.size {
			return nil
		}
		return o.parts.full()
	}
	o.text = appendLine(o.text, key, value)
	if len(o.text) < codecBuffer {
		return nil
	}
	return o.drain()
}

func appendLine(b, key, value []byte) []byte {
	b = append(b, key...)
	if key != nil && value != nil {
		b = append(b, '\t')
	}
	b = append(b, value...)
	return append(b, '\n')
}

func (o *output) drain() error {
	_, err := o.codec.Write(o.text)
	o.text = o.text[:0]
	return err
}

// close ends the stream and waits until all parts are up.
func (o *output) close() error {
	if o.codec != nil {
		if err := o.drain(); err != nil {
			return err
		}
		if err := o.codec.Close(); err != nil {
			return err
		}
	}
	return o.parts.close()
}

// abort stops what is on its way; harmless after close.
func (o *output) abort() { o.parts.abort() }
