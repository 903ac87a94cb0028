package wire

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"millrace/hdfs"
)

// HeaderSize of an answer is the replica's size in bytes.
const HeaderSize = "Millrace-Size"

// Read asks for a piece of a final replica. The answer's packets begin and end at borders of chunks, or at the
// block's end.
type Read struct {
	Block          hdfs.BlockID
	Stamp          hdfs.Stamp
	Offset, Length int64 // in bytes; Length may reach beyond the end
}

// URL is the request's, at a node's address.
func (q Read) URL(address string) string {
	v := url.Values{"stamp": {strconv.FormatUint(uint64(q.Stamp), 10)},
		"offset": {strconv.FormatInt(q.Offset, 10)}, "length": {strconv.FormatInt(q.Length, 10)}}
	return strings.TrimSuffix(address, "/") + BlocksPath + q.Block.String() + "?" + v.Encode()
}

// ParseRead reads what a request asks for: the id from its path, the rest from its query.
func ParseRead(id string, v url.Values) (q Read, err error) {
	hex, ok := strings.CutPrefix(id, "b-")
	n, err := strconv.ParseUint(hex, 16, 64)
	if !ok || err != nil || len(hex) != 16 {
		return q, fmt.Errorf("%w: %.40q is no block", hdfs.ErrInvalid, id)
	}
	stamp, err1 := strconv.ParseUint(v.Get("stamp"), 10, 64)
	offset, err2 := strconv.ParseInt(v.Get("offset"), 10, 64)
	length, err3 := strconv.ParseInt(v.Get("length"), 10, 64)
	if errors.Join(err1, err2, err3) != nil || offset < 0 || length < 0 || offset > hdfs.MaxBlockSize || length > hdfs.MaxBlockSize {
		return q, fmt.Errorf("%w: stamp, offset and length must be whole numbers from 0 on, %d at the most", hdfs.ErrInvalid, int64(hdfs.MaxBlockSize))
	}
	return Read{Block: hdfs.BlockID(n), Stamp: hdfs.Stamp(stamp), Offset: offset, Length: length}, nil
}

// Span rounds the request out to chunks of a block of that size: [first, end) in bytes.
func (q Read) Span(size int64) (first, end int64, err error) {
	if q.Offset > size {
		return 0, 0, fmt.Errorf("%w: offset %d of %s, which has %d bytes", hdfs.ErrInvalid, q.Offset, q.Block, size)
	}
	first = q.Offset - q.Offset%hdfs.ChunkSize
	end = q.Offset + min(q.Length, size-q.Offset)
	return first, min(size, (end+hdfs.ChunkSize-1)/hdfs.ChunkSize*hdfs.ChunkSize), nil
}

// refusals says which status stands for which error.
func refusals() map[int]error {
	return map[int]error{
		http.StatusNotFound: hdfs.ErrNoBlock, http.StatusConflict: hdfs.ErrStale, http.StatusUnprocessableEntity: hdfs.ErrCorrupt,
		http.StatusServiceUnavailable: hdfs.ErrUnavailable, http.StatusBadRequest: hdfs.ErrInvalid,
	}
}

// Refuse answers a read with an error.
func Refuse(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	for s, e := range refusals() {
		if errors.Is(err, e) {
			status = s
		}
	}
	http.Error(w, err.Error(), status)
}

// Refusal is the error that an answer stands for; nil if it is not refused.
func Refusal(resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxReason))
	reason := fmt.Sprintf("%s: %s", resp.Status, strings.TrimSpace(string(text)))
	if err := refusals()[resp.StatusCode]; err != nil {
		return fmt.Errorf("%w (%s)", err, reason)
	}
	return errors.New(reason)
}
