package builtin

import (
	"os"
	"testing"

	"millrace/jobs/local"
	"millrace/pkg/api"
)

// BenchmarkJob runs whole jobs on the file that MILLRACE_BENCH_TEXT names, one task at a time.
func BenchmarkJob(b *testing.B) {
	path := os.Getenv("MILLRACE_BENCH_TEXT")
	info, err := os.Stat(path)
	if err != nil {
		b.Skip("MILLRACE_BENCH_TEXT names no file")
	}
	for _, name := range []string{"wordcount", "grep", "cat", "distinct"} {
		b.Run(name, func(b *testing.B) {
			var args []string
			if name == "grep" {
				args = []string{"func.*error"}
			}
			b.SetBytes(info.Size())
			b.ReportAllocs()
			for b.Loop() {
				job, err := Lookup(name, args)
				if err != nil {
					b.Fatal(err)
				}
				program, err := job.Program(nil)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := local.Run(b.Context(), local.Config{Program: program, Parallel: 1, Dir: b.TempDir(),
					Spec: &api.JobSpec{Input: []string{path}, Output: b.TempDir() + "/out"}}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
