package attempt

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// RemoveAll removes an attempt's directory with all that is in it, whatever modes the folders there have been left with. No
// process of the attempt may be alive.
func RemoveAll(dir string) error {
	err := os.RemoveAll(dir)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	// A folder is opened before what is in it is looked at. The top is ours, and links are not followed.
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(path, 0o700) // the second try says what is left
		}
		return nil
	})
	return os.RemoveAll(dir)
}
