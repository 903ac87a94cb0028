package shuffle

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// The shuffle's wire format. The request's body is lines of wants, the response's
// is frames: a line of JSON, then as many bytes as it says. Both go on for as
// long as the reduce has something to fetch.
//
//	POST /v1/shuffle/JOB/PARTITION
//	> {"map":3,"attempt":"…-m-00003-1-1","offset":0}
//	< {"map":3,"attempt":"…-m-00003-1-1","offset":0,"length":812,"records":4,…}
//	< 812 bytes

const maxLine = 4 << 10

// want asks for one map's partition from an offset on.
type want struct {
	Map     int32  `json:"map"`
	Attempt string `json:"attempt"`
	Offset  int64  `json:"offset,omitempty"`
}

// maxAttemptName is in bytes, so that what an answer says of it twice, escaped, fits in a line.
const maxAttemptName = 200

func (q want) validate() error {
	if q.Map < 0 || len(q.Attempt) > maxAttemptName {
		return fmt.Errorf("%w: request for map %d, attempt of %d bytes", errProtocol, q.Map, len(q.Attempt))
	}
	return nil
}

// frame answers a want. The bytes [Offset, Length) of the partition follow, or none if there is an Error.
type frame struct {
	Map      int32  `json:"map"`
	Attempt  string `json:"attempt"`
	Offset   int64  `json:"offset,omitempty"`
	Length   int64  `json:"length"` // of the whole partition
	Records  int64  `json:"records"`
	Bytes    int64  `json:"bytes"`
	Checksum uint64 `json:"checksum"`
	Digest   uint64 `json:"digest"`          // of the whole segment
	Error    string `json:"error,omitempty"` // missing: …, damaged: …
}

var errProtocol = errors.New("shuffle protocol")

func (f frame) validate() error {
	if f.Map < 0 || f.Offset < 0 || f.Length < f.Offset || f.Records < 0 || f.Bytes < 0 {
		return fmt.Errorf("%w: frame %+v", errProtocol, f)
	}
	return nil
}

// writeLine writes v as one line.
func writeLine(w io.Writer, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(data, '\n'))
	return err
}

// readLine reads one line of JSON into v. io.EOF is the end between lines.
func readLine(r *bufio.Reader, v any) error {
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull) || len(line) > maxLine:
		return fmt.Errorf("%w: line of more than %d bytes", errProtocol, maxLine)
	case errors.Is(err, io.EOF) && len(line) > 0:
		return io.ErrUnexpectedEOF
	case err != nil:
		return err
	}
	if err := json.Unmarshal(bytes.TrimSpace(slices.Clone(line)), v); err != nil {
		return fmt.Errorf("%w: %w", errProtocol, err)
	}
	return nil
}

func readFrame(r *bufio.Reader) (f frame, err error) {
	if err := readLine(r, &f); err != nil {
		return f, err
	}
	return f, f.validate()
}
