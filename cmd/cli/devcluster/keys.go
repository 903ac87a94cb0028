package devcluster

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Keys are the embedded object store's one account.
type Keys struct {
	AccessKey string `json:"accessKey"`
	SecretKey string `json:"secretKey"`
}

// LoadKeys reads the keys of an embedded object store, or makes them at its first start (file mode 0600).
// MINIO_ROOT_USER and MINIO_ROOT_PASSWORD go first, as people who run MinIO expect.
func LoadKeys(path string, getenv func(string) string) (Keys, error) {
	if k := (Keys{getenv("MINIO_ROOT_USER"), getenv("MINIO_ROOT_PASSWORD")}); k.AccessKey != "" && k.SecretKey != "" {
		return k, nil
	}
	data, err := os.ReadFile(path)
	if err == nil {
		var k Keys
		if err := json.Unmarshal(data, &k); err != nil || k.AccessKey == "" || k.SecretKey == "" {
			return k, fmt.Errorf("%s holds no keys", path)
		}
		return k, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return Keys{}, err
	}
	k := Keys{"millrace" + strings.ToLower(rand.Text()[:8]), rand.Text() + rand.Text()[:14]}
	if data, err = json.MarshalIndent(k, "", "  "); err != nil {
		return k, err
	}
	return k, writeFile(path, append(data, '\n'))
}

// writeFile writes a file of mode 0600 whole: a reader sees the old one or the new one.
func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
