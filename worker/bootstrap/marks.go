package bootstrap

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"millrace/pkg/nodedir"
)

const (
	marksFile   = "marks.json" // how far the actions are
	runningFile = "running"    // what marks the processes of the action that runs

	runVariable = "MILLRACE_BOOTSTRAP_RUN"

	endWithin = 5 * time.Second
	endPause  = 10 * time.Millisecond
)

func readMarks(path string, s *Status) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(data, s)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

func writeMarks(path string, s Status) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return nodedir.WriteFile(path, data)
}

// markRunning writes down what the processes of an action carry, before there are any.
func markRunning(path string) (token string, err error) {
	token = rand.Text()
	return token, nodedir.WriteFile(path, []byte(token))
}

// endLeftovers ends what an action has started that was cut short by this node's sudden end: it would be in its own way when it is
// run again.
func endLeftovers(path string) error {
	token, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for late := time.Now().Add(endWithin); endCarriers(string(token)) > 0; time.Sleep(endPause) {
		if time.Now().After(late) {
			return errors.New("what the action has left running from before does not end")
		}
	}
	return os.Remove(path)
}

// EndLeftovers ends what an action has started and left in a folder whose actions do not go on: before the folder is deleted.
func EndLeftovers(dir string) error { return endLeftovers(filepath.Join(dir, runningFile)) }

// endCarriers kills all processes that were started with the token, and says how many there were.
func endCarriers(token string) (n int) {
	if token == "" {
		return 0
	}
	paths, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return 0
	}
	for _, path := range paths {
		env, err := os.ReadFile(path) // gone, a zombie, or somebody else's: empty
		if err != nil || !bytes.Contains(env, []byte(runVariable+"="+token)) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil && unix.Kill(pid, unix.SIGKILL) == nil {
			n++
		}
	}
	return n
}

// clearFolder deletes what other actions have left.
func clearFolder(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
