package programs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

var prefix = objectstore.URL{Bucket: "sys", Key: "p/"}

// source is an object store of one text, that counts and may hold answers back.
type source struct {
	text string
	gets atomic.Int32
	gate chan struct{}
	err  error
}

func (s *source) Get(ctx context.Context, bucket, key string, _, _ int64, _ string) (io.ReadCloser, error) {
	s.gets.Add(1)
	if s.gate != nil {
		select {
		case <-s.gate:
		case <-ctx.Done():
			return nil, context.Cause(ctx) // as net/http does
		}
	}
	if s.err != nil {
		return nil, s.err
	}
	if bucket != "sys" || !strings.HasPrefix(key, "p/programs/") {
		return nil, objectstore.ErrNotExist
	}
	return io.NopCloser(strings.NewReader(s.text)), nil
}

func file(text string) *api.ShippedFile {
	sum := sha256.Sum256([]byte(text))
	return &api.ShippedFile{Name: "tool", Sha256: hex.EncodeToString(sum[:]), Size: int64(len(text)), Executable: true}
}

func newCache(t *testing.T) *Cache {
	c := New(filepath.Join(t.TempDir(), "programs"))
	require.NoError(t, c.Open())
	return c
}

func TestAFileIsFetchedOnceAndVerified(t *testing.T) {
	c, s := newCache(t), &source{text: "#!/bin/sh\n", gate: make(chan struct{})}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			path, err := c.Get(context.Background(), s, prefix, file(s.text))
			if err != nil {
				t.Error(err)
				return
			}
			if data, err := os.ReadFile(path); err != nil || string(data) != s.text {
				t.Errorf("%q, %v", data, err)
			}
		})
	}
	close(s.gate)
	wg.Wait()
	require.EqualValues(t, 1, s.gets.Load())
}

func TestWhatIsNotWhatWasShippedIsRefused(t *testing.T) {
	want := file("the text")
	for name, text := range map[string]string{"another": "THE TEXT", "short": "the", "long": "the text and more"} {
		c := newCache(t)
		_, err := c.Get(context.Background(), &source{text: text}, prefix, want)
		require.ErrorContains(t, err, "the object store gave", name)
		left, err := os.ReadDir(c.dir)
		require.NoError(t, err)
		require.Empty(t, left, name)
	}
	c := newCache(t)
	away := &source{err: objectstore.ErrUnreachable}
	_, err := c.Get(t.Context(), away, prefix, want)
	require.ErrorIs(t, err, objectstore.ErrUnreachable)
	require.EqualValues(t, 1, away.gets.Load(), "the store itself has all the patience")
	_, err = c.Get(context.Background(), &source{}, prefix, &api.ShippedFile{Sha256: "../../etc/passwd"})
	require.ErrorContains(t, err, "no SHA-256")
}

func TestOneWhoGivesUpDoesNotFailTheOthers(t *testing.T) {
	c, s := newCache(t), &source{text: "x", gate: make(chan struct{})}
	ctx, cancel := context.WithCancelCause(context.Background())
	killed := errors.New("the job was cancelled")
	first, second := make(chan error, 1), make(chan error, 1)
	get := func(ctx context.Context, done chan error) { _, err := c.Get(ctx, s, prefix, file("x")); done <- err }
	go get(ctx, first)
	require.Eventually(t, func() bool { return s.gets.Load() == 1 }, time.Minute, time.Millisecond)
	go get(context.Background(), second)
	cancel(killed)
	require.ErrorIs(t, <-first, killed)
	close(s.gate)
	require.NoError(t, <-second)
}

func TestAFileThatAnAttemptHasWrittenToIsFetchedAgain(t *testing.T) {
	c, dir := newCache(t), t.TempDir()
	s, f := &source{text: "the text"}, file("the text")
	ctx := context.Background()
	cached, err := c.Get(ctx, s, prefix, f)
	require.NoError(t, err)
	require.NoError(t, Place(cached, dir, f))
	link := filepath.Join(dir, "tool")
	require.NoError(t, os.Chmod(link, 0o700))
	require.NoError(t, os.WriteFile(link, []byte("THE TEXT"), 0o700))
	for _, life := range []*Cache{c, New(c.dir)} { // the next life trusts nothing that it has not read
		path, err := life.Get(ctx, s, prefix, f)
		require.NoError(t, err)
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, "the text", string(data))
	}
	require.EqualValues(t, 2, s.gets.Load())
	require.NoError(t, os.WriteFile(cached+".new", []byte("the TEXT"), 0o600))
	require.NoError(t, os.Rename(cached+".new", cached))
	_, err = New(c.dir).Get(ctx, s, prefix, f)
	require.NoError(t, err)
	require.EqualValues(t, 3, s.gets.Load())
}

func TestPlacedFilesAreTheAttemptsOwn(t *testing.T) {
	c, dir := newCache(t), t.TempDir()
	f := file("data")
	cached, err := c.Get(context.Background(), &source{text: "data"}, prefix, f)
	require.NoError(t, err)
	require.NoError(t, Place(cached, dir, f))
	st, err := os.Stat(filepath.Join(dir, "tool"))
	require.NoError(t, err)
	require.NotZero(t, st.Mode().Perm()&0o100)

	f.Name, f.Executable = "sub/words", false
	require.NoError(t, Place(cached, dir, f))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "sub/words"), []byte("changed"), 0o600))
	data, err := os.ReadFile(cached)
	require.NoError(t, err)
	require.Equal(t, "data", string(data))
	for _, name := range []string{"../x", "/etc/x", "", "a/../../x"} {
		f.Name = name
		require.Error(t, Place(cached, dir, f), name)
	}
}

func TestOpenKeepsWhatIsUsed(t *testing.T) {
	c := newCache(t)
	s := &source{text: "old"}
	old, err := c.Get(context.Background(), s, prefix, file("old"))
	require.NoError(t, err)
	s.text = "new"
	fresh, err := c.Get(context.Background(), s, prefix, file("new"))
	require.NoError(t, err)
	past := time.Now().Add(-2 * keepUnused)
	require.NoError(t, os.Chtimes(old, past, past))
	require.NoError(t, os.WriteFile(filepath.Join(c.dir, ".incoming123"), nil, 0o600))
	require.NoError(t, c.Open())
	require.NoFileExists(t, old)
	require.FileExists(t, fresh)
	require.NoFileExists(t, filepath.Join(c.dir, ".incoming123"))
}
