package blockstore

import (
	"sync"

	"millrace/hdfs"
)

// keyed is a lock for each block. The zero value is ready.
type keyed struct {
	mu   sync.Mutex
	held map[hdfs.BlockID]*held
}

type held struct {
	mu    sync.Mutex
	users int // holds it or waits
}

// lock gives what unlocks it.
func (k *keyed) lock(id hdfs.BlockID) (unlock func()) {
	k.mu.Lock()
	h := k.held[id]
	if h == nil {
		if k.held == nil {
			k.held = map[hdfs.BlockID]*held{}
		}
		h = &held{}
		k.held[id] = h
	}
	h.users++
	k.mu.Unlock()
	h.mu.Lock()
	return func() {
		h.mu.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if h.users--; h.users == 0 {
			delete(k.held, id)
		}
	}
}
