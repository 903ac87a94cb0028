package hdfs

import (
	"errors"
	"fmt"
)

// kinds are the names under which errors travel between a master and its clients.
var kinds = []struct {
	name string
	err  error
}{
	{"not-exist", ErrNotExist}, {"exist", ErrExist}, {"is-folder", ErrIsDir}, {"not-folder", ErrNotDir}, {"not-empty", ErrNotEmpty},
	{"busy", ErrBusy}, {"changed", ErrChanged}, {"lease", ErrLease}, {"no-nodes", ErrNoNodes}, {"no-core", ErrNoCore}, {"no-space", ErrNoSpace},
	{"lost", ErrLost}, {"no-replica", ErrNoReplica}, {"corrupt", ErrCorrupt}, {"stale", ErrStale}, {"no-block", ErrNoBlock}, {"unavailable", ErrUnavailable},
	{"invalid", ErrInvalid},
}

// Kind is the name of the sentinel that an error wraps, "" if it is none of this package.
func Kind(err error) string {
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			return k.name
		}
	}
	return ""
}

// OfKind makes an error again of its kind's name and what it said; one of an unknown kind wraps none.
func OfKind(name, said string) error {
	for _, k := range kinds {
		if k.name == name {
			return &toldError{said: said, is: k.err}
		}
	}
	return fmt.Errorf("%s", said)
}

// toldError is an error that another node told of: its words, and what it is.
type toldError struct {
	said string
	is   error
}

func (e *toldError) Error() string { return e.said }
func (e *toldError) Unwrap() error { return e.is }
