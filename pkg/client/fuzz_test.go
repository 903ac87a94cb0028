package client

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzReadContext: what is read as a context is written and read again as the same.
func FuzzReadContext(f *testing.F) {
	f.Add([]byte(`{"servers":["https://127.0.0.1:7070"],"cluster":"default","s3":{"endpoint":"http://127.0.0.1:9000"}}`))
	f.Add([]byte(`null`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(dir, "context.json")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := ReadContext(path)
		if err != nil {
			return
		}
		if err := WriteContext(path, c); err != nil {
			t.Fatal(err)
		}
		first, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ReadContext(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := WriteContext(path, again); err != nil {
			t.Fatal(err)
		}
		if second, err := os.ReadFile(path); err != nil || string(second) != string(first) {
			t.Fatalf("%s\nis read again as\n%s\n%v", first, second, err)
		}
	})
}

// FuzzContextName: a name that is accepted stays within the folder of contexts.
func FuzzContextName(f *testing.F) {
	f.Add("dev")
	f.Add("../x")
	f.Fuzz(func(t *testing.T, name string) {
		if checkName(name) == nil && filepath.Dir(contextPath("/home", name)) != "/home/contexts" {
			t.Fatalf("%q lies at %s", name, contextPath("/home", name))
		}
	})
}
