package datanode

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"millrace/hdfs"
	"millrace/hdfs/blockstore"
	"millrace/hdfs/blockstore/faultyfs"
	"millrace/hdfs/wire"
)

const within = 10 * time.Second

func content(seed uint64, size int) []byte {
	data, rng := make([]byte, size), rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = rng.Read(data)
	return data
}

// site is some datanodes that know each other.
type site struct {
	nodes   map[string]*rig
	clients map[string]*http.Client
}

func (s *site) Client(node string) (*http.Client, error) { return s.clients[node], nil }

// rig is a datanode under test.
type rig struct {
	*Node
	store *blockstore.Store
	fs    *faultyfs.FS
	srv   *httptest.Server
	end   func()
}

func (r *rig) place() hdfs.Node { return hdfs.Node{ID: r.cfg.Node, Address: r.srv.URL} }

func makeStore(t *testing.T) (*blockstore.Store, *faultyfs.FS) {
	fs := faultyfs.New(1, time.Now)
	fs.Disk("/disk", 1<<40)
	store, err := blockstore.Open(blockstore.Config{Dirs: []string{"/disk"}, Cluster: "j-TEST", FS: fs})
	require.NoError(t, err)
	return store, fs
}

func newSite(t *testing.T, nodes int, change ...func(*Config)) *site {
	s := &site{nodes: map[string]*rig{}, clients: map[string]*http.Client{}}
	for i := range nodes {
		r := &rig{}
		r.store, r.fs = makeStore(t)
		c := Config{Node: fmt.Sprintf("i-%d", i+1), Store: Blocks(r.store), Dialer: s,
			Timing: wire.Timing{Beat: 50 * time.Millisecond, Stall: 5 * time.Second}}
		for _, ch := range change {
			ch(&c)
		}
		var err error
		r.Node, err = New(c)
		require.NoError(t, err)
		mux := http.NewServeMux()
		r.Register(mux)
		r.srv = httptest.NewServer(mux)
		ctx, cancel := context.WithCancel(context.Background())
		var run sync.WaitGroup
		run.Go(func() { r.Run(ctx) })
		r.end = sync.OnceFunc(func() {
			cancel()
			run.Wait()
		})
		t.Cleanup(func() {
			r.end()
			r.srv.Close()
			require.NoError(t, r.store.Close())
		})
		s.nodes[c.Node], s.clients[c.Node] = r, r.srv.Client()
	}
	return s
}

func put(t *testing.T, s *blockstore.Store, id hdfs.BlockID, data []byte) hdfs.Block {
	w, err := s.Create(hdfs.Block{ID: id, Stamp: 1})
	require.NoError(t, err)
	require.NoError(t, w.Write(data, blockstore.Sums(data)))
	b, err := w.Finalize()
	require.NoError(t, err)
	return b
}

