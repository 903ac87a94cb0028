// Package embeddedstoretest gives tests a running embedded object store. The
// store needs a process of its own, for which the test binary starts itself
// again: a package that uses it has
//
//	func TestMain(m *testing.M) { embeddedstoretest.Main(m) }
package embeddedstoretest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"millrace/pkg/embeddedstore"
	"millrace/pkg/objectstore"
	"millrace/pkg/ports"
)

const variable = "MILLRACE_TEST_EMBEDDED_STORE"

// Main runs the store if this process was started for it, else the tests.
func Main(m *testing.M) {
	given := os.Getenv(variable)
	if given == "" {
		os.Exit(m.Run())
	}
	if err := serve(given); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serve(given string) error {
	var c embeddedstore.Config
	if err := json.Unmarshal([]byte(given), &c); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return embeddedstore.Run(ctx, c)
}

// Start runs a store in a directory (a temporary one, if "") until the test
// ends, and says how to reach it.
func Start(t testing.TB, dir string) objectstore.Config {
	t.Helper()
	if dir == "" {
		dir = t.TempDir()
	}
	c := embeddedstore.Config{Dir: dir, Listen: freeAddress(t), AccessKey: "tester", SecretKey: rand.Text()}
	given, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), variable+"="+string(given))
	child.Stdout, child.Stderr = os.Stderr, os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	t.Cleanup(func() { stop(t, child, ended) })

	endpoint := "http://" + c.Listen
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := embeddedstore.Ready(ctx, endpoint); err != nil {
		t.Fatal(err)
	}
	return objectstore.Config{Endpoint: endpoint, AccessKey: c.AccessKey, SecretKey: c.SecretKey}
}

// stop asks the store to end, and sees that it does so in order.
func stop(t testing.TB, child *exec.Cmd, ended <-chan error) {
	if err := child.Process.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("the embedded store is gone before its time: %v, %v", err, <-ended)
		return
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the embedded store: %v", err)
		}
	case <-time.After(15 * time.Second):
		t.Error("the embedded store does not stop within 15 s")
		_ = child.Process.Kill()
		<-ended
	}
}

// freeAddress is one that nobody else gets until the test ends, though the store listens there only once its process is up.
func freeAddress(t testing.TB) string {
	t.Helper()
	var reserved ports.Reserved
	t.Cleanup(reserved.Close)
	port, err := reserved.Take(10000, 20000)
	if err != nil {
		t.Fatal(err)
	}
	return ports.Address(port)
}
