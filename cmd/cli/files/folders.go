package files

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"millrace/hdfs"
)

// makeFolder makes a folder and those above it, where there are any: an object store has none.
func (f *Files) makeFolder(ctx context.Context, p Place) error {
	switch {
	case p.HDFS():
		return f.Mkdir(ctx, p)
	case p.Remote():
		return nil
	}
	err := os.MkdirAll(p.Path, 0o755)
	if errors.Is(err, syscall.ENOTDIR) {
		return localError(p, err)
	}
	return err
}

// RemoveEmpty removes what is an empty folder of a place and all below it, as a move leaves them behind. Whatever has come to lie there
// stays, with the folders above it.
func (f *Files) RemoveEmpty(ctx context.Context, p Place) error {
	switch {
	case p.HDFS():
		return f.removeEmptyHDFS(ctx, p)
	case p.Remote():
		return nil
	}
	var folders []string
	err := filepath.WalkDir(p.Path, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			folders = append(folders, name)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, name := range slices.Backward(folders) {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (f *Files) removeEmptyHDFS(ctx context.Context, p Place) error {
	c, err := f.cluster(p)
	if err != nil {
		return err
	}
	folders := []string{p.path()}
	for i := 0; i < len(folders); i++ {
		for info, err := range entries(ctx, c, folders[i]) {
			if err != nil {
				return hdfsError(ctx, c, p.at(folders[i]), err)
			}
			if info.Directory && info.Path != hdfs.Trash {
				folders = append(folders, info.Path)
			}
		}
	}
	for _, path := range slices.Backward(folders) {
		if stays(path) != "" {
			continue
		}
		_, err := c.Discard(ctx, path, false, true)
		if err != nil && !errors.Is(err, hdfs.ErrNotEmpty) && !errors.Is(err, hdfs.ErrNotExist) {
			return hdfsError(ctx, c, p.at(path), err)
		}
	}
	return nil
}

// stays says what a path of a block store is that cannot go elsewhere; "" for all others.
func stays(path string) string {
	switch path {
	case "/":
		return "the root"
	case hdfs.Trash:
		return "the trash"
	}
	return ""
}
