package server

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"millrace/master/session"
	"millrace/master/state"
	"millrace/master/tracker"
	"millrace/pkg/api"
	"millrace/pkg/api/apiconnect"
	"millrace/pkg/audit"
	"millrace/pkg/client"
	"millrace/pkg/objectstore"
	"millrace/pkg/security"
)

const (
	site     = "ours"
	masterID = "i-000000000000000aa"
	workerID = "i-000000000000000bb"
)

// directLog applies commands at once, as the log of a single master would.
type directLog struct {
	mu     sync.Mutex
	store  *state.Store
	index  uint64
	fault  error  // what the next Apply gives instead
	before func() // done once, before what is applied next
}

func (l *directLog) Apply(ctx context.Context, c state.Command) (any, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if before := l.before; before != nil {
		l.before = nil
		l.mu.Unlock()
		before()
		l.mu.Lock()
	}
	if err := l.fault; err != nil {
		return nil, err
	}
	l.index++
	return l.store.Apply(l.index, c)
}

// fakeTracker knows what it is told.
type fakeTracker struct {
	mu        sync.Mutex
	live      map[string]tracker.Live
	watchers  []chan struct{}
	submitted []string
	cancelled []string
	reason    string // why a node gets no leases
	drained   tracker.Drain
	away      tracker.Away
	changed   []string // nodes
	clusters  []string // that changed
}

func (f *fakeTracker) Submitted(job string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.submitted = append(f.submitted, job)
}

func (f *fakeTracker) Cancelled(job string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cancelled = append(f.cancelled, job)
}

func (f *fakeTracker) Live(job string) (tracker.Live, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, ok := f.live[job]
	return l, ok
}

func (f *fakeTracker) Lives(jobs []string) map[string]tracker.Live {
	lives := map[string]tracker.Live{}
	for _, id := range jobs {
		if l, ok := f.Live(id); ok {
			lives[id] = l
		}
	}
	return lives
}

func (f *fakeTracker) Changed(string) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	ch := make(chan struct{})
	f.watchers = append(f.watchers, ch)
	return ch
}

func (f *fakeTracker) Queued(string) int             { return 7 }
func (f *fakeTracker) StoreAway(string) tracker.Away { return f.away }
func (f *fakeTracker) RunningOn(string) int          { return 1 }
func (f *fakeTracker) Reason(string) string          { return f.reason }

func (f *fakeTracker) NodeChanged(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changed = append(f.changed, id)
}

func (f *fakeTracker) ClusterChanged(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clusters = append(f.clusters, id)
}

func (f *fakeTracker) Drained(string) tracker.Drain {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.drained
}

// set changes what is live and tells the watchers.
func (f *fakeTracker) set(job string, l tracker.Live) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.live[job] = l
	for _, ch := range f.watchers {
		close(ch)
	}
	f.watchers = nil
}

// fakeSessions has the nodes it is given, and keeps each session until its caller goes.
type fakeSessions struct {
	nodes  []session.Node
	served chan string

	mu     sync.Mutex
	asked  int                  // how often for the nodes
	late   int                  // how often only the first of them is there: the others are on their way
	probed []string             // nodes, in the order in which they were asked
	why    map[string]string    // what they answer; "-": nothing at all
	seen   map[string]time.Time // nodes that are gone
}

func (f *fakeSessions) LastSeen(node string) time.Time { return f.seen[node] }

func (f *fakeSessions) Probe(ctx context.Context, node string, p *api.StoreProbe) (string, error) {
	f.mu.Lock()
	f.probed = append(f.probed, node)
	why := f.why[node]
	f.mu.Unlock()
	switch why {
	case "-":
		<-ctx.Done()
		return "", ctx.Err()
	case "gone":
		return "", session.ErrNotConnected
	}
	return why, nil
}

func (f *fakeSessions) Nodes() []session.Node {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asked++; f.asked <= f.late {
		return f.nodes[:1]
	}
	return f.nodes
}

func (f *fakeSessions) Serve(_ context.Context, nodeID string, s session.Stream) error {
	if _, err := s.Receive(); err != nil {
		return err
	}
	f.served <- nodeID
	return s.Send(&api.MasterMessage{Message: &api.MasterMessage_Welcome{Welcome: &api.SessionWelcome{Term: 9}}})
}

type oneStore struct {
	store objectstore.Store
	files map[string]objectstore.Store // by cluster
}

func (o oneStore) Open(*api.ObjectStore) (objectstore.Store, error) { return o.store, nil }

