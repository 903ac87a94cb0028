// Package membership finds a site's nodes by gossip (SWIM, encrypted) and says
// which of them are suspected dead. It carries a node's id, role and API
// address, nothing else. It never fences: whether a node is really gone is the
// leader's session lease to decide.
package membership

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"
)

// RoleMaster is the role under which masters are found.
const RoleMaster = "master"

const (
	rejoinEvery  = time.Second      // while no other member, or no master, is in sight
	refreshEvery = 30 * time.Second // looks for members that a partition has split off
	leaveWithin  = time.Second
	maxMeta      = memberlist.MetaMaxSize
)

// Config sets up a Membership.
type Config struct {
	ID        string   // of the node; unique in the site
	Role      string   // "master" or "worker"
	Address   string   // the node's API: https://host:port
	Listen    string   // host:port for UDP and TCP; port 0 takes any
	Advertise string   // host or host:port that others use; default: what Listen has
	Key       []byte   // 32 bytes, the same on every node of the site
	Peers     []string // host:port of members to join through; may be empty on the first node
	Log       *zap.Logger
}

// Member is one node as gossip sees it.
type Member struct {
	ID, Role string
	Address  string // the node's API
	Gossip   string // host:port
	Alive    bool   // false: suspected dead; it may come back
}

// Membership is one node's part in the gossip. Safe for concurrent use.
type Membership struct {
	cfg     Config
	self    meta // as said on leaving
	name    string
	changes chan struct{}

	mu      sync.Mutex
	list    *memberlist.Memberlist // nil before Open and after Close
	table   map[string]entry       // by node id
	peers   []string
	leaving bool
	cancel  context.CancelFunc
	done    chan struct{}
}

// meta is what a node says of itself. Started tells two lives of one node apart.
type meta struct {
	ID      string `json:"i"`
	Role    string `json:"r"`
	Address string `json:"a"`
	Started int64  `json:"s"` // Unix ns
	Left    bool   `json:"l,omitempty"`
}

type entry struct {
	Member
	name    string // in the gossip: differs from life to life
	started int64
}

