package master

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/hashicorp/raft"

	"millrace/master/fsm"
	"millrace/master/state"
	"millrace/pkg/protocol"
)

// readable refuses to begin on what this binary cannot read, or cannot lead on with, before anything of it is applied. Raft itself
// would pass over a snapshot that it cannot restore, to an older one, and over what the two differ in.
func readable(dir string, own protocol.Speaker, logs raft.LogStore, snapshots raft.SnapshotStore) error {
	from, uses, file, err := newestSnapshot(dir, snapshots)
	if err != nil {
		return err
	}
	if err := protocol.Readable(file, uses); err != nil {
		return err
	}
	first, err := logs.FirstIndex()
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	last, err := logs.LastIndex()
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	var entry raft.Log
	for i := max(first, from+1); i <= last && last > 0; i++ {
		if err := logs.GetLog(i, &entry); errors.Is(err, raft.ErrLogNotFound) {
			continue // what a restored snapshot has left out
		} else if err != nil {
			return fmt.Errorf("read log: entry %d: %w", i, err)
		}
		if entry.Type != raft.LogCommand {
			continue
		}
		written := fsm.WrittenIn(entry.Data)
		if err := protocol.Readable(fmt.Sprintf("%s: entry %d", filepath.Join(dir, logFile), i), written); err != nil {
			return err
		}
		uses = max(uses, written)
	}
	if uses == 0 {
		return nil // it is new
	}
	return own.Joins("the site in "+dir, uses)
}

// newestSnapshot is the index up to which the newest snapshot goes, the protocol that it takes to read it, and its file.
func newestSnapshot(dir string, snapshots raft.SnapshotStore) (index uint64, written int, file string, err error) {
	list, err := snapshots.List()
	if err != nil {
		return 0, 0, "", fmt.Errorf("read snapshots in %s: %w", dir, err)
	}
	if len(list) == 0 {
		return 0, 0, "", nil
	}
	file = filepath.Join(dir, "snapshots", list[0].ID, "state.bin")
	_, in, err := snapshots.Open(list[0].ID)
	if err != nil {
		return 0, 0, "", fmt.Errorf("read snapshot %s: %w", file, err)
	}
	written, err = state.SnapshotProtocol(in)
	if err := errors.Join(err, in.Close()); err != nil {
		return 0, 0, "", fmt.Errorf("read snapshot %s: %w", file, err)
	}
	return list[0].Index, written, file, nil
}
