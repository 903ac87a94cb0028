package task

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protodelim"

	"millrace/jobs/engine"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
	"millrace/pkg/record"
)

// The test binary is its own child: started with testChildEnv it serves attempts of testPrograms.
const testChildEnv = "MILLRACE_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(testChildEnv) != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		os.Exit(Serve(ctx, ServeConfig{Resolve: testProgram, Open: openDir}))
	}
	os.Exit(m.Run())
}

// dirStore is a store that two processes can share: a directory of objects and parts.
type dirStore struct{ dir string }

func openDir(o *api.ObjectStore, _ *objectstore.Budget, _ *objectstore.Tally) (Store, error) {
	return dirStore{o.Endpoint}, nil
}

func (d dirStore) Get(_ context.Context, bucket, key string, offset, length int64, _ string) (io.ReadCloser, error) {
	f, err := os.Open(filepath.Join(d.dir, bucket, key))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, objectstore.ErrNotExist)
	}
	if length < 0 {
		length = 1 << 40
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, offset, length), f}, nil
}

func (d dirStore) UploadPart(_ context.Context, bucket, key, id string, number int, data []byte) (objectstore.Part, error) {
	name := fmt.Sprintf("%s.%s.%05d", key, id, number)
	return objectstore.Part{Number: number}, os.WriteFile(filepath.Join(d.dir, bucket, name), data, 0o600)
}

// testMapper is a Mapper of one function.
type testMapper struct {
	do func(key, value []byte) error
}

func (m testMapper) Map(key, value []byte) error { return m.do(key, value) }
func (testMapper) Close() error                  { return nil }
func (testMapper) Abort()                        {}

type testReducer struct {
	testMapper
	do func(key []byte, values *engine.Values) error
}

func (r testReducer) Reduce(key []byte, values *engine.Values) error { return r.do(key, values) }

// testProgram counts words, and does what its name says at the word of its first argument.
func testProgram(p *api.Program) (*Program, error) {
	if p.Name == "unknown" {
		return nil, errors.New("no such program")
	}
	trouble := func(word []byte) error {
		if len(p.Args) == 0 || string(word) != p.Args[0] {
			return nil
		}
		switch p.Name {
		case "fail":
			return errors.New("cannot stand " + string(word))
		case "panic":
			panic("afraid of " + string(word))
		case "goexit":
			goexit()
		case "hang":
			select {}
		case "spawn": // a process that leaves the group, one that does not, and a grandchild that shakes off all
			for _, line := range []string{"exec setsid sleep 1000", "sleep 1000", "env -i setsid sleep 1000 & echo spawned $! >&2; wait"} {
				cmd := exec.Command("sh", "-c", line)
				cmd.Stderr = os.Stderr
				if err := cmd.Start(); err != nil {
					return err
				}
				fmt.Fprintln(os.Stderr, "spawned", cmd.Process.Pid)
			}
			select {}
		}
		return nil
	}
	return &Program{
		Name: "wordcount",
		NewMapper: func(t *Context) (Mapper, error) {
			words := t.Counter("Test", "words")
			return testMapper{func(_, line []byte) error {
				for w := range bytes.FieldsSeq(line) {
					if err := trouble(w); err != nil {
						return err
					}
					words.Add(1)
					t.Emit(w, []byte{1})
				}
				return nil
			}}, nil
		},
		NewReducer: func(t *Context) (Reducer, error) {
			return testReducer{do: func(key []byte, values *engine.Values) error {
				n := 0
				for {
					v, ok := values.Next()
					if !ok {
						break
					}
					n += int(v[0])
				}
				t.Emit(key, strconv.AppendInt(nil, int64(n), 10))
				return nil
			}}, nil
		},
	}, nil
}

// child is a child process with the worker's end of its socket.
type child struct {
	t      *testing.T
	cmd    *exec.Cmd
	conn   net.Conn
	in     *bufio.Reader
	stderr safeBuffer
	dir    string // the store
	ended  chan error
	seen   int // progress messages
}

