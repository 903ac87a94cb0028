package bootstrap

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"millrace/pkg/objectstore"
)

const (
	maxScript  = 16 << 20
	firstRetry = time.Second
	lastRetry  = 15 * time.Second
	shell      = "/bin/sh"
)

// Source is where scripts lie; objectstore.Store is one.
type Source interface {
	Get(ctx context.Context, bucket, key string, offset, length int64, ifMatch string) (io.ReadCloser, error)
}

// fetch brings a script, which is the one that the cluster was created with. While the store does not answer it goes on asking.
func (r *Runner) fetch(ctx context.Context, a Action) ([]byte, error) {
	url, err := objectstore.ParseS3(a.URL)
	if err != nil {
		return nil, err
	}
	for pause := r.retry; ; pause = min(2*pause, lastRetry) {
		script, err := r.get(ctx, url)
		switch {
		case err == nil:
			return script, a.check(script)
		case errors.Is(err, objectstore.ErrNotExist), errors.Is(err, objectstore.ErrNoSuchBucket):
			return nil, fmt.Errorf("the script is missing: %w", err)
		case errors.Is(err, objectstore.ErrDenied):
			return nil, err
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, fmt.Errorf("%w; the script could not be fetched: %w", context.Cause(ctx), err)
		}
	}
}

func (r *Runner) get(ctx context.Context, url objectstore.URL) ([]byte, error) {
	source, err := r.cfg.Source()
	if err != nil {
		return nil, err
	}
	body, err := source.Get(ctx, url.Bucket, url.Key, 0, -1, "")
	if err != nil {
		return nil, err
	}
	defer body.Close()
	script, err := io.ReadAll(io.LimitReader(body, maxScript+1))
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", url, err)
	}
	return script, nil
}

// check says what is wrong with a script.
func (a Action) check(script []byte) error {
	sum := sha256.Sum256(script)
	first, _, _ := bytes.Cut(script, []byte("\n"))
	switch {
	case len(script) > maxScript:
		return fmt.Errorf("it is longer than %d bytes: that is no script", maxScript)
	case hex.EncodeToString(sum[:]) != strings.ToLower(a.SHA256):
		return fmt.Errorf("%s is not the script any more that the cluster was created with: its SHA-256 is %x and was %s", a.URL, sum, a.SHA256)
	case len(bytes.TrimSpace(script)) == 0:
		return errors.New("it is empty")
	case bytes.HasSuffix(first, []byte("\r")):
		return errors.New(`it has lines that end with \r\n, as Windows writes them, which no shell takes: write it with \n (sed -i 's/\r$//')`)
	}
	return nil
}

// place writes the script down and says how it is run: by the interpreter that it names, by the shell if it names none.
func place(path string, script []byte, a Action) (program string, args []string, err error) {
	if err := os.WriteFile(path, script, 0o700); err != nil {
		return "", nil, err
	}
	if bytes.HasPrefix(script, []byte("#!")) || bytes.HasPrefix(script, []byte("\x7fELF")) {
		return path, a.Args, nil
	}
	return shell, append([]string{path}, a.Args...), nil
}

// notStarted says for people why a script could not be started.
func notStarted(err error, script []byte) error {
	first, _, _ := strings.Cut(string(script[:min(len(script), 256)]), "\n")
	interpreter, named := strings.CutPrefix(first, "#!")
	switch {
	case named && errors.Is(err, unix.ENOENT):
		return fmt.Errorf("this node has no %s, which is to run it", strings.TrimSpace(interpreter))
	case errors.Is(err, unix.ENOEXEC):
		return errors.New("it is a program for machines of another kind")
	}
	return err
}

// fileName makes a name one that a file can have.
func fileName(name string) string {
	name = strings.Map(func(c rune) rune {
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("-_.", c) {
			return c
		}
		return '_'
	}, name)
	return strings.TrimLeft(name[:min(len(name), 64)], ".")
}
