package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"millrace/pkg/api"
	"millrace/pkg/api/apiconnect"
	"millrace/pkg/client"
	"millrace/pkg/membership"
	"millrace/pkg/objectstore"
	"millrace/pkg/objectstore/objectstoretest"
	"millrace/pkg/security"
)

const masterID = "i-0000000000000000f"

// fakeMaster is a site with one master, whose scheduler is the test.
type fakeMaster struct {
	joined []string // nodes
	apiconnect.UnimplementedJoinServiceHandler
	t      *testing.T
	ca     *security.CA
	token  security.Token
	store  *objectstore.Memory
	files  *objectstoretest.Files
	gossip *membership.Membership
	key    []byte

	addr   string
	srv    *http.Server
	served chan struct{}

	mu       sync.Mutex
	changed  chan struct{}
	term     uint64
	roles    map[string]string                           // by node name
	places   map[string]place                            // by node id, of nodes that have another one than they joined for
	welcome  func(*api.SessionWelcome, *api.WorkerHello) // adds to what a node is told
	sessions map[string]*fakeSession
	silent   bool // takes everything and answers nothing
	removed  bool // all nodes are
}

type fakeSession struct {
	hello  *api.WorkerHello
	got    []*api.WorkerMessage
	out    chan *api.MasterMessage
	cancel context.CancelFunc
	err    error
	over   bool
}

func newMaster(t *testing.T) *fakeMaster {
	t.Helper()
	ca, err := security.NewCA("site-test")
	require.NoError(t, err)
	token, err := security.NewToken(ca.CertPEM())
	require.NoError(t, err)
	m := &fakeMaster{t: t, ca: ca, token: token, store: objectstore.NewMemory(), files: objectstoretest.NewFiles(), term: 1, changed: make(chan struct{}),
		roles: map[string]string{}, places: map[string]place{}, sessions: map[string]*fakeSession{}, key: make([]byte, 32), addr: "127.0.0.1:0"}
	require.NoError(t, m.store.MakeBucket(context.Background(), "sys"))
	m.start()
	t.Cleanup(m.stop)
	m.gossip, err = membership.New(membership.Config{ID: masterID, Role: membership.RoleMaster, Address: m.url(), Listen: "127.0.0.1:0", Key: m.key})
	require.NoError(t, err)
	require.NoError(t, m.gossip.Open(context.Background()))
	t.Cleanup(func() { require.NoError(t, m.gossip.Close()) })
	return m
}

func (m *fakeMaster) url() string { return "https://" + m.addr }

func (m *fakeMaster) credential(role security.Role, id string) security.Credential {
	key, csr, err := security.NewKey()
	require.NoError(m.t, err)
	cert, _, err := m.ca.Sign(csr, security.Identity{Site: "site-test", Role: role, ID: id}, nil, time.Now(), time.Hour)
	require.NoError(m.t, err)
	return security.Credential{CertPEM: cert, KeyPEM: key, CAPEM: m.ca.CertPEM()}
}

func (m *fakeMaster) start() {
	config, err := m.credential(security.RoleMaster, masterID).ServerTLS(false)
	require.NoError(m.t, err)
	var l net.Listener
	require.Eventually(m.t, func() bool { l, err = net.Listen("tcp", m.addr); return err == nil }, time.Minute, 10*time.Millisecond)
	if a := l.Addr().String(); a != m.addr { // the first start; later ones may have readers beside them
		m.addr = a
	}
	mux := http.NewServeMux()
	mux.Handle(apiconnect.NewJoinServiceHandler(m))
	mux.Handle(apiconnect.NewWorkerServiceHandler(m))
	m.srv = &http.Server{Handler: mux, ErrorLog: zap.NewStdLog(zap.NewNop())}
	m.served = make(chan struct{})
	go func(s *http.Server, done chan struct{}) {
		defer close(done)
		config.NextProtos = []string{"h2", "http/1.1"}
		s.TLSConfig = config
		_ = s.ServeTLS(l, "", "")
	}(m.srv, m.served)
}

// stop is a master's sudden death.
func (m *fakeMaster) stop() {
	m.srv.Close()
	<-m.served
}

func (m *fakeMaster) change(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
	close(m.changed)
	m.changed = make(chan struct{})
}

// wait waits until f, called with mu held, is true.
func (m *fakeMaster) wait(what string, f func() bool) {
	m.t.Helper()
	late := time.After(time.Minute)
	for {
		m.mu.Lock()
		ok, changed := f(), m.changed
		m.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-late:
			m.mu.Lock()
			defer m.mu.Unlock()
			for name, s := range m.sessions {
				m.t.Logf("%s: hello %v over %v %v", name, s.hello, s.over, s.err)
				for _, g := range s.got {
					if g.GetHeartbeat() == nil {
						m.t.Logf("  %v", g)
					}
				}
			}
			m.t.Fatalf("waited in vain for %s", what)
		}
	}
}

