// Package wire is how blocks travel between nodes: the frames of the write pipeline and of block reads (packets
// down, acknowledgements up), the request that opens a pipeline, and the connection that carries both ways at
// once. It keeps no block and decides nothing: datanode and client do.
//
// Packets are numbered by their offsets in the block: each begins where the one before ended. An acknowledgement
// counts bytes likewise, and holds for its sender and all members after it.
//
//	GET /v1/pipeline             Upgrade: millrace-block, Millrace-Setup: {"block":…,"nodes":[…]}
//	< 101 Switching Protocols
//	> packet, packet, ping, …, packet (final)
//	< ack (wait), ack (ready), ack (length 262144), …, ack (final)
//
//	GET /v1/blocks/{id}?stamp=7&offset=65536&length=100000
//	< packet, …, packet (final)
package wire

import (
	"errors"
	"hash/crc32"
	"time"

	"millrace/hdfs"
)

const (
	// PipelinePath is where a node takes pipelines. HEAD asks whether it is there at all.
	PipelinePath = "/v1/pipeline"
	// BlocksPath is where a node serves its replicas, each under its id.
	BlocksPath = "/v1/blocks/"

	// MaxData is how many bytes of a block a packet carries at the most.
	MaxData = 256 << 10
	// MaxNodes bounds a pipeline.
	MaxNodes = hdfs.MaxReplication
)

// ErrProtocol says that the far end does not speak as it should.
var ErrProtocol = errors.New("block protocol")

// Timing is how long the ends of a pipeline wait for each other. Zero fields mean the defaults.
type Timing struct {
	Dial  time.Duration // to connect and be let in; default 5 s
	Beat  time.Duration // each end says something at least so often; default 1 s
	Stall time.Duration // without a word from the neighbour it counts as dead; default 10 s
	Slow  time.Duration // alive but without progress, the member that holds things up is given up; default 60 s
}

// WithDefaults fills in what is zero.
func (t Timing) WithDefaults() Timing {
	for d, v := range map[*time.Duration]time.Duration{
		&t.Dial: 5 * time.Second, &t.Beat: time.Second, &t.Stall: 10 * time.Second, &t.Slow: time.Minute} {
		if *d <= 0 {
			*d = v
		}
	}
	return t
}

func crc(data []byte) uint32 { return crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)) }
