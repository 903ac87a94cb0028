package input

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"

	"github.com/klauspost/compress/s2"
	"google.golang.org/protobuf/proto"

	"millrace/jobs"
	"millrace/pkg/api"
)

// ErrPlan is wrapped by every error that says a plan's bytes are not what was encoded.
var ErrPlan = errors.New("damaged plan")

// Plan is the immutable plan of a job, as stored in the system prefix.
type Plan struct {
	Splits []*api.Split
	Bytes  int64 // of all pieces
}

// NewPlan makes the plan of the given splits.
func NewPlan(splits []*api.Split) *Plan {
	p := &Plan{Splits: splits}
	for _, s := range splits {
		for _, piece := range s.Pieces {
			p.Bytes += piece.Length
		}
	}
	return p
}

const (
	// planMagic begins a plan and names its version. An s2 block follows: the
	// number of splits, then each split's length and protobuf bytes.
	planMagic = "MILLPLN1"
	// maxPlan bounds the memory that a damaged plan can make us ask for.
	maxPlan = 1 << 30
)

// Encode gives the plan's bytes and their SHA-256 in hex. The same plan gives the same bytes.
func (p *Plan) Encode() (data []byte, digest string, err error) {
	raw := binary.AppendUvarint(nil, uint64(len(p.Splits)))
	marshal := proto.MarshalOptions{Deterministic: true}
	for i, split := range p.Splits {
		raw = binary.AppendUvarint(raw, uint64(marshal.Size(split)))
		if raw, err = marshal.MarshalAppend(raw, split); err != nil {
			return nil, "", fmt.Errorf("encode split %d of the plan: %w", i, err)
		}
	}
	if len(raw) > maxPlan {
		return nil, "", fmt.Errorf("the plan takes %d bytes, more than %d: use bigger splits", len(raw), maxPlan)
	}
	data = append([]byte(planMagic), s2.Encode(nil, raw)...)
	sum := sha256.Sum256(data)
	return data, hex.EncodeToString(sum[:]), nil
}

// Decode checks a plan's bytes against their digest and reads them. Errors are ErrPlan.
func Decode(data []byte, digest string) (*Plan, error) {
	sum := sha256.Sum256(data)
	if have := hex.EncodeToString(sum[:]); have != digest {
		return nil, fmt.Errorf("%w: its SHA-256 is %s, not %s", ErrPlan, have, digest)
	}
	p, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPlan, err)
	}
	return p, nil
}

func decode(data []byte) (*Plan, error) {
	block, ok := bytes.CutPrefix(data, []byte(planMagic))
	if !ok {
		return nil, fmt.Errorf("it does not begin with %s", planMagic)
	}
	size, err := s2.DecodedLen(block)
	if err != nil {
		return nil, err
	}
	if size > maxPlan {
		return nil, fmt.Errorf("it would take %d bytes", size)
	}
	raw, err := s2.Decode(nil, block)
	if err != nil {
		return nil, err
	}
	count, n := binary.Uvarint(raw)
	if n <= 0 || count > uint64(len(raw)) {
		return nil, errors.New("its number of splits is not readable")
	}
	raw = raw[n:]
	splits := make([]*api.Split, 0, count)
	for i := range count {
		length, n := binary.Uvarint(raw)
		if n <= 0 || length > uint64(len(raw)-n) {
			return nil, fmt.Errorf("split %d is cut off", i)
		}
		split := &api.Split{}
		if err := proto.Unmarshal(raw[n:n+int(length)], split); err != nil {
			return nil, fmt.Errorf("split %d: %w", i, err)
		}
		if err := checkSplit(split); err != nil {
			return nil, fmt.Errorf("split %d: %w", i, err)
		}
		splits, raw = append(splits, split), raw[n+int(length):]
	}
	if len(raw) > 0 {
		return nil, fmt.Errorf("%d bytes follow its last split", len(raw))
	}
	return NewPlan(splits), nil
}

// checkSplit refuses what a Reader could not make sense of.
func checkSplit(s *api.Split) error {
	least := int64(1) // bytes of a piece
	if s.GetFormat() == jobs.FormatFiles {
		least = 0
	}
	for i, p := range s.GetPieces() {
		switch {
		case p.GetKey() == "":
			return fmt.Errorf("piece %d names no object", i)
		case least == 0 && (p.Name == "" || !p.Whole):
			return fmt.Errorf("piece %d of %s is to be a file with a name and is not", i, objectURL(p.Bucket, p.Key))
		case p.Offset < 0 || p.Length < least || p.Length > math.MaxInt64-p.Offset || p.Offset+p.Length > p.ObjectSize:
			return fmt.Errorf("piece %d of %s: bytes %d+%d are not within its %d", i, objectURL(p.Bucket, p.Key), p.Offset, p.Length, p.ObjectSize)
		case p.Whole && (p.Offset != 0 || p.Length != p.ObjectSize):
			return fmt.Errorf("piece %d of %s is to be whole and is not", i, objectURL(p.Bucket, p.Key))
		}
	}
	return nil
}
