package history

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/klauspost/compress/zstd"

	"millrace/master/state"
)

// An object of the history is a stream of JSON lines under zstd: a header, each job and task, and a
// trailer that counts them, so that a cut object is not taken for a whole one. Fields that are not known here are passed over: a record may
// have been written by a newer master.
const version = 1

// errDamaged: the bytes are not what was written.
var errDamaged = errors.New("damaged")

type header struct {
	Millrace string `json:"millrace"` // "history"
	Version  int    `json:"version"`
}

// line holds one of its fields.
type line struct {
	Job  *state.Job  `json:"job,omitempty"`
	Task *state.Task `json:"task,omitempty"`
	End  *trailer    `json:"end,omitempty"`
}

type trailer struct {
	Lines int `json:"lines"`
}

func encode(w io.Writer, lines iter.Seq[line]) error {
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	b := bufio.NewWriterSize(z, 64<<10)
	out := json.NewEncoder(b)
	if err := out.Encode(header{"history", version}); err != nil {
		return err
	}
	count := 0
	for l := range lines {
		if err := out.Encode(l); err != nil {
			return err
		}
		count++
	}
	if err := out.Encode(line{End: &trailer{count}}); err != nil {
		return err
	}
	if err := b.Flush(); err != nil {
		return err
	}
	return z.Close()
}

// decode gives each job and task to each, until that returns false. Whether the stream is whole is known
// only if it was read to its end.
func decode(r io.Reader, each func(line) bool) error {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		return err
	}
	defer z.Close()
	in := json.NewDecoder(z)
	var h header
	if err := in.Decode(&h); err != nil {
		return unreadable(err)
	}
	switch {
	case h.Millrace != "history" || h.Version < 1:
		return fmt.Errorf("%w: this is no object of the history", errDamaged)
	case h.Version > version:
		return fmt.Errorf("it is of version %d, this master reads up to %d", h.Version, version)
	}
	for count := 0; ; count++ {
		var l line
		if err := in.Decode(&l); err != nil {
			return unreadable(err)
		}
		switch {
		case l.End != nil && l.End.Lines != count:
			return fmt.Errorf("%w: %d lines of %d", errDamaged, count, l.End.Lines)
		case l.End != nil:
			return nil
		case l.Job == nil && l.Task == nil:
			return fmt.Errorf("%w: line %d holds neither job nor task", errDamaged, count+1)
		}
		if !each(l) {
			return nil
		}
	}
}

// unreadable tells what is wrong with the bytes from what is wrong with the store, whose errors pass.
func unreadable(err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &syntax), errors.As(err, &kind),
		errors.Is(err, zstd.ErrMagicMismatch), errors.Is(err, zstd.ErrCRCMismatch):
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	return err
}
