// Package schedule decides which faults strike what, when and for how long: a pure function of a seed. How a fault
// is done is the site's business.
package schedule

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// Kind is a kind of fault.
type Kind string

// The faults of processes and machines.
const (
	Kill      Kind = "kill"      // SIGKILL of the node's process; it is started again at the end
	Crash     Kind = "crash"     // SIGKILL of all that runs on the machine; the node is started again at the end
	Terminate Kind = "terminate" // SIGTERM, as a service manager restarts a node
	Freeze    Kind = "freeze"    // SIGSTOP of the node's process
	Pause     Kind = "pause"     // SIGSTOP of all that runs on the machine

	KillAttempt   Kind = "kill-attempt"   // SIGKILL of one process that a worker has started
	FreezeAttempt Kind = "freeze-attempt" // SIGSTOP of one
)

// The faults of the network.
const (
	Isolate Kind = "isolate" // the machine hears nobody, and nobody hears it
	Cut     Kind = "cut"     // two machines do not hear each other
	OneWay  Kind = "one-way" // the second does not hear the first
	Deaf    Kind = "deaf"    // the machine hears no other, and is heard
	Alone   Kind = "alone"   // the leader and the other masters do not hear each other
	NoStore Kind = "no-store"
	Slow    Kind = "slow-net" // packets of the machine are late
)

// The faults of disks.
const (
	Fill   Kind = "fill"   // the disk is full until the end
	Damage Kind = "damage" // bytes of segments are flipped, segments cut short and removed
	// DamageBlocks spoils replicas of blocks on one node, as long as others have them whole.
	DamageBlocks Kind = "damage-blocks"
	// WipeBlocks removes all blocks of a node, as a disk that is lost, if others have them whole; the node is started again at the end.
	WipeBlocks Kind = "wipe-blocks"
	Inodes     Kind = "inodes" // there is room for bytes, and for no further file
	Wipe       Kind = "wipe"   // a worker's folder, or one in it, is removed while it runs
)

// The faults of the object store.
const (
	StoreSlow    Kind = "store-slow"
	StoreErrors  Kind = "store-errors"
	StoreLost    Kind = "store-lost-answers" // carried out, and nobody hears of it
	StoreLate    Kind = "store-late"         // carried out after the sender has given up
	StoreTwice   Kind = "store-twice"        // carried out twice
	StoreCuts    Kind = "store-cut-bodies"
	StoreHangs   Kind = "store-hangs"
	StoreCommits Kind = "store-slow-commits" // what makes a result visible takes its time
	StoreAway    Kind = "store-away"
	StoreKilled  Kind = "store-killed"
	StoreStopped Kind = "store-frozen"
)

// Leader is the target that is looked up when the fault strikes.
const Leader = "leader"

// Store is the object store as a target.
const Store = "store"

// Fault is one fault: it strikes at At and is healed For later.
type Fault struct {
	N      int           `json:"n"` // from 1
	Kind   Kind          `json:"kind"`
	Target string        `json:"target"`
	Peer   string        `json:"peer,omitempty"` // of Cut and OneWay
	At     time.Duration `json:"atNs"`
	For    time.Duration `json:"forNs"`
	Roll   uint64        `json:"roll"` // what further choices of the fault are made of
}

func (f Fault) String() string {
	s := fmt.Sprintf("%s of %s", f.Kind, f.Target)
	if f.Peer != "" {
		s += " and " + f.Peer
	}
	return fmt.Sprintf("fault %d, at %.1fs for %.1fs: %s", f.N, f.At.Seconds(), f.For.Seconds(), s)
}

// Machines are what can be struck, and how.
type Machines struct {
	Masters, Core, Task []string
	Network             bool // each machine has a network of its own
	Late                bool // … whose packets can be held up
	Disks               bool // each machine has a disk of its own
}

// rule says what a kind of fault strikes and how long it lasts.
type rule struct {
	kind       Kind
	targets    []string
	peers      []string
	least, max time.Duration
	times      int // in a round of all kinds
}

