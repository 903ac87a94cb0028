package main

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// pkg is what `go list -json` says of one package of the module.
type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

// TestHouse holds the borders of the house (docs/design.md): which packages may
// import which, and where the fenced libraries may be used.
func TestHouse(t *testing.T) {
	all := listPackages(t)

	t.Run("arrows go down", func(t *testing.T) {
		rules := []struct{ from, notTo string }{
			{"millrace/pkg/", "millrace/jobs"},
			{"millrace/pkg/", "millrace/hdfs"},
			{"millrace/pkg/", "millrace/master"},
			{"millrace/pkg/", "millrace/worker"},
			{"millrace/pkg/", "millrace/cmd"},
			{"millrace/jobs", "millrace/hdfs"},
			{"millrace/jobs", "millrace/master"},
			{"millrace/jobs", "millrace/worker"},
			{"millrace/jobs", "millrace/cmd"},
			{"millrace/hdfs", "millrace/jobs"},
			{"millrace/hdfs", "millrace/master"},
			{"millrace/hdfs", "millrace/worker"},
			{"millrace/hdfs", "millrace/cmd"},
			{"millrace/master", "millrace/worker"},
			{"millrace/master", "millrace/cmd"},
			{"millrace/worker", "millrace/master"},
			{"millrace/worker", "millrace/cmd"},
		}
		for _, p := range all {
			for _, r := range rules {
				if !within(p.ImportPath, r.from) {
					continue
				}
				for _, d := range p.Deps {
					if within(d, r.notTo) {
						t.Errorf("%s depends on %s", p.ImportPath, d)
					}
				}
			}
		}
	})

	t.Run("pure cores import nothing of the house but one another", func(t *testing.T) {
		cores := map[string][]string{
			"millrace/master/state":     {"millrace/hdfs", "millrace/hdfs/namespace"},
			"millrace/master/scheduler": nil,
			"millrace/hdfs/namespace":   {"millrace/hdfs"},
		}
		for _, p := range all {
			may, core := cores[p.ImportPath]
			if !core {
				continue
			}
			for _, d := range p.Deps {
				if strings.HasPrefix(d, "millrace/") && !contains(may, d) || d == "net" || d == "os/exec" {
					t.Errorf("%s depends on %s", p.ImportPath, d)
				}
			}
		}
	})

	t.Run("the checker of chaos shares no code with what it checks", func(t *testing.T) {
		for _, p := range all {
			if p.ImportPath != "millrace/cmd/chaos/checker" {
				continue
			}
			for _, d := range p.Deps {
				if strings.HasPrefix(d, "millrace/") {
					t.Errorf("%s depends on %s", p.ImportPath, d)
				}
			}
		}
	})

	t.Run("fenced libraries stay behind their fence", func(t *testing.T) {
		fences := []struct {
			library string
			inside  []string
		}{
			{"github.com/hashicorp/raft", []string{"millrace/master", "millrace/master/fsm"}},
			{"github.com/hashicorp/memberlist", []string{"millrace/pkg/membership"}},
			{"github.com/minio/minio-go", []string{"millrace/pkg/objectstore", "millrace/cmd/chaos/checker"}},
			{"github.com/versity/versitygw", []string{"millrace/pkg/embeddedstore"}},
			{"github.com/urfave/cli", []string{"millrace/cmd/cli"}},
		}
		for _, p := range all {
			for _, f := range fences {
				for _, i := range p.Imports {
					if strings.HasPrefix(i, f.library) && !contains(f.inside, p.ImportPath) {
						t.Errorf("%s imports %s, which belongs in %s", p.ImportPath, i, strings.Join(f.inside, ", "))
					}
				}
			}
		}
	})

	t.Run("examples use public packages only", func(t *testing.T) {
		for _, p := range all {
			if !within(p.ImportPath, "millrace/examples/") {
				continue
			}
			for _, i := range p.Imports {
				if strings.HasPrefix(i, "millrace/") && !within(i, "millrace/jobs/mapreduce") {
					t.Errorf("%s imports %s", p.ImportPath, i)
				}
			}
		}
	})
}

// TestTopLevel holds what may lie at the top of the tree.
func TestTopLevel(t *testing.T) {
	allowed := strings.Fields(`master worker hdfs jobs pkg examples cmd docs docker-compose.yml go.mod go.sum Makefile
		README.md CONTRIBUTING.md CHANGELOG.md SECURITY.md LICENSE Dockerfile buf.yaml buf.gen.yaml bin`)
	entries, err := os.ReadDir(moduleRoot(t))
	require.NoError(t, err)
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !contains(allowed, e.Name()) {
			t.Errorf("%s has no place at the top of the tree", e.Name())
		}
	}
}

func listPackages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./...")
	cmd.Dir = moduleRoot(t)
	out, err := cmd.Output()
	require.NoError(t, err)
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatalf("read go list: %v", err)
		}
		all = append(all, p)
	}
}

func moduleRoot(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOMOD").Output()
	require.NoError(t, err)
	return filepath.Dir(strings.TrimSpace(string(out)))
}

// within says whether the package path is the given one, or below it.
func within(path, place string) bool {
	return strings.HasPrefix(path+"/", strings.TrimSuffix(place, "/")+"/")
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}
