package datanode

import "millrace/hdfs/wire"

// standing is how a block stands at one member of a pipeline, and at all after it.
type standing struct {
	last     bool  // no member comes after this one
	opened   bool  // the replica here is
	received int64 // bytes
	whole    bool  // nothing more will come
	written  int64
	final    bool // the replica here is
	below    wire.Ack
	fault    *wire.Fault
}

// ack is what the member says of it to the one before. Who holds the others up is said so that nobody else is
// blamed: this one while its disk has something to do, else the next one, or whom that one names.
func (s standing) ack() wire.Ack {
	below := 1 + max(0, s.below.Holder)
	switch {
	case s.fault != nil:
		return wire.Ack{State: wire.Failed, Length: s.written, Holder: -1, Fault: s.fault}
	case !s.opened:
		return wire.Ack{State: wire.Waiting, Holder: 0}
	case !s.last && s.below.State == wire.Waiting:
		return wire.Ack{State: wire.Waiting, Holder: below}
	}
	a := wire.Ack{State: wire.Ready, Length: s.written, Holder: -1}
	if !s.last {
		a.Length = min(a.Length, s.below.Length)
	}
	switch {
	case s.written < s.received || s.whole && !s.final:
		a.Holder = 0
	case !s.last && (s.below.Length < s.written || s.whole && s.below.State != wire.Final):
		a.Holder = below
	case s.whole:
		a.State = wire.Final
	}
	return a
}
