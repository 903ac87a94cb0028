package shuffle

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"

	"millrace/pkg/record"
	"millrace/pkg/shortage"
)

// Headers of a push.
const (
	headerSize   = "Millrace-Size"   // bytes
	headerDigest = "Millrace-Digest" // record.Index.Digest, decimal
	headerSum    = "Millrace-Crc32c" // trailer, decimal
)

const (
	copyBytes    = 256 << 10
	writeStall   = time.Minute     // a reader that takes nothing for so long is cut off
	idleRequest  = 2 * time.Minute // a request that wants nothing for so long, too
	maxTransfers = 64              // partitions being read at once

	descriptorPatience = 8 * time.Second // less than a fetcher waits for an answer
	descriptorRetry    = 100 * time.Millisecond
)

// Server serves a Store over HTTP. Who may ask is the caller's to decide.
type Server struct {
	store     *Store
	log       *zap.Logger
	transfers chan struct{}
}

// NewServer serves a store.
func NewServer(s *Store, log *zap.Logger) *Server {
	return &Server{store: s, log: log, transfers: make(chan struct{}, maxTransfers)}
}

// Register adds the server's paths.
func (s *Server) Register(mux *http.ServeMux) {
	mux.HandleFunc("POST /v1/shuffle/{job}/{partition}", s.serve)
	mux.HandleFunc("PUT /v1/segments/{job}/{attempt}", s.put)
	mux.HandleFunc("DELETE /v1/segments/{job}/{attempt}", s.drop)
}

func (s *Server) put(w http.ResponseWriter, r *http.Request) {
	job, attempt := r.PathValue("job"), r.PathValue("attempt")
	size, err1 := strconv.ParseInt(r.Header.Get(headerSize), 10, 64)
	digest, err2 := strconv.ParseUint(r.Header.Get(headerDigest), 10, 64)
	if err1 != nil || err2 != nil || size < 0 {
		http.Error(w, "size or digest is missing", http.StatusBadRequest)
		return
	}
	err := s.store.receive(job, attempt, r.Body, size, digest, func() (uint32, error) {
		n, err := strconv.ParseUint(r.Trailer.Get(headerSum), 10, 32)
		return uint32(n), err
	})
	switch {
	case err == nil:
		w.WriteHeader(http.StatusNoContent)
	case errors.Is(err, errRefused):
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
	case shortage.Of(err) == shortage.Disk:
		http.Error(w, err.Error(), http.StatusInsufficientStorage)
	default:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func (s *Server) drop(w http.ResponseWriter, r *http.Request) {
	if err := s.store.Drop(r.PathValue("job"), r.PathValue("attempt")); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// serve answers wants as they come, one after the other.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	partition, err := strconv.Atoi(r.PathValue("partition"))
	if err != nil || partition < 0 {
		http.Error(w, "no such partition", http.StatusBadRequest)
		return
	}
	rc := http.NewResponseController(w)
	if err := rc.EnableFullDuplex(); err != nil {
		http.Error(w, err.Error(), http.StatusHTTPVersionNotSupported)
		return
	}
	w.Header().Set("Content-Type", "application/x-millrace-shuffle")
	w.WriteHeader(http.StatusOK)
	in := bufio.NewReaderSize(r.Body, maxLine)
	err = s.answer(in, w, rc, r.PathValue("job"), partition)
	if err != nil && r.Context().Err() == nil {
		s.log.Debug("a shuffle request broke off", zap.String("job", r.PathValue("job")), zap.String("from", r.RemoteAddr), zap.Error(err))
	}
}

func (s *Server) answer(in *bufio.Reader, w io.Writer, rc *http.ResponseController, job string, partition int) error {
	buf := make([]byte, copyBytes)
	for {
		if in.Buffered() == 0 {
			if err := rc.Flush(); err != nil {
				return err
			}
		}
		if err := rc.SetReadDeadline(time.Now().Add(idleRequest)); err != nil {
			return err
		}
		var q want
		switch err := readLine(in, &q); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := q.validate(); err != nil {
			return err
		}
		if err := s.answerOne(w, rc, job, partition, q, buf); err != nil {
			return err
		}
	}
}

// openPatiently waits a while for a descriptor if there is none.
func (s *Server) openPatiently(job, attempt string, partition int) (*part, error) {
	for late := time.Now().Add(descriptorPatience); ; time.Sleep(descriptorRetry) {
		p, err := s.store.open(job, attempt, partition)
		if shortage.Of(err) != shortage.Descriptors || time.Now().After(late) {
			return p, err
		}
	}
}

// answerOne writes one frame. An error in its midst just ends the response: the
// fetcher comes back for the rest, and is then told.
func (s *Server) answerOne(w io.Writer, rc *http.ResponseController, job string, partition int, q want, buf []byte) error {
	s.transfers <- struct{}{}
	defer func() { <-s.transfers }()
	if err := rc.SetWriteDeadline(time.Now().Add(writeStall)); err != nil {
		return err
	}
	f := frame{Map: q.Map, Attempt: q.Attempt, Offset: q.Offset, Length: q.Offset}
	p, err := s.openPatiently(job, q.Attempt, partition)
	if shortage.Of(err) == shortage.Descriptors {
		return err // not a word about the segment, which may be sound: the fetcher comes back
	}
	if err == nil {
		defer p.Close()
		if q.Offset < 0 || q.Offset > p.Length {
			err = fmt.Errorf("%w: offset %d of %d", errDamaged, q.Offset, p.Length)
		}
	}
	var first int
	if err == nil && q.Offset < p.Length {
		// Before the header is out: a bad disk is said in it.
		first, err = p.ReadAt(buf[:min(int64(len(buf)), p.Length-q.Offset)], p.Offset+q.Offset)
		if err != nil {
			err = fmt.Errorf("%w: segment of %s: %w", errDamaged, q.Attempt, err)
		}
	}
	if err != nil {
		f.Error, f.Offset, f.Length = err.Error(), 0, 0
		return writeLine(w, f)
	}
	f.Length, f.Records, f.Bytes, f.Checksum, f.Digest = p.Length, p.Records, p.Bytes, p.Checksum, p.digest
	if err := writeLine(w, f); err != nil {
		return err
	}
	for at := q.Offset; at < p.Length; {
		if _, err := w.Write(buf[:first]); err != nil {
			return err
		}
		at += int64(first)
		if at == p.Length {
			break
		}
		if err := rc.SetWriteDeadline(time.Now().Add(writeStall)); err != nil {
			return err
		}
		if first, err = p.ReadAt(buf[:min(int64(len(buf)), p.Length-at)], p.Offset+at); err != nil {
			return fmt.Errorf("%w: segment of %s: %w", record.ErrCorrupt, q.Attempt, err)
		}
	}
	return nil
}
