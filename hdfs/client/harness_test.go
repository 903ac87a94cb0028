package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"millrace/hdfs"
	"millrace/hdfs/blockstore"
	"millrace/hdfs/blockstore/faultyfs"
	"millrace/hdfs/datanode"
	"millrace/hdfs/wire"
)

const clusterID = "j-TEST"

// T is what *testing.T and *rapid.T have in common.
type T interface {
	require.TestingT
	Helper()
	Logf(string, ...any)
}

// patient is a timing under which only what is meant to stall does, however busy the machine.
func patient() wire.Timing {
	return wire.Timing{Dial: 10 * time.Second, Beat: 100 * time.Millisecond, Stall: 10 * time.Second, Slow: 20 * time.Second}
}

// hurried is one for tests in which somebody is silent. On a busy machine others may be given up too.
func hurried() wire.Timing {
	return wire.Timing{Dial: time.Second, Beat: 100 * time.Millisecond, Stall: time.Second, Slow: 5 * time.Second}
}

func content(seed uint64, size int) []byte {
	data, rng := make([]byte, size), rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = rng.Read(data)
	return data
}

// cluster is datanodes with real sockets, and a name space made for this.
type cluster struct {
	t      T
	timing wire.Timing
	tls    bool
	nodes  []*node
	names  *names
}

func newCluster(t *testing.T, nodes int) *cluster {
	noGoroutinesLeft(t)
	return makeCluster(t, t, nodes, false, false)
}

// makeCluster is newCluster with TLS, with real disks, with another timing.
func makeCluster(tb testing.TB, t T, nodes int, tls, onDisk bool, timing ...wire.Timing) *cluster {
	c := &cluster{t: t, timing: patient(), tls: tls}
	if len(timing) > 0 {
		c.timing = timing[0]
	}
	c.names = &names{c: c, files: map[hdfs.FileID]*fileState{}}
	for i := range nodes {
		n := &node{c: c, id: fmt.Sprintf("i-%d", i+1), dir: "/disk", fs: faultyfs.New(uint64(i), time.Now)}
		n.fs.Disk(n.dir, 1<<40)
		if onDisk {
			n.fs, n.dir = nil, tb.TempDir()
		}
		c.nodes = append(c.nodes, n)
		n.start()
	}
	return c
}

func (c *cluster) close() {
	for _, n := range c.nodes {
		n.thaw()
		n.kill()
	}
}

func (c *cluster) node(id string) *node {
	i := slices.IndexFunc(c.nodes, func(n *node) bool { return n.id == id })
	return c.nodes[i]
}

// Client makes the cluster a Dialer.
func (c *cluster) Client(id string) (*http.Client, error) {
	c.names.mu.Lock()
	defer c.names.mu.Unlock()
	return c.node(id).client, nil
}

func (c *cluster) writer(ctx context.Context, change ...func(*WriterConfig)) *Writer {
	c.t.Helper()
	w, err := NewWriter(ctx, c.config(change...))
	require.NoError(c.t, err)
	return w
}

func (c *cluster) config(change ...func(*WriterConfig)) WriterConfig {
	cfg := WriterConfig{Names: c.names, Dialer: c, Timing: c.timing, Window: 1 << 20, Recovery: 20 * time.Second,
		Create: hdfs.Create{Path: "/f", Replication: 3, BlockSize: 4 * wire.MaxData}, Log: zap.NewNop()}
	for _, f := range change {
		f(&cfg)
	}
	return cfg
}

// node is one datanode; what goes wrong with it is set by its hooks.
type node struct {
	c      *cluster
	id     string
	fs     *faultyfs.FS // nil: the machine's
	dir    string
	store  *blockstore.Store
	srv    *httptest.Server
	client *http.Client
	stop   func()
	up     bool

	reaches func(to string) error // asked before it connects to another one; nil: it may

	mu      sync.Mutex
	dead    bool
	frozen  chan struct{}                                // while it is frozen
	onRead  func(n *node, total int64, p []byte) error   // bytes that came in on a connection, with the sum so far
	onWrite func(n *node, total int64, final bool) error // before a replica gets its bytes up to total, or is made final
	conns   map[*conn]struct{}
	accepts int
}