// damage flips a bit of a replica on the disk.
func damage(t *testing.T, store *blockstore.Store, fs *faultyfs.FS, b hdfs.Block, at int64) {
	replica, err := store.Open(b.ID, b.Stamp)
	require.NoError(t, err)
	file, _ := replica.Files()
	require.NoError(t, replica.Close())
	f, err := fs.OpenFile(file, os.O_RDWR)
	require.NoError(t, err)
	var one [1]byte
	_, err = f.ReadAt(one[:], at)
	require.NoError(t, err)
	one[0] ^= 1
	_, err = f.WriteAt(one[:], at)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// heard is what a leader is told.
type heard struct{ reports chan Report }

func listen(t *testing.T, n *Node) *heard {
	h := &heard{reports: make(chan Report)}
	ctx, cancel := context.WithCancel(context.Background())
	begun := make(chan struct{})
	begin := sync.OnceFunc(func() { close(begun) })
	defer func() { <-begun }()
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = n.Reports(ctx, func(r Report) error {
			begin()
			select {
			case h.reports <- r:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	t.Cleanup(wg.Wait)
	t.Cleanup(cancel)
	return h
}

// next gives the next report that is not about the disks.
func (h *heard) next(t *testing.T) Report {
	t.Helper()
	for {
		select {
		case r := <-h.reports:
			if r.Disks == nil {
				return r
			}
		case <-time.After(within):
			t.Fatal("no report comes")
		}
	}
}

// wait passes over changes until there is this one.
func (h *heard) wait(t *testing.T, id hdfs.BlockID, s State) Change {
	t.Helper()
	for {
		for _, c := range h.next(t).Changes {
			if c.Block.ID == id && c.State == s {
				return c
			}
		}
	}
}

func TestNodesThatCannotBe(t *testing.T) {
	_, err := New(Config{})
	require.ErrorContains(t, err, "node, store or dialer is missing")
}

func TestReportsBeginWithTheFullListInPieces(t *testing.T) {
	s := newSite(t, 1, func(c *Config) { c.Piece = 2 })
	r := s.nodes["i-1"]
	var blocks []hdfs.Block
	for id := range hdfs.BlockID(5) {
		blocks = append(blocks, put(t, r.store, id+1, content(1, 10)))
	}
	w, err := r.store.Create(hdfs.Block{ID: 9, Stamp: 7})
	require.NoError(t, err)
	defer w.Close()
	h := listen(t, r.Node)
	first := <-h.reports
	require.Len(t, first.Disks, 1)
	require.Equal(t, "/disk", first.Disks[0].Dir)
	for i := range 3 {
		got := h.next(t)
		require.True(t, got.Full)
		require.Equal(t, i == 0, got.First)
		require.False(t, got.Last)
		require.Equal(t, blocks[2*i], got.Changes[0].Block)
		if i == 2 {
			require.Equal(t, Change{Block: hdfs.Block{ID: 9, Stamp: 7}, State: Unfinished}, got.Changes[1])
		}
	}
	require.Equal(t, Report{Full: true, Last: true}, h.next(t))
	r.news.tell(Change{Block: blocks[0], State: Bad, Reason: "why"})
	require.Equal(t, Report{Changes: []Change{{Block: blocks[0], State: Bad, Reason: "why"}}}, h.next(t))
	r.Relist()
	require.True(t, h.next(t).First)
}

func TestAnEmptyNodeSaysSo(t *testing.T) {
	s := newSite(t, 1)
	h := listen(t, s.nodes["i-1"].Node)
	require.Equal(t, Report{Full: true, First: true}, h.next(t))
	require.Equal(t, Report{Full: true, Last: true}, h.next(t))
}

func TestASlowLeaderGetsTheListAgain(t *testing.T) {
	s := newSite(t, 1)
	r := s.nodes["i-1"]
	f := r.news.add()
	defer r.news.remove(f)
	f.relist = false
	for range maxPending + 1 {
		r.news.tell(Change{})
	}
	require.True(t, f.relist)
	require.Empty(t, f.pending)
}

func TestOrdersOfOlderTermsAreRefused(t *testing.T) {
	s := newSite(t, 1)
	r := s.nodes["i-1"]
	b := put(t, r.store, 1, content(1, 10))
	r.Term(7)
	err := r.Obey(Order{Term: 6, Delete: []hdfs.Block{b}})
	require.ErrorIs(t, err, ErrOldTerm)
	require.ErrorContains(t, err, "order of term 6: the leader's term is over: it is 7")
	h := listen(t, r.Node)
	require.True(t, h.next(t).Full)
	require.NoError(t, r.Obey(Order{Term: 7, Delete: []hdfs.Block{{ID: 1, Stamp: 2}, b, {ID: 5, Stamp: 1}}}))
	require.Equal(t, hdfs.BlockID(5), h.wait(t, 5, Gone).Block.ID, "that is what the leader wants to hear")
	_, err = r.store.Open(1, 1)
	require.ErrorIs(t, err, hdfs.ErrNoBlock)
}

func TestAnOrderThatWaitsIsDroppedWhenItsTermIsOver(t *testing.T) {
	store, _ := makeStore(t)
	n, err := New(Config{Node: "i-1", Store: Blocks(store), Dialer: &site{}})
	require.NoError(t, err)
	b := put(t, store, 1, content(1, 10))
	require.NoError(t, n.Obey(Order{Term: 1, Delete: []hdfs.Block{b}, Copy: []Copy{{Block: b}}, Verify: []hdfs.Block{b}}))
	n.Term(2)
	synctest.Test(t, func(t *testing.T) {
		n.orders.deletes.more, n.orders.copies.more, n.orders.verifies.more = make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{}, 1)
		ctx, cancel := context.WithCancel(context.Background())
		go n.deleter(ctx)
		go n.copier(ctx)
		go n.verifier(ctx)
		synctest.Wait()
		cancel()
	})
	require.Empty(t, n.orders.deletes.items)
	require.Empty(t, n.orders.copies.items)
	require.Empty(t, n.orders.verifies.items)
	_, err = store.Open(1, 1)
	require.NoError(t, err)
}

// TestOrdersOfASessionThatIsOverAreDropped: the leader has given the node up meanwhile, perhaps, and has had another replica
// deleted instead.
func TestOrdersOfASessionThatIsOverAreDropped(t *testing.T) {
	store, _ := makeStore(t)
	n, err := New(Config{Node: "i-1", Store: Blocks(store), Dialer: &site{}})
	require.NoError(t, err)
	b := put(t, store, 1, content(1, 10))
	require.NoError(t, n.Obey(Order{Term: 1, Delete: []hdfs.Block{b}, Copy: []Copy{{Block: b}}}))
	listen(t, n) // to the session that follows
	require.Empty(t, n.orders.deletes.items)
	require.Empty(t, n.orders.copies.items)
	require.NoError(t, n.Obey(Order{Term: 1, Delete: []hdfs.Block{b}}))
	require.Len(t, n.orders.deletes.items, 1)
}

// slow is a store that takes its time to delete.
type slow struct{ Store }

func (s slow) Delete(id hdfs.BlockID, stamp hdfs.Stamp) error {
	time.Sleep(deletesFor)
	return s.Store.Delete(id, stamp)
}

// TestAnOrderToDeleteDoesNotHoldForEver: the leader that has heard nothing of it counts on the replica again by now.
func TestAnOrderToDeleteDoesNotHoldForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, _ := makeStore(t)
		n, err := New(Config{Node: "i-1", Store: slow{Blocks(store)}, Dialer: &site{}})
		require.NoError(t, err)
		first, second := put(t, store, 1, content(1, 10)), put(t, store, 2, content(2, 10))
		f := n.news.add()
		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		work.Go(func() { n.deleter(ctx) })
		require.NoError(t, n.Obey(Order{Term: 1, Delete: []hdfs.Block{first, second}}))
		time.Sleep(10 * deletesFor)
		said, _ := n.news.take(f)
		require.Equal(t, []Change{{Block: first, State: Gone}}, said, "the other one has waited for too long")
		require.NoError(t, n.Obey(Order{Term: 1, Delete: []hdfs.Block{second}}))
		time.Sleep(10 * deletesFor)
		said, _ = n.news.take(f)
		require.Equal(t, []Change{{Block: second, State: Gone}}, said, "it is ordered anew")
		cancel()
		work.Wait()
		require.NoError(t, store.Close())
	})
}

