// Package devcluster runs a whole cluster on this machine: the object store,
// masters and workers, each an operating system process with a folder of its
// own. It starts them, starts again what dies, and ends them in order. What a
// node does is no business of it.
package devcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"millrace/pkg/client"
	"millrace/pkg/objectstore"
)

// LifelineEnv names the file descriptor of a pipe: at its end a role ends
// itself, so that nothing outlives the process that started it. The next
// descriptor is the folder's lock.
const LifelineEnv = "MILLRACE_LIFELINE_FD"

const (
	grace        = 8 * time.Second  // between SIGTERM and SIGKILL
	lockWait     = 10 * time.Second // for the processes of a killed predecessor to end
	readyWithin  = 2 * time.Minute
	endsAtStart  = 4 // ends of one process before the cluster was ever ready that make it give up
	pollInterval = 20 * time.Millisecond
)

// Config says what to run.
type Config struct {
	Dir        string // keeps everything; made if missing
	Binary     string // millrace itself
	Masters    int    // 1, 3 or 5; 0 = as many as there were, 1 at first
	Core, Task int    // workers by role
	Slots      int    // per worker; 0: the machine's CPUs divided over them
	S3         *client.S3
	Environ    []string
	// Say tells the user what happens, a line at a time.
	Say func(format string, args ...any)
}

// Cluster is a cluster on this machine.
type Cluster struct {
	conf    Config
	layout  *layout
	lock    *os.File
	life    *os.File // our end of the lifeline
	inherit []*os.File
	s3      client.S3
	servers []string // the masters' addresses; the first made the site
	context *client.Context

	store     *process
	master    *process // the first one
	nodes     []*node  // the other masters, and the workers
	running   sync.WaitGroup
	failed    chan error // a process that cannot be started
	mu        sync.Mutex
	ready     bool
	closeOnce sync.Once
}

// node is the process of a node that joins the site, and how it gets its token.
type node struct {
	*process
	role  string // core, task, master
	token chan string
}

// New checks the configuration; it starts nothing.
func New(c Config) (*Cluster, error) {
	if c.Core < 1 {
		return nil, errors.New("a cluster needs at least one core node: task nodes store nothing")
	}
	if c.Masters != 0 && (c.Masters < 0 || c.Masters > 5 || c.Masters%2 == 0) {
		return nil, fmt.Errorf("%d masters: 1, 3 or 5; an even number survives no more losses than one less", c.Masters)
	}
	if c.Task < 0 || c.Slots < 0 {
		return nil, errors.New("numbers of nodes and slots cannot be negative")
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, err
	}
	c.Dir = dir
	if c.Slots == 0 {
		c.Slots = max(1, runtime.NumCPU()/(c.Core+c.Task))
	}
	return &Cluster{conf: c, failed: make(chan error, 1)}, nil
}

// Open starts everything and returns when every node runs. After an error everything is ended.
func (c *Cluster) Open(ctx context.Context) error {
	err := c.open(ctx)
	if err != nil {
		return errors.Join(err, c.Close())
	}
	c.mu.Lock()
	c.ready = true
	c.mu.Unlock()
	return nil
}

func (c *Cluster) open(ctx context.Context) (err error) {
	if err := c.checkStore(ctx); err != nil {
		return err
	}
	logs := filepath.Join(c.conf.Dir, "logs")
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return err
	}
	if c.lock, err = lock(ctx, c.conf.Dir, lockWait); err != nil {
		return err
	}
	if c.layout, err = loadLayout(c.conf.Dir); err != nil {
		return err
	}
	life, ours, err := os.Pipe()
	if err != nil {
		return err
	}
	c.life, c.inherit = ours, []*os.File{life, c.lock}
	if err := c.prepare(); err != nil {
		return err
	}
	if err := c.layout.save(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, readyWithin, fmt.Errorf("the cluster was not ready within %s; the nodes' logs are in %s", readyWithin, logs))
	defer cancel()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	stop := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case err := <-c.failed:
			fail(err)
		case <-stop:
		}
	}()
	err = c.start(ctx)
	close(stop)
	<-watched
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// checkStore makes sure of a store that is somebody else's before anything is made here: better said
// now than by the first job.
func (c *Cluster) checkStore(ctx context.Context) error {
	if c.conf.S3 == nil {
		return nil
	}
	c.s3 = *c.conf.S3
	store, err := c.openStore()
	if err != nil {
		return err
	}
	// Not by a HEAD, whose answer has no body: some stores say 404 to a key that nobody has.
	for _, err := range store.List(ctx, systemBucket, "", objectstore.ListOptions{Max: 1}) {
		if err != nil && !errors.Is(err, objectstore.ErrNoSuchBucket) {
			return err
		}
	}
	return nil
}