func (n *node) start() {
	var err error
	config := blockstore.Config{Dirs: []string{n.dir}, Cluster: clusterID}
	if n.fs != nil {
		config.FS = n.fs
	}
	n.store, err = blockstore.Open(config)
	require.NoError(n.c.t, err)
	dn, err := datanode.New(datanode.Config{Node: n.id, Store: faulty{datanode.Blocks(n.store), n}, Dialer: n, Timing: n.c.timing})
	require.NoError(n.c.t, err)
	mux := http.NewServeMux()
	dn.Register(mux)
	srv := httptest.NewUnstartedServer(mux)
	n.mu.Lock()
	n.dead, n.conns = false, map[*conn]struct{}{}
	n.mu.Unlock()
	srv.Listener = listener{srv.Listener, n}
	if n.c.tls {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { dn.Run(ctx) })
	n.c.names.mu.Lock()
	n.srv, n.client, n.up = srv, srv.Client(), true
	n.c.names.mu.Unlock()
	n.stop = func() {
		n.die()
		cancel()
		run.Wait()
		srv.Close()
		n.client.CloseIdleConnections()
		require.NoError(n.c.t, n.store.Close())
	}
}

// Client makes the node a Dialer.
func (n *node) Client(id string) (*http.Client, error) {
	if n.reaches != nil {
		if err := n.reaches(id); err != nil {
			return nil, err
		}
	}
	return n.c.Client(id)
}

// kill ends the node as if its process were: what it wrote stays on its disk.
func (n *node) kill() {
	if n.up {
		n.up = false
		n.stop()
	}
}

func (n *node) restart() {
	n.kill()
	n.start()
}

// die is kill as far as others see it; from within the node.
func (n *node) die() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dead = true
	for c := range n.conns {
		c.cut()
	}
}

func (n *node) gone() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dead
}

func (n *node) freeze() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.frozen = make(chan struct{})
}

func (n *node) thaw() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.frozen != nil {
		close(n.frozen)
		n.frozen = nil
	}
}

func (n *node) hooks(onRead func(*node, int64, []byte) error, onWrite func(*node, int64, bool) error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.onRead, n.onWrite = onRead, onWrite
}

type listener struct {
	net.Listener
	n *node
}

func (l listener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: nc, n: l.n, gone: make(chan struct{})}
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	l.n.conns[c] = struct{}{}
	l.n.accepts++
	if l.n.dead {
		c.cut()
	}
	return c, nil
}

// conn is a node's end of a connection.
type conn struct {
	net.Conn
	n     *node
	total int64
	once  sync.Once
	gone  chan struct{}
}

func (c *conn) Read(p []byte) (int, error) {
	c.wait()
	n, err := c.Conn.Read(p)
	c.wait()
	c.n.mu.Lock()
	hook := c.n.onRead
	c.n.mu.Unlock()
	c.total += int64(n)
	if hook != nil && n > 0 {
		if herr := hook(c.n, c.total, p[:n]); herr != nil {
			c.Close()
			return 0, herr
		}
	}
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	c.wait()
	return c.Conn.Write(p)
}

func (c *conn) wait() {
	c.n.mu.Lock()
	frozen := c.n.frozen
	c.n.mu.Unlock()
	if frozen != nil {
		select {
		case <-frozen:
		case <-c.gone:
		}
	}
}

func (c *conn) cut() {
	c.once.Do(func() { close(c.gone) })
	c.Conn.Close()
}

func (c *conn) Close() error {
	c.once.Do(func() { close(c.gone) })
	c.n.mu.Lock()
	delete(c.n.conns, c)
	c.n.mu.Unlock()
	return c.Conn.Close()
}

// faulty is a node's store with its hook.
type faulty struct {
	datanode.Store
	n *node
}

func (s faulty) Create(b hdfs.Block) (datanode.Writer, error) {
	b.Size = 0 // however small the disk is
	w, err := s.Store.Create(b)
	return s.writer(w), err
}

func (s faulty) Recover(id hdfs.BlockID, from, to hdfs.Stamp, length int64) (datanode.Writer, error) {
	w, err := s.Store.Recover(id, from, to, length)
	return s.writer(w), err
}

func (s faulty) writer(w datanode.Writer) datanode.Writer {
	if w == nil {
		return nil
	}
	return faultyWriter{w, s.n}
}

