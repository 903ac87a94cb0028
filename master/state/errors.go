package state

import (
	"errors"
	"fmt"
)

// What a caller may decide on.
var (
	ErrNotFound       = errors.New("not found")
	ErrExists         = errors.New("already exists")
	ErrToken          = errors.New("join token refused")
	ErrOutputReserved = errors.New("output is reserved by another job")
	ErrTooLate        = errors.New("too late")
	ErrNotReady       = errors.New("not ready")
	ErrLedger         = errors.New("ledger does not balance")
	ErrProtected      = errors.New("protected from termination")
	ErrInvalid        = errors.New("invalid command")
)

// OutputReservedError names the job that has the output; it is ErrOutputReserved.
type OutputReservedError struct{ Job, Output string }

func (e *OutputReservedError) Error() string {
	return "output " + e.Output + " is reserved by job " + e.Job
}
func (e *OutputReservedError) Unwrap() error { return ErrOutputReserved }

// LedgerError is ErrLedger with both sides.
type LedgerError struct{ Written, Fetched Ledger }

func (e *LedgerError) Error() string {
	return fmt.Sprintf("%v: maps wrote %s, reduces decoded %s", ErrLedger, e.Written, e.Fetched)
}
func (e *LedgerError) Unwrap() error { return ErrLedger }

func (l Ledger) String() string {
	return fmt.Sprintf("%d records of %d bytes (checksum %016x)", l.Records, l.Bytes, l.Checksum)
}