func (o oneStore) WithFiles(s objectstore.Store, cluster string) objectstore.Store {
	return objectstore.Mux(s, o.files[cluster])
}

type fakeCluster struct {
	leader                        string
	announced, admitted, expelled []string
	heard                         map[string]Heard
	voters                        []string
	alive                         map[string]bool
}

func (f *fakeCluster) Leader() string        { return f.leader }
func (f *fakeCluster) Alive(id string) bool  { return f.alive[id] }
func (f *fakeCluster) GossipPeers() []string { return []string{"127.0.0.1:1"} }

func (f *fakeCluster) Member(string) string      { return MemberVoter }
func (f *fakeCluster) LastHeard(id string) Heard { return f.heard[id] }
func (f *fakeCluster) Voters() []string          { return f.voters }
func (f *fakeCluster) Announced(_ context.Context, id string, _ *api.AnnounceRequest) (bool, error) {
	f.announced = append(f.announced, id)
	return true, nil
}
func (f *fakeCluster) Admit(_ context.Context, id string) error {
	f.admitted = append(f.admitted, id)
	return nil
}
func (f *fakeCluster) Expel(_ context.Context, id string) error {
	f.expelled = append(f.expelled, id)
	return nil
}

// world is a whole server on loopback, with everything beside it in memory.
type world struct {
	t        *testing.T
	ca       *security.CA
	state    *state.Store
	log      *directLog
	store    *objectstore.Memory
	files    map[string]objectstore.Store // block stores, by cluster
	tracker  *fakeTracker
	sessions *fakeSessions
	cluster  *fakeCluster
	fleet    *fakeFleet
	server   *Server
	http     *httptest.Server
	leader   *Leader
	done     chan struct{}
	audit    *notes
	mu       sync.Mutex
	now      time.Time
}

// notes are the lines of an audit log.
type notes struct {
	mu     sync.Mutex
	events []audit.Event
}

func (n *notes) Audit(e audit.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.events = append(n.events, e)
}

// take gives what was noted since the last time.
func (n *notes) take() []audit.Event {
	n.mu.Lock()
	defer n.mu.Unlock()
	events := n.events
	n.events = nil
	return events
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ca, err := security.NewCA(site)
	require.NoError(t, err)
	st := state.New()
	w := &world{
		t: t, ca: ca, state: st, log: &directLog{store: st}, store: objectstore.NewMemory(), files: map[string]objectstore.Store{},
		tracker:  &fakeTracker{live: map[string]tracker.Live{}},
		sessions: &fakeSessions{served: make(chan string, 10)},
		cluster:  &fakeCluster{}, fleet: &fakeFleet{}, done: make(chan struct{}), audit: &notes{}, now: time.Now(),
	}
	w.serve()
	w.makeSite()
	w.leader = &Leader{
		Term: 9, Sessions: w.sessions, Tracker: w.tracker, Done: w.done,
		Fleet: w.fleet, Verify: func(context.Context) error { return nil },
	}
	w.server.Lead(w.leader)
	return w
}

// serve starts the HTTPS server of one master of the site.
func (w *world) serve() {
	w.t.Helper()
	credential, err := security.NewLive(w.credential(security.RoleMaster, masterID))
	require.NoError(w.t, err)
	w.server, err = New(Config{
		NodeID: masterID, Version: "test", View: w.state.View, Log: w.log, Stores: oneStore{w.store, w.files}, Cluster: w.cluster,
		Credential: credential, Audit: w.audit, TempDir: w.t.TempDir(), Now: w.time,
	})
	require.NoError(w.t, err)
	w.http = httptest.NewUnstartedServer(w.server)
	w.http.EnableHTTP2 = true
	w.http.TLS, err = credential.ServerTLS(false, nil)
	require.NoError(w.t, err)
	w.http.StartTLS()
	w.t.Cleanup(func() {
		w.server.Close()
		w.http.CloseClientConnections()
		w.http.Close()
	})
}

