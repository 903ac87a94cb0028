package files

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"millrace/hdfs"
	"millrace/hdfs/namespace"
)

const (
	// trash is the folder below which what was removed lies: /.trash/TIME/its/path.
	trash     = hdfs.Trash
	trashTime = "2006-01-02T15-04-05.000000Z"
	sweepPage = 1000
)

func inTrash(path string) bool { return path == trash || strings.HasPrefix(path, trash+"/") }

// Discard removes a file, or a folder: an empty one unless recursive. It goes to the trash, and the path under which
// it lies then is the answer; "" if it is gone: with skipTrash, or as it lay in the trash already.
func (f *Files) Discard(ctx context.Context, cluster, path string, recursive, skipTrash bool) (string, error) {
	path, err := hdfs.CleanPath(path)
	if err != nil {
		return "", err
	}
	request := rand.Text()
	if skipTrash || inTrash(path) {
		_, err := f.apply(ctx, namespace.Remove{Cluster: cluster, Path: path, Recursive: recursive, Request: request})
		return "", err
	}
	tree := f.cfg.View().Files(cluster)
	info, err := tree.Stat(path)
	if err != nil {
		return "", err
	}
	if path == "/" {
		return "", &hdfs.PathError{Op: "remove", Path: path, Err: fmt.Errorf("%w: it is the root", hdfs.ErrInvalid)}
	}
	if info.Directory && !recursive {
		if held, err := tree.List(path, "", 1); err != nil || len(held) > 0 {
			return "", &hdfs.PathError{Op: "remove", Path: path, Err: hdfs.ErrNotEmpty}
		}
	}
	now := f.cfg.Now().UTC()
	to := trash + "/" + now.Format(trashTime) + "-" + request[:6] + path
	if _, err := hdfs.CleanPath(to); err != nil {
		return "", &hdfs.PathError{Op: "remove", Path: path, Err: fmt.Errorf("%w: its path would be too long in the trash: remove it for good, with --skip-trash", hdfs.ErrInvalid)}
	}
	_, err = f.apply(ctx, namespace.Rename{Cluster: cluster, From: path, To: to, At: now, Request: request})
	return to, err
}

// sweepTrash empties the trash now and then, until ctx ends.
func (f *Files) sweepTrash(ctx context.Context) {
	tick := time.NewTicker(trashEvery)
	defer tick.Stop()
	for {
		f.emptyTrash(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// emptyTrash deletes for good what has lain in the trash for longer than is kept.
func (f *Files) emptyTrash(ctx context.Context) {
	now := f.cfg.Now()
	for cluster := range f.all() {
		tree := f.cfg.View().Files(cluster)
		for after := ""; ; {
			page, err := tree.List(trash, after, sweepPage)
			if err != nil || len(page) == 0 { // there is no trash
				break
			}
			for _, e := range page {
				after = strings.TrimPrefix(e.Path, trash+"/")
				thrown, err := time.Parse(trashTime, after[:min(len(after), len(trashTime))])
				if err != nil || now.Sub(thrown) < f.cfg.TrashAge {
					continue // not ours, or not yet
				}
				_, err = f.apply(ctx, namespace.Remove{Cluster: cluster, Path: e.Path, Recursive: true})
				if errors.Is(err, hdfs.ErrNotExist) {
					continue // somebody has done it
				}
				if err != nil {
					f.log.Warn("the trash could not be emptied", zap.String("path", e.Path), zap.Error(err))
					return
				}
				f.log.Info("emptied from the trash", zap.String("cluster", cluster), zap.String("path", e.Path))
			}
		}
	}
}