// TestEverySessionIsToldOfDamage: a new leader would take what was found before for good, and does from the end of the list on.
func TestEverySessionIsToldOfDamage(t *testing.T) {
	store, _ := makeStore(t)
	n, err := New(Config{Node: "i-1", Store: Blocks(store), Dialer: &site{}})
	require.NoError(t, err)
	damaged, mended, deleted := put(t, store, 1, content(1, 10)), put(t, store, 2, content(2, 10)), put(t, store, 3, content(3, 10))
	for _, b := range []hdfs.Block{damaged, mended, deleted} {
		n.news.tell(Change{Block: b, State: Bad, Reason: "a bit has flipped"})
	}
	n.news.tell(Change{Block: mended, State: Final})
	n.news.tell(Change{Block: deleted, State: Gone})
	for range 2 {
		h := listen(t, n)
		require.True(t, h.next(t).First)
		require.Equal(t, Report{Changes: []Change{{Block: damaged, State: Bad, Reason: "a bit has flipped"}}}, h.next(t))
		require.True(t, h.next(t).Last)
	}
}

func TestACopyIsMadeByOrder(t *testing.T) {
	for _, size := range []int{1, wire.MaxData, 3*wire.MaxData + 5} {
		s := newSite(t, 3)
		data := content(2, size)
		b := put(t, s.nodes["i-1"].store, 1, data)
		targets := []hdfs.Node{s.nodes["i-2"].place(), s.nodes["i-3"].place()}
		h2, h3 := listen(t, s.nodes["i-2"].Node), listen(t, s.nodes["i-3"].Node)
		require.NoError(t, s.nodes["i-1"].Obey(Order{Term: 1, Copy: []Copy{{Block: b, To: targets}}}))
		require.Equal(t, b, h2.wait(t, 1, Final).Block)
		require.Equal(t, b, h3.wait(t, 1, Final).Block)
		for _, n := range targets {
			require.NoError(t, s.nodes[n.ID].store.Verify(context.Background(), 1, 1, nil))
		}
	}
}