// New checks the configuration and starts nothing.
func New(c Config) (*Membership, error) {
	switch {
	case c.ID == "" || strings.ContainsAny(c.ID, "/ "):
		return nil, fmt.Errorf("membership: node id %q", c.ID)
	case c.Role == "":
		return nil, errors.New("membership: no role")
	case len(c.Key) != 32:
		return nil, fmt.Errorf("membership: key has %d bytes, needs 32", len(c.Key))
	}
	if _, _, err := splitPort(c.Listen); err != nil {
		return nil, fmt.Errorf("membership: listen address: %w", err)
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	// A node that was killed and comes back on another port would be refused
	// under its old name until that is declared dead: each life has its own.
	life := make([]byte, 4)
	if _, err := rand.Read(life); err != nil {
		return nil, fmt.Errorf("membership: %w", err)
	}
	self := meta{ID: c.ID, Role: c.Role, Address: c.Address, Started: time.Now().UnixNano(), Left: true}
	data, err := json.Marshal(self)
	if err != nil || len(data) > maxMeta {
		return nil, fmt.Errorf("membership: what the node says of itself is over %d bytes: %s", maxMeta, data)
	}
	return &Membership{
		cfg: c, self: self, name: c.ID + "/" + hex.EncodeToString(life),
		changes: make(chan struct{}, 1), table: map[string]entry{}, peers: slices.Clone(c.Peers),
	}, nil
}

// Open listens, and joins through the peers in the background: that none of
// them answers yet is no error.
func (m *Membership) Open(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	conf, err := m.config()
	if err != nil {
		return err
	}
	m.mu.Lock()
	if m.done != nil {
		m.mu.Unlock()
		return errors.New("membership: opened twice")
	}
	run, cancel := context.WithCancel(context.Background())
	m.cancel, m.done = cancel, make(chan struct{})
	m.mu.Unlock()

	transport, err := newAnswering(conf, m.cfg.Key)
	var list *memberlist.Memberlist
	if err == nil {
		conf.Transport = transport
		if list, err = memberlist.Create(conf); err != nil { // calls the delegates below
			err = errors.Join(err, transport.Shutdown())
		}
	}
	if err != nil {
		cancel()
		close(m.done)
		if strings.Contains(err.Error(), syscall.EADDRINUSE.Error()) { // memberlist does not wrap it
			err = fmt.Errorf("%w (%v)", syscall.EADDRINUSE, err)
		}
		return fmt.Errorf("membership: listen on %s: %w", m.cfg.Listen, err)
	}
	m.mu.Lock()
	m.list = list
	m.mu.Unlock()
	go m.keepJoined(run, list)
	return nil
}

func (m *Membership) config() (*memberlist.Config, error) {
	host, port, err := splitPort(m.cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("membership: listen address: %w", err)
	}
	conf := memberlist.DefaultLANConfig()
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		conf = memberlist.DefaultLocalConfig()
	}
	conf.Name = m.name
	conf.BindAddr, conf.BindPort, conf.AdvertisePort = host, port, port
	if host == "" {
		conf.BindAddr = "0.0.0.0"
	} else if net.ParseIP(host) == nil {
		if conf.BindAddr, err = resolve(host); err != nil {
			return nil, fmt.Errorf("membership: listen address: %w", err)
		}
	}
	if a := m.cfg.Advertise; a != "" {
		if h, p, err := splitPort(a); err == nil {
			a = h
			if p != 0 {
				conf.AdvertisePort = p
			}
		}
		if conf.AdvertiseAddr, err = resolve(a); err != nil {
			return nil, fmt.Errorf("membership: advertised address: %w", err)
		}
	}
	conf.SecretKey = m.cfg.Key
	conf.Delegate = delegate{m}
	conf.Events = events{m}
	conf.Logger = stdLogger(m.cfg.Log)
	conf.LogOutput = nil
	return conf, nil
}

// keepJoined joins until somebody is found, and again when all have been lost.
func (m *Membership) keepJoined(ctx context.Context, list *memberlist.Memberlist) {
	defer close(m.done)
	for {
		wait := refreshEvery
		if missing := m.missing(); len(missing) > 0 {
			n, err := list.Join(missing)
			if m.lonely() {
				wait = rejoinEvery
				if n == 0 && err != nil {
					m.cfg.Log.Debug("no gossip peer answers yet", zap.Strings("peers", missing), zap.Error(err))
				}
			}
		} else if m.lonely() {
			wait = rejoinEvery
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// lonely says that no other master is in sight.
func (m *Membership) lonely() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cfg.Role == RoleMaster && len(m.peers) == 0 {
		return false // a site of one master waits to be found
	}
	for _, e := range m.table {
		if e.Alive && e.Role == RoleMaster && e.ID != m.cfg.ID {
			return false
		}
	}
	return true
}

// missing lists gossip addresses, configured or once seen, where nobody alive is known.
func (m *Membership) missing() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	alive := map[string]bool{}
	var want []string
	want = append(want, m.peers...)
	for _, e := range m.table {
		if e.Alive {
			alive[e.Gossip] = true
		} else {
			want = append(want, e.Gossip)
		}
	}
	slices.Sort(want)
	want = slices.Compact(want)
	return slices.DeleteFunc(want, func(a string) bool { return alive[a] })
}

// AddPeers adds addresses to join through.
func (m *Membership) AddPeers(peers ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range peers {
		if p != "" && !slices.Contains(m.peers, p) {
			m.peers = append(m.peers, p)
		}
	}
}

// Members lists every node known, this one too, in order of id; one that left
// in good order is not among them.
func (m *Membership) Members() []Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Member, 0, len(m.table))
	for _, e := range m.table {
		out = append(out, e.Member)
	}
	slices.SortFunc(out, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// Changes gets a value after Members has changed; several changes may share one.
func (m *Membership) Changes() <-chan struct{} { return m.changes }

// Addr is this node's own gossip address, "" unless open. memberlist is not asked: it takes a lock of its own, under which it
// calls seen, which takes ours.
func (m *Membership) Addr() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.list == nil {
		return ""
	}
	return m.table[m.cfg.ID].Gossip
}

