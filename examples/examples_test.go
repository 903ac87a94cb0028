// Package examples_test runs what lies in the examples' folders.
package examples_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"millrace/jobs"
	"millrace/jobs/local"
	"millrace/jobs/streaming"
	"millrace/pkg/api"
)

func TestPythonWordCount(t *testing.T) {
	if err := exec.Command("python3", "-c", "").Run(); err != nil {
		t.Skip("there is no python3 here")
	}
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/in", []byte("to be or not\nto be\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	commands := &api.Program{Kind: api.ProgramKind_PROGRAM_KIND_STREAMING, Mapper: "mapper.py", Combiner: "reducer.py", Reducer: "reducer.py"}
	program, err := streaming.New(commands)
	if err != nil {
		t.Fatal(err)
	}
	one := int32(1)
	r, err := local.Run(t.Context(), local.Config{
		Spec:    &api.JobSpec{Program: commands, Input: []string{dir + "/in"}, Output: dir + "/out", SplitSize: 10, Reduces: &one},
		Program: program, Dir: dir,
		Files: []local.File{{Name: "mapper.py", Path: "python-wordcount/mapper.py"}, {Name: "reducer.py", Path: "python-wordcount/reducer.py"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(r.Parts[0].Key)
	if want := "be\t2\nnot\t1\nor\t1\nto\t2\n"; err != nil || string(data) != want {
		t.Errorf("got %q, %v; want %q", data, err, want)
	}
	if n := r.Counters["WordCount"]["lines"]; n != 2 {
		t.Errorf("%d lines counted, want 2", n)
	}
}

func TestJobFilesAreValid(t *testing.T) {
	files, err := filepath.Glob("jobs/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no job files: %v", err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		spec, err := jobs.ParseYAML(data)
		if err != nil {
			t.Errorf("%s: %v", f, err)
			continue
		}
		jobs.Normalize(spec)
		if errs := jobs.Validate(spec); len(errs) > 0 {
			t.Errorf("%s: %v", f, errs)
		}
	}
}