func TestACopyThatBrokeOffIsMadeByTheNextOrder(t *testing.T) {
	s := newSite(t, 2)
	data := content(2, 3*wire.MaxData)
	b := put(t, s.nodes["i-1"].store, 1, data)
	broken := s.dial(t, "i-2", wire.Setup{Block: 1, Stamp: b.Stamp, Limit: b.Size})
	until(t, broken, wire.Ready)
	require.NoError(t, broken.Send(packet(0, false, data[:wire.MaxData]), within))
	for until(t, broken, wire.Ready).Length == 0 {
	}
	broken.Close() // as when another node that had the block died while it copied it
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		assert.NoError(c, s.nodes["i-1"].copy(context.Background(), Copy{Block: b, To: []hdfs.Node{s.nodes["i-2"].place()}}))
	}, within, 10*time.Millisecond)
	require.NoError(t, s.nodes["i-2"].store.Verify(context.Background(), 1, 1, nil))
}

func TestADamagedReplicaIsNotCopied(t *testing.T) {
	s := newSite(t, 2)
	r := s.nodes["i-1"]
	b := put(t, r.store, 1, content(2, 3*wire.MaxData))
	damage(t, r.store, r.fs, b, 2*wire.MaxData)
	h := listen(t, r.Node)
	require.NoError(t, r.Obey(Order{Term: 1, Copy: []Copy{{Block: b, To: []hdfs.Node{s.nodes["i-2"].place()}}}}))
	require.Contains(t, h.wait(t, 1, Bad).Reason, "checksum does not match")
	_, err := s.nodes["i-2"].store.Open(1, 1)
	require.ErrorIs(t, err, hdfs.ErrNoBlock)
}

func TestCopiesThatCannotBeMade(t *testing.T) {
	s := newSite(t, 2)
	r := s.nodes["i-1"]
	b := put(t, r.store, 1, content(2, 100))
	to := []hdfs.Node{s.nodes["i-2"].place()}
	require.ErrorIs(t, r.copy(context.Background(), Copy{Block: hdfs.Block{ID: 2, Stamp: 1}, To: to}), hdfs.ErrNoBlock)
	require.ErrorIs(t, r.copy(context.Background(), Copy{Block: b}), hdfs.ErrInvalid)
	require.NoError(t, r.copy(context.Background(), Copy{Block: b, To: to}))
	there := s.nodes["i-2"]
	require.Eventually(t, func() bool { // the last acknowledgement comes before the block is given up
		there.mu.Lock()
		defer there.mu.Unlock()
		return len(there.active) == 0
	}, within, time.Millisecond)
	require.ErrorIs(t, r.copy(context.Background(), Copy{Block: b, To: to}), hdfs.ErrExist, "it is there already")
	s.nodes["i-2"].srv.Close()
	require.Error(t, r.copy(context.Background(), Copy{Block: b, To: to}))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, r.copy(ctx, Copy{Block: b, To: to}), context.Canceled)
}

