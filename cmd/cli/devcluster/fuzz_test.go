package devcluster

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzLayout: a dev.json of any kind is refused, or gives addresses that can be listened on.
func FuzzLayout(f *testing.F) {
	f.Add([]byte(`{"ports":{"master-1":{"https":7070}}}`))
	f.Add([]byte(`{"ports":{"master-1":{"https":-1}},"store":"x"}`))
	f.Add([]byte(`null`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, "dev.json"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := loadLayout(dir)
		if err != nil {
			return
		}
		if address, err := l.address("master-1", "https"); err != nil || address == "" {
			t.Fatalf("%s gives address %q, %v", data, address, err)
		}
	})
}

// FuzzKeys: keys that are read are whole, else it is said.
func FuzzKeys(f *testing.F) {
	f.Add([]byte(`{"accessKey":"a","secretKey":"b"}`))
	f.Add([]byte(`{}`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(dir, "keys.json")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := LoadKeys(path, func(string) string { return "" })
		if err == nil && (k.AccessKey == "" || k.SecretKey == "") {
			t.Fatalf("%q is taken as keys %+v", data, k)
		}
	})
}