func (m *fakeMaster) Join(_ context.Context, r *connect.Request[api.JoinRequest]) (*connect.Response[api.JoinResponse], error) {
	if r.Msg.Token != m.token.String() {
		return nil, connect.NewError(connect.CodeUnauthenticated, fmt.Errorf("token refused"))
	}
	cert, _, err := m.ca.Sign(r.Msg.CsrDer, security.Identity{Site: "site-test", Role: security.RoleWorker, ID: r.Msg.NodeId}, nil, time.Now(), time.Hour)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	role, cluster := m.roles[r.Msg.Name], "j-1"
	m.joined = append(m.joined, r.Msg.NodeId)
	m.mu.Unlock()
	if role == poolRole {
		cluster = ""
	}
	return connect.NewResponse(&api.JoinResponse{CertificatePem: cert, CaPem: m.ca.CertPEM(), Cluster: cluster, Role: role, Site: "site-test",
		GossipKey: m.key, Masters: []string{m.url()}, GossipPeers: []string{m.gossip.Addr()}}), nil
}

func (m *fakeMaster) Session(ctx context.Context, st *connect.BidiStream[api.WorkerMessage, api.MasterMessage]) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	first, err := st.Receive()
	if err != nil || first.GetHello() == nil {
		return fmt.Errorf("no hello: %v", err)
	}
	h := first.GetHello()
	s := &fakeSession{hello: h, out: make(chan *api.MasterMessage, 100), cancel: cancel}
	m.mu.Lock()
	term, silent, removed := m.term, m.silent, m.removed
	m.mu.Unlock()
	if removed {
		err := connect.NewError(connect.CodeUnauthenticated, errors.New("node "+h.NodeId+" was removed"))
		err.Meta().Set(client.RemovedHeader, "yes")
		return err
	}
	if silent {
		<-ctx.Done()
		return ctx.Err()
	}
	m.mu.Lock()
	at, moved := m.places[h.NodeId]
	welcome := &api.SessionWelcome{Term: term, Cluster: h.Cluster, Role: h.Role, LeaseMs: 60_000,
		Store: &api.ObjectStore{Endpoint: "http://memory"}, SystemPrefix: "s3://sys/p/"}
	if moved {
		welcome.Cluster, welcome.Role = at.cluster, at.role
	}
	if m.welcome != nil {
		m.welcome(welcome, h)
	}
	m.mu.Unlock()
	if err := st.Send(&api.MasterMessage{Message: &api.MasterMessage_Welcome{Welcome: welcome}}); err != nil {
		return err
	}
	if moved && (place{h.Cluster, h.Role}) != at {
		return connect.NewError(connect.CodeAborted, errors.New("the node has another place"))
	}
	m.change(func() { m.sessions[h.NodeId] = s })
	ended := make(chan error, 1)
	go func() {
		for {
			g, err := st.Receive()
			if err != nil {
				ended <- err
				return
			}
			m.change(func() { s.got = append(s.got, g) })
			m.mu.Lock()
			silent := m.silent
			m.mu.Unlock()
			if g.GetHeartbeat() != nil && !silent {
				s.out <- &api.MasterMessage{Message: &api.MasterMessage_Pong{Pong: &api.Pong{}}}
			}
		}
	}()
	for {
		select {
		case err := <-ended:
			m.change(func() { s.err, s.over = err, true })
			return nil
		case <-ctx.Done():
			err := ctx.Err()
			select {
			case err = <-ended: // if both are so, this came first
			default:
			}
			m.change(func() { s.err, s.over = err, true })
			return connect.NewError(connect.CodeAborted, ctx.Err())
		case o := <-s.out:
			if err := st.Send(o); err != nil {
				return err
			}
		}
	}
}

// fakeNode is a worker under test, as its master sees it.
type fakeNode struct {
	m    *fakeMaster
	w    *Worker
	id   string
	dir  string
	stop context.CancelFunc
	done chan error
}

func (m *fakeMaster) worker(name, role string, change ...func(*Config)) *fakeNode {
	m.t.Helper()
	m.mu.Lock()
	m.roles[name] = role
	m.mu.Unlock()
	n := &fakeNode{m: m, dir: filepath.Join(m.t.TempDir(), name)}
	n.run(append([]func(*Config){func(c *Config) { c.Name = name }}, change...)...)
	return n
}