// dial opens a pipeline by hand.
func (s *site) dial(t *testing.T, node string, setup wire.Setup) *wire.Conn {
	c, err := wire.Dial(context.Background(), s.clients[node], s.nodes[node].srv.URL, setup, wire.Timing{}.WithDefaults())
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// until reads acknowledgements until one of that state, or that a member failed.
func until(t *testing.T, c *wire.Conn, s wire.State) wire.Ack {
	t.Helper()
	for {
		a, err := c.Ack(within)
		require.NoError(t, err)
		if a.State >= s {
			return a
		}
	}
}

func packet(offset int64, final bool, data []byte) *wire.Packet {
	p := wire.NewPacket()
	p.Reset(offset)
	p.Append(data, wire.MaxData)
	p.Seal()
	p.Final = final
	return p
}

func TestWhatAMemberRefuses(t *testing.T) {
	whole := content(1, hdfs.ChunkSize)
	flipped := packet(0, true, whole)
	flipped.Data()[77] ^= 1
	for name, c := range map[string]struct {
		setup wire.Setup
		send  *wire.Packet
		link  bool
		err   error
	}{
		"a block that is there":     {wire.Setup{Block: 1, Stamp: 1, Limit: 1 << 20}, nil, false, hdfs.ErrExist},
		"to recover what is not":    {wire.Setup{Block: 2, Stamp: 2, Limit: 1 << 20, Recover: &wire.Recover{From: 1}}, nil, false, hdfs.ErrNoBlock},
		"to recover more than is":   {wire.Setup{Block: 1, Stamp: 2, Limit: 1 << 20, Recover: &wire.Recover{From: 1, Length: 1 << 20}}, nil, false, hdfs.ErrCorrupt},
		"a packet too far":          {wire.Setup{Block: 2, Stamp: 1, Limit: 1 << 20}, packet(hdfs.ChunkSize, true, whole), true, wire.ErrProtocol},
		"more than was announced":   {wire.Setup{Block: 2, Stamp: 1, Limit: 10}, packet(0, true, whole), true, wire.ErrProtocol},
		"damaged bytes":             {wire.Setup{Block: 2, Stamp: 1, Limit: 1 << 20}, flipped, true, hdfs.ErrCorrupt},
		"a packet that cannot be":   {wire.Setup{Block: 2, Stamp: 1, Limit: 1 << 20}, packet(0, false, whole[:5]), true, wire.ErrProtocol},
		"a node that is not there":  {wire.Setup{Block: 2, Stamp: 1, Limit: 1 << 20, Nodes: []wire.Next{{Node: "i-1", Address: "http://127.0.0.1:1"}}}, nil, true, nil},
		"an address that cannot be": {wire.Setup{Block: 2, Stamp: 1, Limit: 1 << 20, Nodes: []wire.Next{{Node: "i-1", Address: ":"}}}, nil, true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, 1)
			put(t, s.nodes["i-1"].store, 1, whole)
			conn := s.dial(t, "i-1", c.setup)
			if c.send != nil {
				require.Equal(t, wire.Ready, until(t, conn, wire.Ready).State)
				require.NoError(t, conn.Send(c.send, within))
			}
			a := until(t, conn, wire.Failed)
			require.Equal(t, c.link, a.Fault.Link)
			require.Equal(t, len(c.setup.Nodes), a.Fault.Member)
			if c.err != nil {
				require.ErrorIs(t, a.Fault, c.err)
			} else {
				require.Equal(t, wire.Unreachable, a.Fault.Code)
				require.ErrorContains(t, a.Fault, "node i-1")
			}
		})
	}
}

func TestNoMoreWritersThanAllowed(t *testing.T) {
	s := newSite(t, 1, func(c *Config) { c.Writers = 1 })
	first := s.dial(t, "i-1", wire.Setup{Block: 1, Stamp: 1, Limit: 1 << 20})
	until(t, first, wire.Ready)
	a := until(t, s.dial(t, "i-1", wire.Setup{Block: 2, Stamp: 1, Limit: 1 << 20}), wire.Failed)
	require.ErrorIs(t, a.Fault, hdfs.ErrUnavailable)
	require.Equal(t, wire.Fault{Code: wire.Busy, Text: "not available now: 1 blocks are being written to this node"}, *a.Fault)
	require.NoError(t, first.Send(packet(0, true, []byte("x")), within))
	require.Equal(t, wire.Final, until(t, first, wire.Final).State)
}