func (w *world) makeSite() {
	w.t.Helper()
	seal := func(b []byte) []byte {
		sealed, err := w.server.cfg.Seal.Seal(b)
		require.NoError(w.t, err)
		return sealed
	}
	settings, err := proto.Marshal(&api.ObjectStore{Endpoint: "http://store.test", AccessKey: "key", SecretKey: "secret"})
	require.NoError(w.t, err)
	w.apply(state.CreateSite{
		Site: state.Site{
			ID: site, CAPEM: string(w.ca.CertPEM()), SealedCAKey: seal(w.ca.KeyPEM()), SealedStore: seal(settings),
			SealedGossip: seal([]byte("gossip key")), SystemPrefix: "s3://system/here/",
		},
		Cluster: state.Cluster{ID: "j-DEFAULT", Name: "default", CreatedAt: w.now, Groups: []state.Group{
			{ID: "ig-CORE", Role: state.RoleCore}, {ID: "ig-TASK", Role: state.RoleTask},
		}},
	})
	w.apply(state.CreateUser{User: state.User{Name: "alice", Role: state.UserSubmit}})
	w.apply(state.PutNode{Node: state.Node{ID: masterID, Name: "m", Role: state.RoleMaster, Address: w.http.URL}})
	require.NoError(w.t, w.store.MakeBucket(w.t.Context(), "system"))
}

func (w *world) apply(c state.Command) any {
	w.t.Helper()
	result, err := w.log.Apply(w.t.Context(), c)
	require.NoError(w.t, err)
	return result
}

func (w *world) time() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) later(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *world) credential(role security.Role, id string) security.Credential {
	w.t.Helper()
	return issue(w.t, w.ca, role, id)
}

func issue(t *testing.T, ca *security.CA, role security.Role, id string) security.Credential {
	t.Helper()
	key, csr, err := security.NewKey()
	require.NoError(t, err)
	cert, _, err := ca.Sign(csr, security.Identity{Site: ca.Site(), Role: role, ID: id}, nil, time.Now(), time.Hour)
	require.NoError(t, err)
	return security.Credential{CertPEM: cert, KeyPEM: key, CAPEM: ca.CertPEM()}
}

// client is somebody with a certificate of this site. Nothing is repeated.
func (w *world) client(role security.Role, id string) *client.Client {
	w.t.Helper()
	return w.clientWith(w.credential(role, id))
}

func (w *world) clientWith(c security.Credential) *client.Client {
	w.t.Helper()
	cl, err := client.New(client.Config{Servers: []string{w.http.URL}, Credential: c, RetryFor: -1})
	require.NoError(w.t, err)
	w.t.Cleanup(func() { cl.Close() })
	return cl
}

func (w *world) user(name string) apiconnect.MillraceServiceClient {
	w.t.Helper()
	return w.client(security.RoleUser, name).API()
}

// stranger trusts the site but has no certificate.
func (w *world) stranger() *http.Client {
	w.t.Helper()
	config, err := w.credential(security.RoleUser, "x").ClientTLS(security.MasterName)
	require.NoError(w.t, err)
	config.Certificates = nil
	return httpsClient(w.t, config)
}

func httpsClient(t *testing.T, config *tls.Config) *http.Client {
	tr := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func (w *world) put(bucket, key, content string) {
	w.t.Helper()
	err := w.store.MakeBucket(w.t.Context(), bucket)
	if err != nil {
		require.ErrorIs(w.t, err, objectstore.ErrExists)
	}
	_, err = w.store.Put(w.t.Context(), bucket, key, stringReader(content), int64(len(content)), objectstore.PutOptions{})
	require.NoError(w.t, err)
}

// wordcount is a job that can run, in a world with s3://input/a and the bucket out.
func wordcount() *api.JobSpec {
	return &api.JobSpec{
		Program: &api.Program{Kind: api.ProgramKind_PROGRAM_KIND_BUILTIN, Name: "wordcount"},
		Input:   []string{"s3://input/a"}, Output: "s3://out/x/",
	}
}

func (w *world) ready() {
	w.t.Helper()
	w.put("input", "a", "some text\n")
	require.NoError(w.t, w.store.MakeBucket(w.t.Context(), "out"))
}

func (w *world) submit(spec *api.JobSpec) *api.Job {
	w.t.Helper()
	resp, err := w.user("alice").SubmitJob(w.t.Context(), connect.NewRequest(&api.SubmitJobRequest{Spec: spec}))
	require.NoError(w.t, err)
	return resp.Msg
}

func requireProblems(t *testing.T, err error, exit int32, contains ...string) *api.Problems {
	t.Helper()
	require.Error(t, err)
	p := client.Problems(err)
	require.Equal(t, exit, p.ExitCode, "%v", p)
	text := p.String()
	for _, c := range contains {
		require.Contains(t, text, c)
	}
	return p
}

// hello sends a first message. That the other side has already refused is heard by Receive.
func hello(t *testing.T, s *connect.BidiStreamForClient[api.WorkerMessage, api.MasterMessage]) {
	t.Helper()
	if err := s.Send(&api.WorkerMessage{}); !errors.Is(err, io.EOF) {
		require.NoError(t, err)
	}
}
