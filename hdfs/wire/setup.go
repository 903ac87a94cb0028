package wire

import (
	"encoding/json"
	"fmt"

	"millrace/hdfs"
)

// HeaderSetup carries a Setup.
const HeaderSetup = "Millrace-Setup"

const maxSetup = 64 << 10 // bytes

// Setup opens a pipeline at one of its members.
type Setup struct {
	Block hdfs.BlockID `json:"block"`
	Stamp hdfs.Stamp   `json:"stamp"` // under which it is written
	Limit int64        `json:"limit"` // how many bytes the block may get
	// Recover goes on with a replica that is there; nil makes a new one, in place of any of an older stamp.
	Recover *Recover `json:"recover,omitempty"`
	Nodes   []Next   `json:"nodes,omitempty"` // the members after this one
}

// Recover says how a replica goes on.
type Recover struct {
	From   hdfs.Stamp `json:"from"`   // the block's stamps from this one on are the writer's own
	Length int64      `json:"length"` // what all members had acknowledged: the rest is cut off
}

// Next is a member further down.
type Next struct {
	Node    string `json:"node"`
	Address string `json:"address"` // https://host:port
}

// Nexts gives the members for nodes.
func Nexts(nodes []hdfs.Node) []Next {
	var out []Next
	for _, n := range nodes {
		out = append(out, Next{Node: n.ID, Address: n.Address})
	}
	return out
}

// After is the setup for the first of s.Nodes.
func (s Setup) After() Setup {
	s.Nodes = s.Nodes[1:]
	return s
}

// ParseSetup reads what came in HeaderSetup.
func ParseSetup(header string) (Setup, error) {
	var s Setup
	if len(header) > maxSetup {
		return s, fmt.Errorf("%w: setup of %d bytes", ErrProtocol, len(header))
	}
	if err := json.Unmarshal([]byte(header), &s); err != nil {
		return s, fmt.Errorf("%w: setup: %w", ErrProtocol, err)
	}
	switch r := s.Recover; {
	case s.Block == 0 || s.Stamp == 0:
		return s, fmt.Errorf("%w: setup without block or stamp", ErrProtocol)
	case s.Limit <= 0 || s.Limit > hdfs.MaxBlockSize:
		return s, fmt.Errorf("%w: setup for a block of %d bytes", ErrProtocol, s.Limit)
	case len(s.Nodes) >= MaxNodes:
		return s, fmt.Errorf("%w: setup with %d nodes", ErrProtocol, len(s.Nodes)+1)
	case r != nil && (r.From == 0 || r.From >= s.Stamp || r.Length < 0 || r.Length > s.Limit):
		return s, fmt.Errorf("%w: setup recovers stamp %d at %d of %d bytes under stamp %d", ErrProtocol, r.From, r.Length, s.Limit, s.Stamp)
	}
	return s, nil
}
