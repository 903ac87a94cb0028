// Package site is the site that is put to the test: machines of its own for three masters, three core nodes and two task nodes,
// each a real process, and a real MinIO behind proxies that can spoil what passes. It starts what ends, as a service manager
// would, and does the faults of a schedule. What comes of them is not its business.
package site

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"millrace/cmd/chaos/schedule"
)

// Config says where things are.
type Config struct {
	Dir     string // for everything: folders of the nodes, logs
	Binary  string // millrace
	MinIO   string // the server's binary
	Private bool   // this process has a network and mounts of its own, and may change them
	// Event is told what happens by itself: a node that ended.
	Event func(what string, fields map[string]any)
}

// Site is a running site. Use New, then Open.
type Site struct {
	conf   Config
	home   string // MILLRACE_HOME
	net    network
	store  *store
	nodes  []*node
	byName map[string]*node
	late   bool
	turn   atomic.Uint64

	mu   sync.Mutex
	lead string // the last leader that was seen

	blocks sync.Mutex // held while replicas are destroyed
	spoilt []spoilt   // those that were, under blocks
}

const (
	masters, core, task = 3, 3, 2
	slots               = 2 // of a worker
	accessKey           = "millrace-chaos"
	secretKey           = "millrace-chaos-secret"
	patience            = 90 * time.Second
)

// New checks the configuration and starts nothing.
func New(c Config) (*Site, error) {
	for _, b := range []string{c.Binary, c.MinIO} {
		if _, err := os.Stat(b); err != nil {
			return nil, fmt.Errorf("%w: run it by `make chaos`, which builds what it needs", err)
		}
	}
	for _, path := range []*string{&c.Dir, &c.Binary, &c.MinIO} {
		abs, err := filepath.Abs(*path)
		if err != nil {
			return nil, err
		}
		*path = abs
	}
	return &Site{conf: c, home: filepath.Join(c.Dir, "home"), byName: map[string]*node{}}, nil
}

// Open starts the store and the nodes, and returns when all of them run.
func (s *Site) Open(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("the site was not ready in time"))
	defer cancel()
	if err := os.MkdirAll(filepath.Join(s.conf.Dir, "logs"), 0o755); err != nil {
		return err
	}
	var err error
	if s.net, err = openNetwork(s.conf.Private); err != nil {
		return err
	}
	if s.store, err = openStore(s.conf, s.net.host()); err != nil {
		return err
	}
	if err := s.store.wait(ctx); err != nil {
		return err
	}
	if err := s.machines(); err != nil {
		return err
	}
	first := s.nodes[0]
	first.argv = append(first.argv, "--s3", s.store.url())
	first.env = []string{"AWS_ACCESS_KEY_ID=" + accessKey, "AWS_SECRET_ACCESS_KEY=" + secretKey, "AWS_REGION=us-east-1"}
	first.start()
	if err := s.context(ctx, first); err != nil {
		return err
	}
	for _, role := range []string{"master", "core", "task"} {
		token, err := s.token(ctx, role)
		if err != nil {
			return err
		}
		for _, n := range s.nodes {
			if n.role != role || n == first {
				continue
			}
			for _, m := range s.nodes[:masters] {
				n.argv = append(n.argv, "--join", m.url())
			}
			n.argv = append(n.argv, "--token", "@"+token)
			n.start()
		}
	}
	return poll(ctx, func() error { return s.Healthy(ctx) })
}

// machines makes the machines: a network and a disk for each, where that can be.
func (s *Site) machines() error {
	for role, n := range []struct {
		name  string
		count int
	}{{"master", masters}, {"core", core}, {"task", task}} {
		for i := range n.count {
			m := &node{name: fmt.Sprintf("%s-%d", n.name, i+1), role: n.name, disk: filepath.Join(s.conf.Dir, fmt.Sprintf("%s-%d", n.name, i+1)), event: s.conf.Event}
			m.log = filepath.Join(s.conf.Dir, "logs", m.name+".log")
			var err error
			if m.ip, m.enter, err = s.net.machine(m.name, 10*(role+1)+i); err != nil {
				return err
			}
			if err := makeDisk(m.disk, s.conf.Private); err != nil {
				return err
			}
			m.argv = []string{s.conf.Binary, "worker", "run", "--slots", fmt.Sprint(slots), "--memory", "1GiB"}
			if m.role == "master" {
				m.argv = []string{s.conf.Binary, "master", "run", "--raft-listen", m.ip + ":7401"}
			}
			m.argv = append(m.argv, "--dir", m.data(), "--name", m.name, "--listen", m.ip+":7400", "--advertise", m.ip+":7400", "--gossip-listen", m.ip+":7402")
			s.nodes, s.byName[m.name] = append(s.nodes, m), m
		}
	}
	if len(s.nodes) > 0 && s.conf.Private {
		s.late = s.nodes[0].canSlow()
	}
	return nil
}

