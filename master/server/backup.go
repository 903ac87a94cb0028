package server

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"millrace/pkg/api"
)

// BackupHeader is the first line of a backup, in JSON. A snapshot of the state follows, whose end is marked, and BackupEnd. Earlier
// versions wrote none, and do not miss or mind it.
type BackupHeader struct {
	Millrace  string `json:"millrace"` // "backup"
	Version   int    `json:"version"`  // of the form: BackupVersion
	Site      string `json:"site"`
	CreatedAt string `json:"createdAt"` // RFC 3339
	By        string `json:"by"`        // millrace's version
	Term      uint64 `json:"term"`      // the leader's
	SealKey   []byte `json:"sealKey"`   // opens the secrets in the state

	Sum string `json:"sum,omitempty"` // BackupSum: the backup ends with BackupEnd
}

// BackupSum is what BackupEnd has over a backup.
const BackupSum = "sha256"

// BackupEndStart is how BackupEnd begins, and nothing else in a backup.
const BackupEndStart = `{"millrace":"backup end",`

// BackupEnd is the last line of a backup: the SHA-256 over all before it. It is of one length.
func BackupEnd(sum [sha256.Size]byte) string {
	return fmt.Sprintf("%s%q:\"%x\"}\n", BackupEndStart, BackupSum, sum)
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
	site, ok := v.Site()
	if !ok {
		return errNoLeader
	}
	out := bufio.NewWriterSize(chunks{stream}, backupChunk)
	sum := sha256.New()
	both := io.MultiWriter(out, sum)
	if err := json.NewEncoder(both).Encode(BackupHeader{
		Millrace: "backup", Version: BackupVersion, Site: site.ID, CreatedAt: s.cfg.Now().UTC().Format("2006-01-02T15:04:05Z07:00"),
		By: s.cfg.Version, Term: l.Term, SealKey: s.cfg.Seal[:], Sum: BackupSum,
	}); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if err := v.Persist(both); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if _, err := out.WriteString(BackupEnd([sha256.Size]byte(sum.Sum(nil)))); err != nil {
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
