package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"millrace/hdfs"
)

func packet(offset int64, final bool, data []byte) *Packet {
	p := NewPacket()
	p.Reset(offset)
	p.Final = final
	p.Append(data, MaxData)
	p.Seal()
	return p
}

func frame(f io.WriterTo) []byte {
	var b bytes.Buffer
	if _, err := f.WriteTo(&b); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func TestAPacketArrivesAsItWasSent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		final := rapid.Bool().Draw(t, "final")
		n := rapid.IntRange(0, 4).Draw(t, "chunks") * hdfs.ChunkSize
		if final {
			n = rapid.IntRange(0, MaxData).Draw(t, "bytes")
		}
		data := bytes.Repeat([]byte{7, 1, 9}, n/3+1)[:n]
		offset := rapid.Int64Range(0, 1000).Draw(t, "offset") * hdfs.ChunkSize
		got := NewPacket()
		wire := frame(packet(offset, final, data))
		require.NoError(t, ReadPacket(bytes.NewReader(wire), got))
		require.NoError(t, got.Verify())
		require.Equal(t, data, append([]byte{}, got.Data()...))
		require.Equal(t, offset, got.Offset)
		require.Equal(t, offset+int64(n), got.End())
		require.Equal(t, final, got.Final)
		require.Len(t, got.Sums(nil), Chunks(n))
		require.Equal(t, wire, frame(got), "passed on as it came")
	})
}

func TestEveryFlippedBitOfAPacketIsSeen(t *testing.T) {
	wire := frame(packet(hdfs.ChunkSize, true, []byte("some data")))
	for bit := range 8 * len(wire) {
		bad := bytes.Clone(wire)
		bad[bit/8] ^= 1 << (bit % 8)
		p := NewPacket()
		err := ReadPacket(bytes.NewReader(bad), p)
		if err == nil {
			err = p.Verify()
			require.ErrorIs(t, err, hdfs.ErrCorrupt, "bit %d", bit)
		} else {
			require.ErrorIs(t, err, ErrProtocol, "bit %d", bit)
		}
	}
}

func TestATornFrameIsNoEnd(t *testing.T) {
	for _, f := range []io.WriterTo{packet(0, true, []byte("some data")), Ack{State: Failed, Fault: &Fault{Text: "why"}}} {
		wire := frame(f)
		for cut := range wire {
			var err error
			if _, ok := f.(Ack); ok {
				_, err = ReadAck(bytes.NewReader(wire[:cut]))
			} else {
				err = ReadPacket(bytes.NewReader(wire[:cut]), NewPacket())
			}
			if cut == 0 {
				require.ErrorIs(t, err, io.EOF)
			} else {
				require.ErrorIs(t, err, io.ErrUnexpectedEOF, "cut at %d", cut)
			}
		}
	}
}

func TestPacketsThatCannotBe(t *testing.T) {
	for name, p := range map[string]*Packet{
		"half a chunk in mid-block":       packet(0, false, []byte("x")),
		"begins within a chunk":           packet(1, true, []byte("x")),
		"before the block":                packet(-hdfs.ChunkSize, true, nil),
		"behind the longest block":        packet(hdfs.MaxBlockSize+hdfs.ChunkSize, true, nil),
		"a ping with data":                {Ping: true, buf: make([]byte, dataAt+MaxData), n: 5},
		"a ping that would end the block": {Ping: true, Final: true, buf: make([]byte, dataAt+MaxData)},
	} {
		require.ErrorIs(t, ReadPacket(bytes.NewReader(frame(p)), NewPacket()), ErrProtocol, name)
	}
}

func TestAPacketTakesNoMoreThanItsLimit(t *testing.T) {
	p := NewPacket()
	p.Reset(0)
	require.Equal(t, 10, p.Append(make([]byte, 30), 10))
	require.Equal(t, 0, p.Append(make([]byte, 30), 10))
	require.Equal(t, MaxData-10, p.Append(make([]byte, 2*MaxData), 2*MaxData))
	require.ErrorIs(t, p.Fill(make([]byte, hdfs.ChunkSize+1), make([]uint32, 1)), ErrProtocol)
}

func TestStreamSizeIsWhatTheFramesTake(t *testing.T) {
	for _, n := range []int64{0, 1, hdfs.ChunkSize, hdfs.ChunkSize + 1, MaxData - 1, MaxData, MaxData + 1, 3*MaxData + 5} {
		var sum, at int64
		for first := true; first || at < n; first = false {
			size := min(n-at, MaxData)
			sum += int64(len(frame(packet(at, at+size == n, make([]byte, size)))))
			at += size
		}
		require.Equal(t, sum, StreamSize(n), "%d bytes", n)
	}
}

