package objectstore

import "errors"

// Cause is what lies at the bottom of an error, without all that was tried above it: what a store
// said, or why it could not be asked ("connection refused"). "" for no error.
func Cause(err error) string {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) && e.Err != nil {
		err = e.Err
	}
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err.Error()
}