func TestNoMoreReadersThanAllowed(t *testing.T) {
	s := newSite(t, 1, func(c *Config) { c.Readers, c.ReaderWait = 1, time.Millisecond })
	r := s.nodes["i-1"]
	b := put(t, r.store, 1, content(1, 10))
	r.readers <- struct{}{}
	resp, err := s.clients["i-1"].Get(wire.Read{Block: b.ID, Stamp: b.Stamp, Length: 10}.URL(r.srv.URL))
	require.NoError(t, err)
	defer resp.Body.Close()
	err = wire.Refusal(resp)
	require.ErrorIs(t, err, hdfs.ErrUnavailable)
	require.ErrorContains(t, err, "1 blocks are being read from this node")
}

func TestRequestsThatCannotBe(t *testing.T) {
	s := newSite(t, 1)
	url := s.nodes["i-1"].srv.URL
	b := "b-0000000000000001"
	for ask, status := range map[string]int{
		"/v1/pipeline":                                                   http.StatusUpgradeRequired,
		"/v1/blocks/x?stamp=1&offset=0&length=1":                         http.StatusBadRequest,
		"/v1/blocks/b-1?stamp=1&offset=0&length=1":                       http.StatusBadRequest,
		"/v1/blocks/" + b:                                                http.StatusBadRequest,
		"/v1/blocks/" + b + "?stamp=1&offset=-1&length=1":                http.StatusBadRequest,
		"/v1/blocks/" + b + "?stamp=1&offset=0&length=9999999999999":     http.StatusBadRequest,
		"/v1/blocks/" + b + "?stamp=1&offset=0&length=1":                 http.StatusNotFound,
		"/v1/blocks/" + strings.Repeat("b", 1000) + "?stamp=1&offset=0&": http.StatusBadRequest,
	} {
		resp, err := s.clients["i-1"].Get(url + ask)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, status, resp.StatusCode, ask)
	}
	req, err := http.NewRequest(http.MethodGet, url+wire.PipelinePath, nil)
	require.NoError(t, err)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "millrace-block")
	resp, err := s.clients["i-1"].Do(req)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusBadRequest, resp.StatusCode, "without a setup")
}

func TestALaterStampTakesTheBlockOver(t *testing.T) {
	s := newSite(t, 1)
	old := s.dial(t, "i-1", wire.Setup{Block: 1, Stamp: 5, Limit: 1 << 20})
	until(t, old, wire.Ready)
	data := content(1, 2*hdfs.ChunkSize)
	require.NoError(t, old.Send(packet(0, false, data), within))
	for until(t, old, wire.Ready).Length == 0 {
	}
	a := until(t, s.dial(t, "i-1", wire.Setup{Block: 1, Stamp: 4, Limit: 1 << 20}), wire.Failed)
	require.ErrorIs(t, a.Fault, hdfs.ErrStale)
	now := s.dial(t, "i-1", wire.Setup{Block: 1, Stamp: 6, Limit: 1 << 20, Recover: &wire.Recover{From: 5, Length: hdfs.ChunkSize}})
	require.EqualValues(t, hdfs.ChunkSize, until(t, now, wire.Ready).Length)
	require.NoError(t, now.Send(packet(hdfs.ChunkSize, true, data[hdfs.ChunkSize:]), within))
	require.EqualValues(t, len(data), until(t, now, wire.Final).Length)
	for { // the old one is shut out, after what was said before
		if _, err := old.Ack(within); err != nil {
			break
		}
	}
	require.NoError(t, s.nodes["i-1"].store.Verify(context.Background(), 1, 6, nil))
}

func TestABlockThatIsBeingWrittenCanBeDeleted(t *testing.T) {
	s := newSite(t, 1)
	conn := s.dial(t, "i-1", wire.Setup{Block: 1, Stamp: 5, Limit: 1 << 20})
	until(t, conn, wire.Ready)
	h := listen(t, s.nodes["i-1"].Node)
	require.NoError(t, s.nodes["i-1"].Obey(Order{Term: 1, Delete: []hdfs.Block{{ID: 1, Stamp: 5}}}))
	h.wait(t, 1, Gone)
	for b := range s.nodes["i-1"].store.Blocks() {
		t.Errorf("%v is left", b)
	}
}