// safeBuffer can be read while a process writes into it.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func startChild(t *testing.T) *child {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "worker"), os.NewFile(uintptr(fds[1]), "child")
	c := &child{t: t, dir: t.TempDir(), ended: make(chan error, 1)}
	if err := os.Mkdir(filepath.Join(c.dir, "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	c.cmd = exec.Command(os.Args[0], "-test.run=^$")
	c.cmd.Env = append(os.Environ(), testChildEnv+"=1", FDEnv+"=3", TokenEnv+"=token-of-"+filepath.Base(c.dir)+strconv.Itoa(os.Getpid()))
	c.cmd.ExtraFiles = []*os.File{theirs}
	c.cmd.Stderr = &c.stderr
	c.cmd.WaitDelay = 5 * time.Second // grandchildren may have our pipe
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	c.conn, err = net.FileConn(ours)
	ours.Close()
	if err != nil {
		t.Fatal(err)
	}
	c.in = bufio.NewReader(c.conn)
	go func() { c.ended <- c.cmd.Wait() }()
	t.Cleanup(func() {
		c.conn.Close()
		select {
		case <-c.ended:
		case <-time.After(time.Minute):
			t.Error("the child does not end with its socket")
			_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
			<-c.ended
		}
	})
	if h := c.receive().GetHello(); h == nil || h.ProtocolMin > 1 || h.ProtocolMax < 1 {
		t.Fatalf("got %v, want a hello for protocol 1", h)
	}
	c.send(&api.ToChild{Message: &api.ToChild_Welcome{Welcome: &api.ChildWelcome{Protocol: 1}}})
	return c
}

func (c *child) send(m *api.ToChild) {
	c.t.Helper()
	if _, err := protodelim.MarshalTo(c.conn, m); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

func (c *child) receive() *api.FromChild {
	c.t.Helper()
	m := &api.FromChild{}
	_ = c.conn.SetReadDeadline(time.Now().Add(time.Minute))
	if err := protodelim.UnmarshalFrom(c.in, m); err != nil {
		c.t.Fatalf("receive: %v; its standard error: %s", err, c.stderr.String())
	}
	return m
}

// result waits for the result of an attempt.
func (c *child) result() *api.ChildResult {
	c.t.Helper()
	for {
		m := c.receive()
		if m.GetProgress() != nil {
			c.seen++
			continue
		}
		if r := m.GetResult(); r != nil {
			return r
		}
		c.t.Fatalf("got %v, want a result", m)
	}
}

// put writes an object and gives a split of the whole of it.
func (c *child) put(key, text string) *api.Split {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, "b", key), []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return &api.Split{Pieces: []*api.Piece{{Bucket: "b", Key: key, Length: int64(len(text)), ObjectSize: int64(len(text))}}}
}

// read gives what an attempt has uploaded.
func (c *child) read(key, id string) string {
	c.t.Helper()
	names, _ := filepath.Glob(filepath.Join(c.dir, "b", key+"."+id+".*"))
	var all strings.Builder
	for _, n := range names {
		data, err := os.ReadFile(n)
		if err != nil {
			c.t.Fatal(err)
		}
		all.Write(data)
	}
	return all.String()
}

func (c *child) lease(kind api.TaskKind, index int, program string, args ...string) *api.ChildLease {
	letter := map[api.TaskKind]string{api.TaskKind_TASK_KIND_MAP: "m", api.TaskKind_TASK_KIND_REDUCE: "r"}[kind]
	return &api.ChildLease{Attempt: fmt.Sprintf("s-TEST-%s-%05d-1-1", letter, index), Job: "s-TEST", Kind: kind, Index: int32(index), Number: 1,
		Program: &api.Program{Name: program, Args: args}, WorkDir: c.t.TempDir(),
		Store: &api.ObjectStore{Endpoint: c.dir}, MemoryBytes: 256 << 20}
}

func (c *child) mapLease(index int, text, program string, args ...string) *api.ChildLease {
	l := c.lease(api.TaskKind_TASK_KIND_MAP, index, program, args...)
	l.Split, l.Partitions = c.put(fmt.Sprintf("in-%d", index), text), 2
	l.SegmentPath = filepath.Join(c.t.TempDir(), "segment")
	return l
}

func (c *child) run(l *api.ChildLease) *api.ChildResult {
	c.t.Helper()
	c.send(&api.ToChild{Message: &api.ToChild_Lease{Lease: l}})
	r := c.result()
	if r.Attempt != l.Attempt {
		c.t.Fatalf("a result of %s for a lease of %s", r.Attempt, l.Attempt)
	}
	return r
}

// segment describes one partition of a segment file.
func segment(t *testing.T, mapIndex, partition int, path string) *api.ChildSegment {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	x, err := record.ReadIndex(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	p := x.Partitions[partition]
	return &api.ChildSegment{Map: int32(mapIndex), MapAttempt: fmt.Sprintf("s-TEST-m-%05d-1-1", mapIndex), Path: path,
		Offset: p.Offset, Length: p.Length, Digest: x.Digest(),
		Ledger: &api.Ledger{Records: p.Records, Bytes: p.Bytes, Checksum: p.Checksum}}
}

func counters(r *api.AttemptResult) map[string]int64 {
	m := map[string]int64{}
	for _, c := range r.Counters {
		m[c.Group+"."+c.Name] = c.Value
	}
	return m
}
