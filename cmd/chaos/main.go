// Command chaos puts a whole site to the test: real masters, workers and a real MinIO, each node on a machine of its own as far as this
// one allows, with jobs, writers and readers that never stop and faults that strike all the time; an independent checker holds every result, every file, every listing
// and every acknowledged submit against the truth. It exits 1 if anything does not agree, 2 if it could not run.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"millrace/cmd/chaos/trial"
)

func main() {
	minutes := flag.Float64("minutes", 3, "how long faults strike")
	seed := flag.Uint64("seed", 0, "replay the faults of this seed; 0: a new one")
	binary := flag.String("binary", "bin/millrace", "the millrace to test")
	minio := flag.String("minio", "", "the MinIO to use")
	dir := flag.String("dir", "", "folder for everything; default: a new one in the folder for temporary files")
	flag.Parse()
	if code, done := inPrivate(); done {
		os.Exit(code)
	}
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano()) % 1_000_000
	}
	if *dir == "" {
		*dir = filepath.Join(os.TempDir(), fmt.Sprintf("millrace-chaos-%d-%d", *seed, os.Getpid()))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, trial.Config{Seed: *seed, Length: time.Duration(*minutes * float64(time.Minute)), Dir: *dir, Binary: *binary, MinIO: *minio, Private: private()}))
}

// run is one trial, said and reported.
func run(ctx context.Context, c trial.Config) int {
	begin := time.Now()
	c.Say = func(format string, args ...any) {
		fmt.Printf("%6.1fs  %s\n", time.Since(begin).Seconds(), fmt.Sprintf(format, args...))
	}
	t, err := trial.New(c)
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		return 2
	}
	report, err := t.Run(ctx)
	if report != nil {
		report.Print(os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		return 2
	}
	if len(report.Found) > 0 {
		return 1
	}
	return 0
}
