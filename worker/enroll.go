package worker

import (
	"context"
	"errors"
)

// Enroll joins the site, as the node's first start would, and ends: Run then needs no token. One that has joined stays what it is.
func Enroll(ctx context.Context, c Config) (err error) {
	w, err := New(c)
	if err != nil {
		return err
	}
	if w.dir, err = openDirectory(c.Dir, c.Version); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.dir.Close()) }()
	_, err = w.identify(ctx)
	return err
}