func TestTheEndOfANodeBreaksOffWritesAndKeepsTheirReplicas(t *testing.T) {
	s := newSite(t, 2)
	conn := s.dial(t, "i-1", wire.Setup{Block: 1, Stamp: 5, Limit: 1 << 20, Nodes: []wire.Next{{Node: "i-2", Address: s.nodes["i-2"].srv.URL}}})
	until(t, conn, wire.Ready)
	require.NoError(t, conn.Send(packet(0, false, content(1, hdfs.ChunkSize)), within))
	for until(t, conn, wire.Ready).Length == 0 {
	}
	s.nodes["i-1"].end()
	for {
		if _, err := conn.Ack(within); err != nil {
			break
		}
	}
	var got []hdfs.Block
	for b, unfinished := range s.nodes["i-1"].store.Blocks() {
		require.True(t, unfinished)
		got = append(got, b)
	}
	require.Equal(t, []hdfs.Block{{ID: 1, Stamp: 5, Size: hdfs.ChunkSize}}, got)
	late, err := wire.Dial(context.Background(), s.clients["i-1"], s.nodes["i-1"].srv.URL, wire.Setup{Block: 2, Stamp: 5, Limit: 1}, wire.Timing{}.WithDefaults())
	if err == nil {
		_, err = late.Ack(within)
		late.Close()
	}
	require.Error(t, err, "it takes none any more")
}

// verified notes when replicas are read again.
type verified struct {
	Store
	mu   sync.Mutex
	last map[hdfs.BlockID]time.Time
	most time.Duration // between two times
}

func (v *verified) Verify(ctx context.Context, id hdfs.BlockID, stamp hdfs.Stamp, wait func(context.Context, int) error) error {
	err := v.Store.Verify(ctx, id, stamp, wait)
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	v.most = max(v.most, now.Sub(v.last[id]))
	v.last[id] = now
	return err
}

func TestEveryReplicaIsReadAgainWithinAWeek(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, fs := makeStore(t)
		v := &verified{Store: Blocks(store), last: map[hdfs.BlockID]time.Time{}}
		for id := hdfs.BlockID(1); id <= 20; id++ {
			put(t, store, id, content(uint64(id), 20_000*int(id)))
			v.last[id] = time.Now()
		}
		n, err := New(Config{Node: "i-1", Store: v, Dialer: &site{}, DisksEvery: time.Hour})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		bad := map[hdfs.BlockID]bool{}
		var work sync.WaitGroup
		work.Go(func() { n.Run(ctx) })
		work.Go(func() {
			_ = n.Reports(ctx, func(r Report) error {
				for _, c := range r.Changes {
					if c.State == Bad {
						bad[c.Block.ID] = true
					}
				}
				return nil
			})
		})
		time.Sleep(15 * 24 * time.Hour)
		require.Empty(t, bad)
		damage(t, store, fs, hdfs.Block{ID: 3, Stamp: 1}, 40_000)
		time.Sleep(7 * 24 * time.Hour)
		synctest.Wait()
		require.Equal(t, map[hdfs.BlockID]bool{3: true}, bad)
		cancel()
		work.Wait()
		require.Less(t, v.most, 7*24*time.Hour)
		require.Greater(t, v.most, 2*24*time.Hour, "nor all the time")
		require.NoError(t, store.Close())
	})
}

func TestScrubbingIsAsFastAsItMustBe(t *testing.T) {
	const week = 7 * 24 * time.Hour
	require.EqualValues(t, scrubLeast, scrubRateFor(1, week, 1<<30))
	require.InDelta(t, (8<<40)/(week.Seconds()/2), float64(scrubRateFor(8<<40, week, 1<<30)), 1, "8 TiB in half a week")
	require.EqualValues(t, 1<<20, scrubRateFor(8<<40, week, 1<<20))
}

func TestPaceKeepsARate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		require.NoError(t, pace(t.Context(), began, 10<<20, 1<<20))
		require.Equal(t, 10*time.Second, time.Since(began))
		require.NoError(t, pace(t.Context(), began, 5<<20, 1<<20))
		require.Equal(t, 10*time.Second, time.Since(began))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.True(t, errors.Is(pace(ctx, began, 100<<20, 1), context.Canceled))
	})
}
