package client_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"log"
	"strings"

	"millrace/hdfs"
	"millrace/hdfs/client"
)

// Files of the current context's cluster, written, read in the middle, and listed.
func ExampleConnect() {
	ctx := context.Background()
	cluster, err := client.Connect("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer cluster.Close()

	w, err := cluster.Create(ctx, hdfs.Create{Path: "/notes/today.txt", Replication: 2})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := io.Copy(w, strings.NewReader("what was acknowledged is there\n")); err != nil {
		log.Fatal(err)
	}
	if err := w.Close(); err != nil { // from here on it can be seen, and is on two nodes' disks
		log.Fatal(err)
	}

	r, err := cluster.Open(ctx, "/notes/today.txt")
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	word := make([]byte, 12)
	if _, err := r.ReadAt(word, 9); err != nil {
		log.Fatal(err)
	}

	notes, err := cluster.FS(ctx, "/notes")
	if err != nil {
		log.Fatal(err)
	}
	names, err := fs.Glob(notes, "*.txt")
	fmt.Println(string(word), names, err)
}