type faultyWriter struct {
	datanode.Writer
	n *node
}

func (w faultyWriter) Write(data []byte, sums []uint32) error {
	if err := w.n.strike(w.Size()+int64(len(data)), false); err != nil {
		return err
	}
	return w.Writer.Write(data, sums)
}

func (w faultyWriter) Finalize() (hdfs.Block, error) {
	if err := w.n.strike(w.Size(), true); err != nil {
		return hdfs.Block{}, err
	}
	return w.Writer.Finalize()
}

func (n *node) strike(total int64, final bool) error {
	n.mu.Lock()
	hook := n.onWrite
	n.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(n, total, final)
}

// names is the name space of one file after the other, as strict as the real one about who may do what when.
type names struct {
	Names // what a writer does not ask panics
	c     *cluster

	mu    sync.Mutex
	next  uint64
	files map[hdfs.FileID]*fileState
	// fault is asked before and after each question; an error is the answer.
	fault func(op string, after bool) error
	over  bool // the leases
	asked []string
}

type fileState struct {
	hdfs.Create
	blocks    []hdfs.Block // the last one may be under construction
	nodes     map[hdfs.BlockID][]string
	complete  bool
	abandoned bool
}

func (s *names) ask(op string, do func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, op)
	if s.fault != nil {
		if err := s.fault(op, false); err != nil {
			return err
		}
	}
	err := do()
	if err == nil && s.fault != nil {
		return s.fault(op, true)
	}
	return err
}

func (s *names) file(id hdfs.FileID, lease string) (*fileState, error) {
	f := s.files[id]
	if f == nil || f.abandoned || f.Lease != lease {
		return nil, hdfs.ErrLease
	}
	return f, nil
}

func (s *names) Create(_ context.Context, c hdfs.Create) (id hdfs.FileID, err error) {
	err = s.ask("create", func() error {
		for known, f := range s.files {
			if f.Lease == c.Lease {
				id = known
				return nil
			}
		}
		s.next++
		id = hdfs.FileID(s.next)
		s.files[id] = &fileState{Create: c, nodes: map[hdfs.BlockID][]string{}}
		return nil
	})
	return id, err
}

func (s *names) AddBlock(_ context.Context, id hdfs.FileID, lease string, prev *hdfs.Block, avoid []string) (at hdfs.Located, err error) {
	err = s.ask("add", func() error {
		f, err := s.file(id, lease)
		if err != nil {
			return err
		}
		var nodes []string
		for _, n := range s.c.nodes {
			if !slices.Contains(avoid, n.id) && len(nodes) < f.Replication {
				nodes = append(nodes, n.id)
			}
		}
		if len(nodes) == 0 {
			return hdfs.ErrNoNodes
		}
		last := len(f.blocks) - 1
		var before *hdfs.Block
		if last >= 1 {
			before = &f.blocks[last-1]
		}
		switch {
		case last >= 0 && same(before, prev): // asked again
		case last < 0 && prev == nil, last >= 0 && prev != nil && prev.ID == f.blocks[last].ID && prev.Stamp == f.blocks[last].Stamp:
			if prev != nil {
				f.blocks[last].Size = prev.Size
			}
			s.next++
			f.blocks = append(f.blocks, hdfs.Block{ID: hdfs.BlockID(s.next), Stamp: hdfs.Stamp(s.next)})
			last++
		default:
			return fmt.Errorf("%w: add a block after %v", hdfs.ErrInvalid, prev)
		}
		b := f.blocks[last]
		f.nodes[b.ID] = nodes
		at = s.located(b, nodes)
		return nil
	})
	return at, err
}

func same(a, b *hdfs.Block) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

func (s *names) located(b hdfs.Block, ids []string) hdfs.Located {
	at := hdfs.Located{Block: b}
	for _, id := range ids {
		at.Nodes = append(at.Nodes, hdfs.Node{ID: id, Address: s.c.node(id).srv.URL})
	}
	return at
}

func (s *names) Restamp(_ context.Context, id hdfs.FileID, lease string, b hdfs.Block, nodes []string) (at hdfs.Located, err error) {
	err = s.ask("restamp", func() error {
		f, err := s.file(id, lease)
		if err != nil {
			return err
		}
		last := &f.blocks[len(f.blocks)-1]
		if last.ID != b.ID || b.Stamp > last.Stamp {
			return fmt.Errorf("%w: restamp %v", hdfs.ErrInvalid, b)
		}
		s.next++
		last.Stamp = hdfs.Stamp(s.next)
		f.nodes[b.ID] = slices.Clone(nodes)
		at = s.located(*last, nodes)
		return nil
	})
	return at, err
}

