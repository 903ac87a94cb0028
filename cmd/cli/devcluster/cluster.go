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
	grace        = 8 * time.Second // between SIGTERM and SIGKILL
	mostWorkers  = 200
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
	Pool       int    // free nodes, for further clusters
	// AsBefore are roles, core, task and pool, of which a folder that has workers gets as many as it has, whatever is said above.
	AsBefore  []string
	Processes bool // clusters get further nodes as processes, unless they say otherwise
	Slots     int  // per worker; 0: the machine's CPUs divided over them
	S3        *client.S3
	Keep      []string // flags of master run: what is kept of ended jobs
	Environ   []string
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
	left      []string // workers that the folder has and that are not started
	running   sync.WaitGroup
	failed    chan error // a process that cannot be started
	mu        sync.Mutex
	ready     bool
	closeOnce sync.Once
}

// node is the process of a node that joins the site, and how it gets its token.
type node struct {
	*process
	role  string   // core, task, pool, master
	base  []string // the command line without the token
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
	if c.Task < 0 || c.Pool < 0 || c.Slots < 0 {
		return nil, errors.New("numbers of nodes and slots cannot be negative")
	}
	if n := c.Core + c.Task + c.Pool; n > mostWorkers {
		return nil, fmt.Errorf("%d nodes on one machine: each is a process; at most %d", n, mostWorkers)
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, err
	}
	c.Dir = dir
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
	switch {
	case err == nil:
		return c.forgetGone()
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return err
}

// forgetGone has the next start not count on workers that were taken out of the site.
func (c *Cluster) forgetGone() error {
	for _, n := range c.nodes {
		if n.gone() {
			delete(c.layout.Ports, n.name)
		}
	}
	return c.layout.save()
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
	return objectstore.Try(ctx, store, systemBucket, "")
}

func (c *Cluster) openStore() (objectstore.Store, error) {
	return objectstore.NewS3(objectstore.Config{Endpoint: c.s3.Endpoint, Region: c.s3.Region, AccessKey: c.s3.AccessKey, SecretKey: c.s3.SecretKey,
		SessionToken: c.s3.SessionToken, CAPEM: c.s3.CABundle})
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

// Workers is how many workers of a role the cluster has, once it is open.
func (c *Cluster) Workers(role string) int { return *c.conf.workers(role) }

// Slots is the number of slots of all workers of clusters, once it is open.
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
	if c.layout != nil {
		c.layout.reserved.Close()
	}
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