func (c *Cluster) openStore() (objectstore.Store, error) {
	return objectstore.NewS3(objectstore.Config{Endpoint: c.s3.Endpoint, Region: c.s3.Region, AccessKey: c.s3.AccessKey, SecretKey: c.s3.SecretKey,
		SessionToken: c.s3.SessionToken, CAPEM: c.s3.CABundle})
}

// prepare decides what each process is started with.
func (c *Cluster) prepare() error {
	switch {
	case c.conf.S3 != nil:
		c.s3, c.layout.Store = *c.conf.S3, c.conf.S3.Endpoint
	case c.layout.Store != "": // what it has there would seem lost
		return fmt.Errorf("%w: %s", ErrStore, c.layout.Store)
	default:
		if err := c.prepareStore(); err != nil {
			return err
		}
	}
	switch known := max(1, c.layout.Masters); {
	case c.conf.Masters == 0:
		c.conf.Masters = known
	case c.conf.Masters < known: // fewer would have no majority
		return fmt.Errorf("%w: %d", ErrMasters, known)
	}
	c.layout.Masters = c.conf.Masters
	for i := range c.conf.Masters {
		if err := c.prepareMaster(fmt.Sprintf("master-%d", i+1)); err != nil {
			return err
		}
	}
	memory := nodeMemory(machineMemory(), c.conf.Core+c.conf.Task)
	for role, n := range map[string]int{"core": c.conf.Core, "task": c.conf.Task} {
		for i := range n {
			if err := c.prepareWorker(role, fmt.Sprintf("%s-%d", role, i+1), memory); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Cluster) prepareStore() error {
	dir := filepath.Join(c.conf.Dir, "object-store")
	address, err := c.layout.address("object-store", "listen")
	if err != nil {
		return err
	}
	// Made here, so that the master need not wait for the store to have made them.
	keys, err := LoadKeys(filepath.Join(dir, "keys.json"), func(string) string { return "" })
	if err != nil {
		return err
	}
	c.s3 = client.S3{Endpoint: "http://" + address, Region: "us-east-1", AccessKey: keys.AccessKey, SecretKey: keys.SecretKey}
	c.store = c.process("object-store", nil, "object-store", "--dir", dir, "--listen", address)
	return nil
}

// prepareMaster prepares the master that makes the site, or a further one.
func (c *Cluster) prepareMaster(name string) error {
	var at [3]string
	for i, purpose := range []string{"listen", "raft", "gossip"} {
		var err error
		if at[i], err = c.layout.address(name, purpose); err != nil {
			return err
		}
	}
	argv := []string{"master", "run", "--dir", c.dir(name), "--name", name, "--listen", at[0], "--advertise", at[0], "--raft-listen", at[1], "--gossip-listen", at[2]}
	if c.master != nil {
		c.join(name, "master", argv)
		c.servers = append(c.servers, "https://"+at[0])
		return nil
	}
	c.servers = []string{"https://" + at[0]}
	argv = append(argv, "--s3", c.s3.Endpoint)
	env := []string{"AWS_ACCESS_KEY_ID=" + c.s3.AccessKey, "AWS_SECRET_ACCESS_KEY=" + c.s3.SecretKey}
	if c.s3.SessionToken != "" {
		env = append(env, "AWS_SESSION_TOKEN="+c.s3.SessionToken)
	}
	if c.s3.Region != "" {
		env = append(env, "AWS_REGION="+c.s3.Region)
	}
	if c.s3.CABundle != "" {
		ca := filepath.Join(c.conf.Dir, "s3-ca.pem")
		if err := writeFile(ca, []byte(c.s3.CABundle)); err != nil {
			return err
		}
		argv = append(argv, "--s3-ca", ca)
	}
	c.master = c.process(name, env, argv...)
	return nil
}

func (c *Cluster) prepareWorker(role, name string, memory int64) error {
	listen, err := c.layout.address(name, "listen")
	if err != nil {
		return err
	}
	gossip, err := c.layout.address(name, "gossip")
	if err != nil {
		return err
	}
	argv := []string{"worker", "run", "--dir", c.dir(name), "--name", name, "--listen", listen, "--advertise", listen,
		"--gossip-listen", gossip, "--slots", fmt.Sprint(c.conf.Slots)}
	if memory > 0 {
		argv = append(argv, "--memory", fmt.Sprint(memory))
	}
	c.join(name, role, argv)
	return nil
}

// join prepares a node that joins the site that the first master makes.
func (c *Cluster) join(name, role string, argv []string) {
	for _, s := range c.servers {
		argv = append(argv, "--join", s)
	}
	n := &node{role: role}
	if _, err := os.Stat(filepath.Join(c.dir(name), "node.json")); err != nil {
		// It starts at once and waits for its token on standard input, so that its start
		// and the first master's go side by side.
		n.token = make(chan string, 1)
		argv = append(argv, "--token", "-")
	}
	n.process = c.process(name, nil, argv...)
	if n.token != nil {
		n.stdin = n.token
	}
	c.nodes = append(c.nodes, n)
}

func (c *Cluster) dir(name string) string { return filepath.Join(c.conf.Dir, name) }

func (c *Cluster) process(name string, env []string, argv ...string) *process {
	p := &process{name: name, binary: c.conf.Binary, argv: argv, log: filepath.Join(c.conf.Dir, "logs", name+".log"), files: c.inherit, say: c.conf.Say}
	for _, v := range c.conf.Environ {
		if !strings.HasPrefix(v, "AWS_") && !strings.HasPrefix(v, "MILLRACE_") && !strings.HasPrefix(v, "MINIO_") {
			p.env = append(p.env, v)
		}
	}
	p.env = append(p.env, LifelineEnv+"=3")
	p.env = append(p.env, env...)
	p.gaveUp = c.checkEnd
	p.init()
	return p
}

// checkEnd gives up on a process that ends again and again before the cluster was ever ready.
func (c *Cluster) checkEnd(p *process) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ready || p.ends < endsAtStart {
		return nil
	}
	err := fmt.Errorf("%s does not start:\n%s", p.name, p.tail())
	select {
	case c.failed <- err:
	default:
	}
	return err
}

func (c *Cluster) launch(p *process) {
	p.launched = true
	c.running.Add(1)
	go func() {
		defer c.running.Done()
		p.supervise()
	}()
}

// Context is how to reach the cluster, as the master's first user.
func (c *Cluster) Context() *client.Context { return c.context }

// Server is the first master's address.
func (c *Cluster) Server() string { return c.servers[0] }

// Masters is how many masters the cluster has, once it is open.
func (c *Cluster) Masters() int { return c.conf.Masters }

// Dir is the cluster's folder.
func (c *Cluster) Dir() string { return c.conf.Dir }

// Slots is the number of slots of all workers.
func (c *Cluster) Slots() int { return c.conf.Slots * (c.conf.Core + c.conf.Task) }

// S3 is the object store.
func (c *Cluster) S3() client.S3 { return c.s3 }

// Close ends everything in order: workers first, so that they can say goodbye; the store last.
func (c *Cluster) Close() error {
	c.closeOnce.Do(c.close)
	return nil
}

func (c *Cluster) close() {
	var workers, masters []*process
	for _, n := range c.nodes {
		if n.role == "master" {
			masters = append(masters, n.process)
		} else {
			workers = append(workers, n.process)
		}
	}
	for _, together := range [][]*process{workers, append(masters, c.master), {c.store}} {
		for _, p := range together {
			if p != nil {
				p.stop()
			}
		}
		for _, p := range together {
			if p != nil {
				c.wait(p)
			}
		}
	}
	c.running.Wait()
	for _, f := range append(c.inherit, c.life) {
		if f != nil {
			f.Close()
		}
	}
	if c.inherit == nil && c.lock != nil {
		c.lock.Close()
	}
}

// wait waits for a process that was launched.
func (c *Cluster) wait(p *process) {
	if p.launched {
		<-p.ended
	}
}
