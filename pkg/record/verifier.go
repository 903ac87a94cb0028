package record

import "hash/crc32"

// Verifier is an io.Writer that checks the frames and CRCs of a partition's
// bytes as they pass, without decoding them. Close says whether they end at the
// partition's end. It keeps no more than a header.
type Verifier struct {
	head      [headerSize]byte
	have      int    // bytes of head
	left      uint32 // bytes of payload still to come
	sum, want uint32
	seq       uint32
	partition int // -1 until the first frame, unless it was given
	ended     bool
	records   int64
	err       error
}

// NewVerifier returns a Verifier, which takes the partition from the first frame.
func NewVerifier() *Verifier { return &Verifier{partition: -1} }

// NewPartitionVerifier returns a Verifier that accepts the given partition only.
func NewPartitionVerifier(partition int) *Verifier { return &Verifier{partition: partition} }

// Write checks p; after damage it returns an error that wraps ErrCorrupt, and so does every later call.
func (v *Verifier) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 && v.err == nil {
		if v.left == 0 {
			k := copy(v.head[v.have:], p)
			v.have, p = v.have+k, p[k:]
			if v.have == headerSize {
				v.err = v.startFrame()
			}
			continue
		}
		k := min(int(v.left), len(p))
		v.sum = crc32.Update(v.sum, castagnoli, p[:k])
		v.left, p = v.left-uint32(k), p[k:]
		if v.left == 0 && v.sum != v.want {
			v.err = corrupt("frame %d of partition %d does not match its checksum", v.seq-1, v.partition)
		}
	}
	return n - len(p), v.err
}

func (v *Verifier) startFrame() error {
	h, err := parseHeader(v.head[:])
	if err != nil {
		return err
	}
	if v.partition < 0 {
		v.partition = int(h.partition)
	}
	if err := h.follows(v.partition, v.seq, v.ended); err != nil {
		return err
	}
	v.sum, v.want, v.left = crc32.Checksum(v.head[4:], castagnoli), h.crc, h.stored
	v.records += int64(h.records)
	v.ended = h.last
	v.have = 0
	v.seq++
	return nil
}

// Close says whether what passed was a whole partition. No bytes are an empty one: compare Records.
func (v *Verifier) Close() error {
	switch {
	case v.err != nil:
		return v.err
	case v.have > 0 || v.left > 0:
		return corrupt("frame %d of partition %d is truncated", v.seq, v.partition)
	case v.seq > 0 && !v.ended:
		return corrupt("partition %d ends after frame %d, which is not its last", v.partition, v.seq-1)
	}
	return nil
}

// Records is how many records the frames that passed hold.
func (v *Verifier) Records() int64 { return v.records }
