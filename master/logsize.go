package master

import (
	"context"
	"errors"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"
)

// sizedLogs is a log that counts the bytes that come into it, and says when they are many. Raft counts entries alone, and a
// few thousand of those may be a hundred times as long as others: what a restart has to read again would have no bound.
type sizedLogs struct {
	raft.LogStore
	limit int64
	grown int64         // since it was last said; Raft stores from one goroutine
	full  chan struct{} // capacity 1
}

func newSizedLogs(logs raft.LogStore, limit int64) *sizedLogs {
	return &sizedLogs{LogStore: logs, limit: limit, full: make(chan struct{}, 1)}
}

func (s *sizedLogs) StoreLog(entry *raft.Log) error { return s.StoreLogs([]*raft.Log{entry}) }

func (s *sizedLogs) StoreLogs(entries []*raft.Log) error {
	if err := s.LogStore.StoreLogs(entries); err != nil {
		return err
	}
	for _, e := range entries {
		s.grown += int64(len(e.Data) + len(e.Extensions))
	}
	if s.grown < s.limit {
		return nil
	}
	s.grown = 0
	select {
	case s.full <- struct{}{}:
	default: // a snapshot is due already
	}
	return nil
}

// keepShort makes a snapshot whenever the log has grown long, until ctx ends. Raft then drops all of the log but trailingLogs entries.
func (n *raftNode) keepShort(ctx context.Context, log *zap.Logger) {
	for {
		select {
		case <-n.logs.full:
		case <-ctx.Done():
			return
		}
		err := n.Snapshot().Error()
		if err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) && !errors.Is(err, raft.ErrRaftShutdown) {
			log.Warn("the log has grown long, and no snapshot can be made", zap.Error(err)) // it is tried again when it has grown as much again
		}
	}
}
