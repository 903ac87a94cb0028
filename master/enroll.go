package master

import (
	"context"
	"errors"
)

// Enroll makes the node somebody, as its first start would, and ends: the first master of a site of its own, or by its token one of a
// site that is there. Run then needs neither store nor token. One that is somebody stays who it is.
func Enroll(ctx context.Context, c Config) (err error) {
	m, err := New(c)
	if err != nil {
		return err
	}
	if m.dir, err = openDirectory(m.cfg.Dir, m.cfg.Version); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.dir.Close()) }()
	_, err = m.dir.identity(ctx, m.cfg)
	return err
}
