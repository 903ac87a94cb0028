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

	"millrace/pkg/nodedir"
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

// writeFile replaces a file of the folder, mode 0600, whole or not at all.
func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return nodedir.WriteFile(path, data)
}