func (s *names) Complete(_ context.Context, id hdfs.FileID, lease string, last *hdfs.Block) (info hdfs.Info, err error) {
	err = s.ask("complete", func() error {
		f, err := s.file(id, lease)
		if err != nil {
			return err
		}
		info = hdfs.Info{Path: f.Path, ID: id}
		if (last == nil) != (len(f.blocks) == 0) {
			return fmt.Errorf("%w: complete with last block %v", hdfs.ErrInvalid, last)
		}
		if last != nil {
			b := &f.blocks[len(f.blocks)-1]
			if b.ID != last.ID || b.Stamp != last.Stamp {
				return fmt.Errorf("%w: complete with last block %v, not %v", hdfs.ErrInvalid, last, b)
			}
			b.Size = last.Size
		}
		f.complete = true
		for _, b := range f.blocks {
			info.Size += b.Size
		}
		return nil
	})
	return info, err
}

func (s *names) Abandon(_ context.Context, id hdfs.FileID, lease string) error {
	return s.ask("abandon", func() error {
		f, err := s.file(id, lease)
		if err == nil && f.complete {
			err = hdfs.ErrLease
		}
		if err == nil {
			f.abandoned = true
		}
		return err
	})
}

func (s *names) Renew(_ context.Context, leases []string) (over []string, err error) {
	err = s.ask("renew", func() error {
		if s.over {
			over = leases
		}
		return nil
	})
	return over, err
}

func (s *names) count(op string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.asked {
		if a == op {
			n++
		}
	}
	return n
}

// holds requires that the writer's file is data, on all nodes of each block's last pipeline that are up, which are
// so many at the least.
func (c *cluster) holds(w *Writer, data []byte, least int) {
	c.t.Helper()
	f := c.names.files[w.file]
	require.True(c.t, f.complete)
	require.Equal(c.t, int64(len(data)), w.Info().Size)
	at := 0
	for i, b := range f.blocks {
		require.LessOrEqual(c.t, b.Size, f.BlockSize)
		if i < len(f.blocks)-1 {
			require.Equal(c.t, f.BlockSize, b.Size, "only the last block is shorter")
		}
		want := data[at : at+int(b.Size)]
		at += int(b.Size)
		read := 0
		for _, id := range f.nodes[b.ID] {
			n := c.node(id)
			if n.gone() {
				continue
			}
			r, err := openReplica(context.Background(), c, hdfs.Node{ID: id, Address: n.srv.URL}, b, 0, b.Size)
			require.NoError(c.t, err, "block %d of %d", i, len(f.blocks))
			got, err := io.ReadAll(r)
			require.NoError(c.t, err)
			require.NoError(c.t, r.Close())
			require.True(c.t, string(want) == string(got), "block %d on %s", i, id)
			read++
		}
		require.GreaterOrEqual(c.t, read, least, "replicas of block %d", i)
	}
	require.Equal(c.t, len(data), at)
}

// noGoroutinesLeft requires in the end that nothing of this package's goes on.
func noGoroutinesLeft(t *testing.T) {
	t.Cleanup(func() {
		ours := func() string {
			buf := make([]byte, 4<<20)
			buf = buf[:runtime.Stack(buf, true)]
			var left []string
			for _, g := range strings.Split(string(buf), "\n\n") {
				if strings.Contains(g, "millrace/hdfs") && !strings.Contains(g, "noGoroutinesLeft") && !strings.Contains(g, "testing.(*T).Run(") {
					left = append(left, g)
				}
			}
			return strings.Join(left, "\n\n")
		}
		for late := time.Now().Add(20 * time.Second); ; runtime.Gosched() {
			left := ours()
			if left == "" {
				return
			}
			if time.Now().After(late) {
				t.Errorf("goroutines are left:\n%s", left)
				return
			}
			time.Sleep(10 * time.Millisecond) // asked again, not waited for
		}
	})
}

var errStruck = errors.New("a fault on purpose")