// context makes the first master's administrator the user of the command line.
func (s *Site) context(ctx context.Context, first *node) error {
	var admin map[string]any
	err := poll(ctx, func() error {
		data, err := os.ReadFile(filepath.Join(first.data(), "admin.json"))
		if err != nil {
			return err
		}
		return json.Unmarshal(data, &admin)
	})
	if err != nil {
		return err
	}
	var servers []string
	for _, m := range s.nodes[:masters] {
		servers = append(servers, m.url())
	}
	admin["servers"] = servers
	admin["s3"] = map[string]any{"endpoint": s.store.url(), "region": "us-east-1", "accessKey": accessKey, "secretKey": secretKey}
	data, err := json.Marshal(admin)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(s.home, "contexts"), 0o700); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(s.home, "contexts", "chaos.json"), data, 0o600), os.WriteFile(filepath.Join(s.home, "current-context"), []byte("chaos\n"), 0o600))
}

// token makes a file with a join token.
func (s *Site) token(ctx context.Context, role string) (file string, err error) {
	file = filepath.Join(s.conf.Dir, "token-"+role)
	var made struct{ Token string }
	err = poll(ctx, func() error {
		r := s.Millrace(ctx, "join-token", "create", "--role", role, "--uses", "100", "--ttl", "24h", "--json")
		if r.Code != 0 {
			return fmt.Errorf("make a join token: %s", r.Err)
		}
		return json.Unmarshal([]byte(r.Out), &made)
	})
	if err != nil {
		return "", err
	}
	return file, os.WriteFile(file, []byte(made.Token), 0o600)
}

// Member is a node as `node list --json` prints it.
type Member struct {
	ID, Name, Role, State, Reason, Member string
	Leader                                bool
}

// Members asks the cluster for its nodes.
func (s *Site) Members(ctx context.Context) ([]Member, error) {
	r := s.Millrace(ctx, "node", "list", "--json")
	if r.Code != 0 {
		return nil, fmt.Errorf("node list: exit code %d: %s", r.Code, r.Err)
	}
	var all []Member
	if err := json.Unmarshal([]byte(r.Out), &all); err != nil {
		return nil, fmt.Errorf("node list: %w", err)
	}
	for _, m := range all {
		if m.Leader {
			s.mu.Lock()
			s.lead = m.Name
			s.mu.Unlock()
		}
	}
	return all, nil
}

// Healthy says what is missing until every node runs and all masters vote.
func (s *Site) Healthy(ctx context.Context) error {
	all, err := s.Members(ctx)
	if err != nil {
		return err
	}
	up := map[string]bool{}
	for _, m := range all {
		up[m.Name] = up[m.Name] || m.State == "RUNNING" && (m.Role != "MASTER" || m.Member == "VOTER") // one whose folder was lost has joined anew
	}
	var missing []string
	for _, n := range s.nodes {
		if !up[n.name] {
			missing = append(missing, n.name)
		}
	}
	if missing != nil {
		return fmt.Errorf("not RUNNING: %s", strings.Join(missing, ", "))
	}
	return nil
}

// Machines are what a schedule can strike.
func (s *Site) Machines() schedule.Machines {
	m := schedule.Machines{Network: s.conf.Private, Disks: s.conf.Private, Late: s.late}
	for _, n := range s.nodes {
		switch n.role {
		case "master":
			m.Masters = append(m.Masters, n.name)
		case "core":
			m.Core = append(m.Core, n.name)
		default:
			m.Task = append(m.Task, n.name)
		}
	}
	return m
}

// StoreAddress is where the store answers past the proxies, and its key.
func (s *Site) StoreAddress() (address, key, secret string) {
	return s.store.direct, accessKey, secretKey
}

// Close ends everything, workers first.
func (s *Site) Close() error {
	for i := len(s.nodes) - 1; i >= 0; i-- {
		s.nodes[i].stop()
	}
	var err error
	for _, n := range s.nodes {
		err = errors.Join(err, n.wait())
	}
	if s.store != nil {
		err = errors.Join(err, s.store.close())
	}
	return err
}

// poll asks until there is no error, and gives the last one that was not the end of the time itself.
func poll(ctx context.Context, ask func() error) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := ask()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), last)
		}
	}
}
