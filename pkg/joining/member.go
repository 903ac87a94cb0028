package joining

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Member is what a node's folder says of it, to who does not own the folder.
type Member struct {
	ID      string   `json:"id"`
	Name    string   `json:"name"`
	Role    string   `json:"role"`
	Site    string   `json:"site"`
	Masters []string `json:"masters"` // https://host:port, as last heard; none of the first master
	CAPEM   []byte   `json:"-"`
}

// Who says which node a folder belongs to; nil: it is nobody's yet. The folder need not be locked, and the node may run.
func Who(dir string) (*Member, error) {
	data, err := os.ReadFile(filepath.Join(dir, "node.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	m := &Member{}
	if err == nil {
		err = json.Unmarshal(data, m)
	}
	if err != nil {
		return nil, fmt.Errorf("node in %s: %w", dir, err)
	}
	for _, name := range []string{"ca.crt", "ca.pem"} { // a worker's, a master's
		if m.CAPEM, err = os.ReadFile(filepath.Join(dir, "pki", name)); err == nil {
			return m, nil
		}
	}
	return nil, fmt.Errorf("node in %s: %w", dir, err)
}

// Left says whether a folder holds what is left of a join that was begun: the id with which it would be repeated.
func Left(dir string) string {
	id, err := os.ReadFile(filepath.Join(dir, "pki", idFile))
	if err != nil {
		return ""
	}
	return string(id)
}
