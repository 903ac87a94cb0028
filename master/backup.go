package master

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"

	"millrace/master/fsm"
	"millrace/master/server"
	"millrace/master/state"
	"millrace/pkg/security"
)

var (
	// ErrBackup says that what was to be restored is no backup, or not a whole one.
	ErrBackup = errors.New("not a backup that can be restored")
	// ErrDamaged is an ErrBackup: it was one.
	ErrDamaged = fmt.Errorf("%w: it is damaged", ErrBackup)
)

// backup is one that was read, and checked by its SHA-256 if it has one.
type backup struct {
	header  server.BackupHeader
	store   *state.Store
	checked bool
}

// CheckBackup says what a backup holds, if it could be restored. It changes nothing.
func CheckBackup(in io.Reader) (*Restored, error) {
	b, err := readBackup(in)
	if err != nil {
		return nil, err
	}
	if _, err := restoredIdentity(b.store.View(), b.header, "checked"); err != nil {
		return nil, err
	}
	return b.restored(), nil
}

func (b *backup) restored() *Restored {
	return &Restored{Site: b.header.Site, CreatedAt: b.header.CreatedAt, Jobs: len(b.store.View().List("")), Checked: b.checked}
}

// readBackup reads a backup to its end. Of one that is damaged that is the error, whatever else is wrong with it then.
func readBackup(from io.Reader) (*backup, error) {
	in := &summedReader{in: bufio.NewReaderSize(from, 64<<10), sum: sha256.New()}
	b := &backup{store: state.New()}
	err := b.read(in)
	checked, sumErr := in.check(b.header.Sum != "")
	b.checked = checked
	if errors.Is(sumErr, ErrDamaged) || err == nil {
		err = sumErr
	}
	return b, err
}

func (b *backup) read(from io.Reader) (err error) {
	in := bufio.NewReaderSize(from, 64<<10)
	if b.header, err = readHeader(in); err != nil {
		return err
	}
	if err := fsm.Restore(b.store, in); err != nil {
		return fmt.Errorf("%w: %w", ErrBackup, err)
	}
	return nil
}

func readHeader(in *bufio.Reader) (h server.BackupHeader, err error) {
	line, err := in.ReadSlice('\n')
	if err == nil {
		err = json.Unmarshal(line, &h)
	}
	switch {
	case err != nil || h.Millrace != "backup":
		return h, fmt.Errorf("%w: it does not begin as one", ErrBackup)
	case h.Version > server.BackupVersion:
		return h, fmt.Errorf("%w: it has form %d, of version %s, and this version reads %d", ErrBackup, h.Version, h.By, server.BackupVersion)
	case len(h.SealKey) != len(security.SealKey{}):
		return h, fmt.Errorf("%w: it holds no key for the site's secrets", ErrBackup)
	}
	return h, nil
}

// endSize is the length of a backup's last line, in bytes.
var endSize = len(server.BackupEnd([sha256.Size]byte{}))

// summedReader reads a backup but for its last line, which has the SHA-256 of the rest, if there is one.
type summedReader struct {
	in  *bufio.Reader // holds more than endSize
	sum hash.Hash     // of what was read
}

func (r *summedReader) Read(p []byte) (int, error) {
	_, err := r.in.Peek(endSize + 1)
	switch {
	case err == nil:
		p = p[:min(len(p), r.in.Buffered()-endSize)]
	case err != io.EOF:
		return 0, err
	case r.atEnd():
		return 0, io.EOF
	}
	n, err := r.in.Read(p)
	r.sum.Write(p[:n])
	return n, err
}

// atEnd says whether what is left begins as the last line does. Nothing that is longer may be left.
func (r *summedReader) atEnd() bool {
	left, _ := r.in.Peek(len(server.BackupEndStart)) // io.EOF: there is less
	return string(left) == server.BackupEndStart
}

// check reads what nobody has read and holds it all against the last line. Without one it says false, unless there is to be one.
func (r *summedReader) check(due bool) (checked bool, err error) {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return false, fmt.Errorf("read a backup: %w", err)
	}
	left, _ := r.in.Peek(endSize) // io.EOF: there is less
	switch want := server.BackupEnd([sha256.Size]byte(r.sum.Sum(nil))); {
	case bytes.Equal(left, []byte(want)):
		return true, nil
	case len(left) == endSize:
		return false, fmt.Errorf("%w: its SHA-256 is not the one that stands at its end", ErrDamaged)
	case due || len(left) > 0:
		return false, fmt.Errorf("%w: its end is missing or changed, where its SHA-256 should stand", ErrDamaged)
	}
	return false, nil
}