func rules(m Machines) []rule {
	const s = time.Second
	masters := append([]string{Leader}, m.Masters...)
	workers := slices.Concat(m.Core, m.Task)
	all := slices.Concat(masters, workers)
	nodes := slices.Concat(m.Masters, workers)
	store := []string{Store}
	list := []rule{
		{Kill, all, nil, 0, 5 * s, 4}, {Terminate, all, nil, 0, 2 * s, 1}, {Freeze, all, nil, s, 9 * s, 3},
		{Damage, m.Core, nil, 0, 0, 2}, {DamageBlocks, m.Core, nil, 0, 0, 4}, {WipeBlocks, m.Core, nil, 0, 5 * s, 1},
		{Wipe, workers, nil, 0, 0, 1},
		{StoreSlow, store, nil, 2 * s, 6 * s, 1}, {StoreErrors, store, nil, 2 * s, 8 * s, 1}, {StoreLost, store, nil, 2 * s, 8 * s, 1}, {StoreLate, store, nil, 2 * s, 8 * s, 1},
		{StoreTwice, store, nil, 2 * s, 8 * s, 1}, {StoreCuts, store, nil, 2 * s, 8 * s, 1}, {StoreHangs, store, nil, 2 * s, 8 * s, 1}, {StoreCommits, store, nil, 4 * s, 9 * s, 2},
		{StoreAway, store, nil, 2 * s, 8 * s, 1}, {StoreKilled, store, nil, 0, 3 * s, 1}, {StoreStopped, store, nil, s, 6 * s, 1},
	}
	if m.Network {
		list = append(list, rule{Crash, all, nil, 0, 5 * s, 2}, rule{Pause, all, nil, s, 9 * s, 1}, rule{KillAttempt, workers, nil, 0, 0, 2}, rule{FreezeAttempt, workers, nil, s, 9 * s, 1},
			rule{Isolate, all, nil, s, 10 * s, 2}, rule{Cut, nodes, nodes, s, 10 * s, 1}, rule{OneWay, nodes, nodes, s, 10 * s, 2}, rule{Deaf, all, nil, s, 10 * s, 1},
			rule{Alone, []string{Leader}, nil, 2 * s, 10 * s, 2}, rule{NoStore, all, nil, s, 10 * s, 2})
	}
	if m.Late {
		list = append(list, rule{Slow, all, nil, 2 * s, 10 * s, 1})
	}
	if m.Disks {
		list = append(list, rule{Fill, workers, nil, 2 * s, 8 * s, 2}, rule{Fill, masters, nil, 2 * s, 6 * s, 1}, rule{Inodes, workers, nil, 2 * s, 8 * s, 1})
	}
	return list
}

// Plan makes the faults of a time of that length, in the order in which they strike; all are healed when it is over. Each kind
// comes before the next round of all begins; the store, and any one machine, has one fault at a time.
func Plan(seed uint64, length time.Duration, m Machines) []Fault {
	r := rand.New(rand.NewPCG(seed, 0))
	all := rules(m)
	var plan []Fault
	var round []rule
	free := map[string]time.Duration{} // from when on the target may be struck again
	for at := 2 * time.Second; ; at += time.Duration((0.3 + min(r.ExpFloat64(), 3)) * 1.6 * float64(time.Second)) {
		if len(round) == 0 {
			round = shuffled(r, all)
		}
		i := slices.IndexFunc(round, func(k rule) bool { return anyFree(k.targets, free, at) })
		if i < 0 {
			continue
		}
		k := round[i]
		f := Fault{N: len(plan) + 1, Kind: k.kind, At: at.Round(time.Millisecond), Roll: r.Uint64()}
		f.For = (k.least + time.Duration(r.Float64()*float64(k.max-k.least))).Round(time.Millisecond)
		if f.At+f.For > length {
			return plan
		}
		f.Target = pick(r, k.targets, func(name string) bool { return free[name] <= at })
		if k.peers != nil {
			f.Peer = pick(r, k.peers, func(name string) bool { return free[name] <= at && name != f.Target })
			if f.Peer == "" {
				continue
			}
		}
		round = slices.Delete(round, i, i+1)
		free[f.Target] = f.At + f.For
		if f.Peer != "" {
			free[f.Peer] = f.At + f.For
		}
		plan = append(plan, f)
	}
}

// shuffled is a round: each kind as often as it is to come.
func shuffled(r *rand.Rand, all []rule) []rule {
	var round []rule
	for _, k := range all {
		for range k.times {
			round = append(round, k)
		}
	}
	r.Shuffle(len(round), func(i, j int) { round[i], round[j] = round[j], round[i] })
	return round
}

// anyFree says whether one of the names may be struck.
func anyFree(names []string, free map[string]time.Duration, at time.Duration) bool {
	return slices.ContainsFunc(names, func(n string) bool { return free[n] <= at })
}

// pick is one of the names that are free; "" if none is.
func pick(r *rand.Rand, names []string, free func(string) bool) string {
	names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !free(n) })
	if len(names) == 0 {
		return ""
	}
	return names[r.IntN(len(names))]
}
