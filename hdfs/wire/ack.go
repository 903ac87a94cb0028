package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"millrace/hdfs"
)

// An acknowledgement's frame, big-endian: magic 2, state 1, member 1, code 1, flags 1, length of the text 2,
// length of the block 8, CRC32C of these and the text 4; then the text.
const (
	ackMagic  = 0x4d41 // "MA"
	ackHeader = 20
	maxText   = 512

	nobody   = 255
	flagLink = 1
)

// State is what a member of a pipeline says of itself and all after it.
type State uint8

// States, in the order in which they come.
const (
	Waiting State = iota // not all are ready yet
	Ready                // all take packets; have written Length
	Final                // all have the whole block for good
	Failed               // somebody cannot go on: see the Fault
)

// Ack is a member's word to the one before it; sent when it has changed, and as a sign of life.
type Ack struct {
	State  State
	Length int64 // bytes of the block that this member and all after it have written
	// Holder is who keeps the others waiting now: hops after the sender, 0 itself; -1 nobody.
	Holder int
	Fault  *Fault // with Failed only
}

// Code is a fault's kind, for a machine.
type Code uint8

// Codes of faults. Those that have an error of package hdfs unwrap to it.
const (
	Internal Code = iota
	Unreachable
	Corrupt
	NoSpace
	Stale
	NoBlock
	Exists
	Busy
	Protocol
	codes // how many there are
)

func (c Code) err() error {
	return [codes]error{Corrupt: hdfs.ErrCorrupt, NoSpace: hdfs.ErrNoSpace, Stale: hdfs.ErrStale, NoBlock: hdfs.ErrNoBlock,
		Exists: hdfs.ErrExist, Busy: hdfs.ErrUnavailable, Protocol: ErrProtocol}[c]
}

// CodeOf finds the code for an error.
func CodeOf(err error) Code {
	for c := range codes {
		if e := c.err(); e != nil && errors.Is(err, e) {
			return c
		}
	}
	return Internal
}

// Fault is why a pipeline broke, and whose fault it was.
type Fault struct {
	Member int  // hops after whoever says or hears it: for who sends it 0 is itself, for who opened the pipeline the first member
	Link   bool // what failed is the way from the one before to Member: either may be to blame
	Code   Code
	Text   string
}

func (f *Fault) Error() string { return f.Text }

// Unwrap gives the error of package hdfs that the code stands for.
func (f *Fault) Unwrap() error { return f.Code.err() }

// Own is a fault of the member that says it.
func Own(err error) *Fault { return &Fault{Code: CodeOf(err), Text: err.Error()} }

// Way is a fault on the way to a member.
func Way(member int, code Code, err error) *Fault {
	return &Fault{Member: member, Link: true, Code: code, Text: err.Error()}
}

// Later is a fault as the one before hears of it.
func (f *Fault) Later() *Fault {
	g := *f
	g.Member++
	return &g
}

// WriteTo sends the frame.
func (a Ack) WriteTo(w io.Writer) (int64, error) {
	b := make([]byte, ackHeader, ackHeader+maxText)
	binary.BigEndian.PutUint16(b, ackMagic)
	b[2], b[3] = byte(a.State), nobody
	if a.Holder >= 0 {
		b[3] = byte(min(a.Holder, MaxNodes))
	}
	if f := a.Fault; f != nil {
		b[3], b[4] = byte(min(f.Member, MaxNodes)), byte(f.Code)
		if f.Link {
			b[5] = flagLink
		}
		text := strings.ToValidUTF8(f.Text[:min(len(f.Text), maxText)], "")
		binary.BigEndian.PutUint16(b[6:], uint16(len(text)))
		b = append(b, text...)
	}
	binary.BigEndian.PutUint64(b[8:], uint64(a.Length))
	binary.BigEndian.PutUint32(b[16:], crc(b[:16])^crc(b[ackHeader:]))
	n, err := w.Write(b)
	return int64(n), err
}

// ReadAck reads one frame.
func ReadAck(r io.Reader) (Ack, error) {
	var b [ackHeader + maxText]byte
	if _, err := io.ReadFull(r, b[:ackHeader]); err != nil {
		return Ack{}, err
	}
	n := int(binary.BigEndian.Uint16(b[6:]))
	if binary.BigEndian.Uint16(b[:]) != ackMagic || n > maxText {
		return Ack{}, fmt.Errorf("%w: this is no acknowledgement", ErrProtocol)
	}
	if _, err := io.ReadFull(r, b[ackHeader:ackHeader+n]); err != nil {
		return Ack{}, unexpected(err)
	}
	a := Ack{State: State(b[2]), Length: int64(binary.BigEndian.Uint64(b[8:])), Holder: int(b[3])}
	code, flags := Code(b[4]), b[5]
	switch {
	case crc(b[:16])^crc(b[ackHeader:ackHeader+n]) != binary.BigEndian.Uint32(b[16:]):
		return Ack{}, fmt.Errorf("%w: an acknowledgement is damaged", ErrProtocol)
	case a.State > Failed || a.Length < 0 || a.Length > hdfs.MaxBlockSize || code >= codes || flags&^flagLink != 0:
		return Ack{}, fmt.Errorf("%w: acknowledgement %d of length %d, code %d", ErrProtocol, a.State, a.Length, code)
	case a.Holder != nobody && a.Holder > MaxNodes, a.State == Failed && a.Holder == nobody:
		return Ack{}, fmt.Errorf("%w: acknowledgement names member %d", ErrProtocol, a.Holder)
	case a.State != Failed && (n > 0 || code != 0 || flags != 0):
		return Ack{}, fmt.Errorf("%w: acknowledgement with a text", ErrProtocol)
	}
	if a.State == Failed {
		a.Fault = &Fault{Member: a.Holder, Link: flags&flagLink != 0, Code: code, Text: string(b[ackHeader : ackHeader+n])}
		a.Holder = nobody
	}
	if a.Holder == nobody {
		a.Holder = -1
	}
	return a, nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