func TestAcknowledgements(t *testing.T) {
	for _, a := range []Ack{
		{State: Waiting, Holder: -1},
		{State: Ready, Length: 5 * hdfs.ChunkSize, Holder: 2},
		{State: Final, Length: hdfs.MaxBlockSize, Holder: -1},
		{State: Failed, Length: 3, Holder: -1, Fault: &Fault{Member: 1, Link: true, Code: Corrupt, Text: "a bit flipped"}},
		{State: Failed, Holder: -1, Fault: &Fault{}},
	} {
		wire := frame(a)
		got, err := ReadAck(bytes.NewReader(wire))
		require.NoError(t, err)
		require.Equal(t, a, got)
		for bit := range 8 * len(wire) {
			bad := bytes.Clone(wire)
			bad[bit/8] ^= 1 << (bit % 8)
			_, err := ReadAck(bytes.NewReader(bad))
			require.Error(t, err, "bit %d of %+v", bit, a)
		}
	}
	long := Ack{State: Failed, Fault: &Fault{Text: strings.Repeat("ä", maxText)}}
	got, err := ReadAck(bytes.NewReader(frame(long)))
	require.NoError(t, err)
	require.Equal(t, strings.Repeat("ä", maxText/2), got.Fault.Text)
}

func TestAFaultSaysWhatItIs(t *testing.T) {
	for _, e := range []error{hdfs.ErrCorrupt, hdfs.ErrNoSpace, hdfs.ErrStale, hdfs.ErrNoBlock, hdfs.ErrExist, hdfs.ErrUnavailable, ErrProtocol} {
		f := Own(fmt.Errorf("block b-1: %w", e))
		require.ErrorIs(t, f, e)
		require.Equal(t, Fault{Member: 1, Code: f.Code, Text: f.Text}, *f.Later())
	}
	f := Way(2, Unreachable, errors.New("refused"))
	require.Equal(t, Fault{Member: 3, Link: true, Code: Unreachable, Text: "refused"}, *f.Later())
	require.Equal(t, 2, f.Member)
	require.Nil(t, errors.Unwrap(f))
}

func TestSetupsThatCannotBe(t *testing.T) {
	good := `{"block":1,"stamp":2,"limit":65536,"recover":{"from":1,"length":65536},"nodes":[{"node":"i-1","address":"https://a:1"}]}`
	s, err := ParseSetup(good)
	require.NoError(t, err)
	require.Equal(t, Setup{Block: 1, Stamp: 2, Limit: 65536, Recover: &Recover{From: 1, Length: 65536}, Nodes: []Next{{"i-1", "https://a:1"}}}, s)
	require.Empty(t, s.After().Nodes)
	for _, bad := range []string{
		"", "{", "[]", `{"block":1}`,
		`{"block":0,"stamp":1,"limit":1}`, `{"block":1,"stamp":1,"limit":0}`, `{"block":1,"stamp":1,"limit":4294967297}`,
		`{"block":1,"stamp":2,"limit":9,"recover":{"from":2,"length":0}}`,
		`{"block":1,"stamp":2,"limit":9,"recover":{"from":1,"length":10}}`,
		`{"block":1,"stamp":2,"limit":9,"recover":{"from":1,"length":-1}}`,
		`{"block":1,"stamp":2,"limit":9,"nodes":[` + strings.Repeat("{},", MaxNodes) + "{}]}",
		good + strings.Repeat(" ", maxSetup),
	} {
		_, err := ParseSetup(bad)
		require.ErrorIs(t, err, ErrProtocol, bad[:min(len(bad), 80)])
	}
}

func FuzzPacket(f *testing.F) {
	f.Add(frame(packet(0, false, make([]byte, hdfs.ChunkSize))))
	f.Add(frame(packet(hdfs.ChunkSize, true, []byte("x"))))
	f.Add(frame(&Packet{Ping: true, buf: make([]byte, dataAt+MaxData)}))
	p := NewPacket()
	f.Fuzz(func(t *testing.T, in []byte) {
		if ReadPacket(bytes.NewReader(in), p) != nil {
			return
		}
		require.LessOrEqual(t, p.Len(), MaxData)
		require.Equal(t, in[:len(frame(p))], frame(p))
		if p.Verify() == nil {
			sums := p.Sums(nil)
			p.Seal()
			require.Equal(t, sums, p.Sums(nil))
		}
	})
}

func FuzzAck(f *testing.F) {
	f.Add(frame(Ack{State: Ready, Length: 3, Holder: 1}))
	f.Add(frame(Ack{State: Failed, Fault: &Fault{Member: 1, Link: true, Code: Busy, Text: "too much to do"}}))
	f.Fuzz(func(t *testing.T, in []byte) {
		a, err := ReadAck(bytes.NewReader(in))
		if err != nil {
			return
		}
		b, err := ReadAck(bytes.NewReader(frame(a)))
		require.NoError(t, err)
		if a.Fault != nil {
			a.Fault.Text, b.Fault.Text = strings.ToValidUTF8(a.Fault.Text, ""), strings.ToValidUTF8(b.Fault.Text, "")
		}
		require.Equal(t, a, b)
	})
}

func FuzzSetup(f *testing.F) {
	f.Add(`{"block":1,"stamp":2,"limit":65536,"recover":{"from":1,"length":65536},"nodes":[{"node":"i-1","address":"https://a:1"}]}`)
	f.Fuzz(func(t *testing.T, in string) {
		s, err := ParseSetup(in)
		if err != nil {
			require.ErrorIs(t, err, ErrProtocol)
			return
		}
		require.LessOrEqual(t, len(s.Nodes), MaxNodes)
	})
}