// run starts the node, on its directory, and waits for its session.
func (n *fakeNode) run(change ...func(*Config)) {
	n.m.t.Helper()
	c := Config{Dir: n.dir, Join: []string{n.m.url()}, Token: n.m.token.String(), Listen: "127.0.0.1:0", Slots: 2, MemoryBytes: 1 << 30,
		Log: zaptest.NewLogger(n.m.t, zaptest.Level(zap.InfoLevel))}
	for _, ch := range change {
		ch(&c)
	}
	w, err := New(c)
	require.NoError(n.m.t, err)
	w.openStore = func(*api.ObjectStore) (objectstore.Store, error) { return n.m.store, nil }
	w.clusterFiles = n.m.files
	ctx, cancel := context.WithCancel(context.Background())
	n.w, n.stop, n.done = w, cancel, make(chan error, 1)
	done := n.done
	go func() { done <- w.Run(ctx); close(done) }()
	n.m.t.Cleanup(func() { cancel(); <-done })
	n.m.wait("a session", func() bool {
		for id, s := range n.m.sessions {
			if strings.HasPrefix(s.hello.Incarnation, w.incarnation) {
				n.id = id
				return true
			}
		}
		return false
	})
}

func (n *fakeNode) end() {
	n.m.t.Helper()
	n.stop()
	require.NoError(n.m.t, <-n.done)
}

func (n *fakeNode) send(o *api.MasterMessage) {
	n.m.mu.Lock()
	s := n.m.sessions[n.id]
	n.m.mu.Unlock()
	s.out <- o
}

func (n *fakeNode) lease(l *api.Lease) {
	n.send(&api.MasterMessage{Message: &api.MasterMessage_Lease{Lease: l}})
}

func (n *fakeNode) places(list ...*api.SegmentLocation) {
	n.send(&api.MasterMessage{Message: &api.MasterMessage_Locations{Locations: &api.SegmentLocations{Job: "s-J", Segments: list}}})
}

func (n *fakeNode) address() string {
	n.m.mu.Lock()
	defer n.m.mu.Unlock()
	return n.m.sessions[n.id].hello.Address
}

// saw says whether the present session has brought a message that fits. mu is held.
func (n *fakeNode) saw(fits func(*api.WorkerMessage) bool) bool {
	return slices.ContainsFunc(n.m.sessions[n.id].got, fits)
}

func (n *fakeNode) await(what string, fits func(*api.WorkerMessage) bool) {
	n.m.t.Helper()
	n.m.wait(what, func() bool { return n.saw(fits) })
}

// report waits for the report of an attempt.
func (n *fakeNode) report(attempt string) (r *api.AttemptReport) {
	n.m.t.Helper()
	n.await("the report of "+attempt, func(g *api.WorkerMessage) bool {
		if g.GetReport().GetAttempt() == attempt {
			r = g.GetReport()
			return true
		}
		return false
	})
	return r
}

func (n *fakeNode) ack(attempt string, accepted bool) {
	n.send(&api.MasterMessage{Message: &api.MasterMessage_Ack{Ack: &api.ReportAck{Attempt: attempt, Accepted: accepted}}})
}

func mapLease(i int, args ...string) *api.Lease {
	return &api.Lease{Job: "s-J", Attempt: fmt.Sprintf("s-J-m-%05d-1-%d", i, i+1), Kind: api.TaskKind_TASK_KIND_MAP, Index: int32(i), Partitions: 2,
		Program: &api.Program{Kind: api.ProgramKind_PROGRAM_KIND_BUILTIN, Args: args}}
}

func reduceLease(i, maps int, args ...string) *api.Lease {
	return &api.Lease{Job: "s-J", Attempt: fmt.Sprintf("s-J-r-%05d-1-%d", i, 100+i), Kind: api.TaskKind_TASK_KIND_REDUCE, Index: int32(i), Maps: int32(maps),
		Program: &api.Program{Kind: api.ProgramKind_PROGRAM_KIND_BUILTIN, Args: args}}
}

func (m *fakeMaster) tlsClient(role security.Role, id, server string) *http.Client {
	config, err := m.credential(role, id).ClientTLS(server)
	require.NoError(m.t, err)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
}

// someone is who comes with a certificate of the site, by its role.
var someone = map[security.Role]string{security.RoleMaster: masterID, security.RoleWorker: "i-00000000000000abc", security.RoleUser: "someone"}

// Members takes all nodes that have joined for one cluster's.
func (m *fakeMaster) Members(context.Context, *connect.Request[api.MembersRequest]) (*connect.Response[api.MembersResponse], error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	resp := &api.MembersResponse{Id: fmt.Sprint(len(m.joined)), Users: []*api.MemberUser{{Name: someone[security.RoleUser], Role: "read"}},
		Nodes: []*api.MemberNode{{Node: masterID, Master: true}, {Node: someone[security.RoleWorker], Fellow: true, Files: true}}}
	for _, id := range m.joined {
		resp.Nodes = append(resp.Nodes, &api.MemberNode{Node: id, Fellow: true, Files: true})
	}
	return connect.NewResponse(resp), nil
}