// Close leaves and waits until everything has stopped. Idempotent.
func (m *Membership) Close() error {
	m.mu.Lock()
	list, cancel, done := m.list, m.cancel, m.done
	m.list, m.leaving = nil, true
	m.mu.Unlock()
	if cancel == nil {
		return nil
	}
	cancel()
	<-done
	if list == nil {
		return nil
	}
	// memberlist does not tell its event delegates a leave from a death: this
	// does (whoever misses it will merely suspect the node).
	if err := list.UpdateNode(leaveWithin); err != nil {
		m.cfg.Log.Debug("say goodbye to the gossip", zap.Error(err))
	}
	if err := list.Leave(leaveWithin); err != nil {
		m.cfg.Log.Debug("leave the gossip", zap.Error(err)) // others will find out
	}
	if err := list.Shutdown(); err != nil {
		return fmt.Errorf("membership: close: %w", err)
	}
	return nil
}

// seen takes in what gossip says of a node.
func (m *Membership) seen(n *memberlist.Node, alive bool) {
	var who meta
	if err := json.Unmarshal(n.Meta, &who); err != nil || who.ID == "" {
		return // not one of ours, for all its key: nothing to say of it
	}
	m.mu.Lock()
	old, known := m.table[who.ID]
	switch {
	case known && old.started > who.Started: // news of a former life
		m.mu.Unlock()
		return
	case who.Left:
		delete(m.table, who.ID)
	default:
		m.table[who.ID] = entry{name: n.Name, started: who.Started, Member: Member{
			ID: who.ID, Role: who.Role, Address: who.Address, Gossip: n.Address(), Alive: alive}}
	}
	m.mu.Unlock()
	if known && old.Alive != alive && !who.Left {
		m.cfg.Log.Info("gossip's view of a member changed", zap.String("member", who.ID), zap.String("role", who.Role), zap.Bool("alive", alive))
	}
	select {
	case m.changes <- struct{}{}:
	default:
	}
}

// events hears from memberlist, which holds its own lock meanwhile: it must not
// be called back from here.
type events struct{ m *Membership }

func (e events) NotifyJoin(n *memberlist.Node)   { e.m.seen(n, true) }
func (e events) NotifyUpdate(n *memberlist.Node) { e.m.seen(n, true) }
func (e events) NotifyLeave(n *memberlist.Node)  { e.m.seen(n, false) }

// delegate gives memberlist this node's meta and nothing more.
type delegate struct{ m *Membership }

func (d delegate) NodeMeta(int) []byte {
	d.m.mu.Lock()
	self := d.m.self
	self.Left = d.m.leaving
	d.m.mu.Unlock()
	data, err := json.Marshal(self)
	if err != nil {
		return nil
	}
	return data
}
func (delegate) NotifyMsg([]byte)                {}
func (delegate) GetBroadcasts(_, _ int) [][]byte { return nil }
func (delegate) LocalState(bool) []byte          { return nil }
func (delegate) MergeRemoteState([]byte, bool)   {}

func splitPort(addr string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.Atoi(p)
	if err != nil || n < 0 || n > math.MaxUint16 {
		return "", 0, fmt.Errorf("port %q", p)
	}
	return host, n, nil
}

// resolve gives an IP address for a host: memberlist takes nothing else.
func resolve(host string) (string, error) {
	if net.ParseIP(host) != nil {
		return host, nil
	}
	ips, err := net.LookupHost(host)
	if err != nil {
		return "", err
	}
	return ips[0], nil
}
