package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"millrace/pkg/api"
	"millrace/pkg/security"
)

// BackupHeader is the first line of a backup, in JSON; a snapshot of the state follows, whose end is marked.
type BackupHeader struct {
	Millrace  string `json:"millrace"` // "backup"
	Version   int    `json:"version"`  // of the form: BackupVersion
	Site      string `json:"site"`
	CreatedAt string `json:"createdAt"` // RFC 3339
	By        string `json:"by"`        // millrace's version
	Term      uint64 `json:"term"`      // the leader's
	SealKey   []byte `json:"sealKey"`   // opens the secrets in the state
}

// BackupVersion is the form of backups that this version writes, and the last one that it reads.
const BackupVersion = 1

const backupChunk = 256 << 10 // bytes

// Backup sends a backup as one view of the state has it: what comes meanwhile is not in it.
func (s *millraceService) Backup(ctx context.Context, _ *connect.Request[api.BackupRequest], stream *connect.ServerStream[api.BackupResponse]) error {
	v, l, err := s.read(ctx)
	if err != nil {
		return err
	}
	caller := callOf(ctx).caller
	if caller.Role != security.RoleUser || caller.ID != Admin {
		return deny(connect.CodePermissionDenied, "a backup holds the site's secrets: it is for the user "+Admin)
	}
	site, ok := v.Site()
	if !ok {
		return errNoLeader
	}
	out := bufio.NewWriterSize(chunks{stream}, backupChunk)
	if err := json.NewEncoder(out).Encode(BackupHeader{
		Millrace: "backup", Version: BackupVersion, Site: site.ID, CreatedAt: s.cfg.Now().UTC().Format("2006-01-02T15:04:05Z07:00"),
		By: s.cfg.Version, Term: l.Term, SealKey: s.cfg.Seal[:],
	}); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if err := v.Persist(out); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	s.log.Info("a backup was taken", zap.String("user", caller.ID))
	return nil
}

// chunks sends what is written as messages.
type chunks struct {
	stream *connect.ServerStream[api.BackupResponse]
}

func (c chunks) Write(data []byte) (int, error) {
	if err := c.stream.Send(&api.BackupResponse{Data: data}); err != nil {
		return 0, err
	}
	return len(data), nil
}
