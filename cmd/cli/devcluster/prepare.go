package devcluster

import (
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"millrace/pkg/client"
)

// workerRoles are the roles of workers, in the order in which they are started.
var workerRoles = []string{"core", "task", "pool"}

// workers is where it is said how many workers of a role there are.
func (c *Config) workers(role string) *int {
	return map[string]*int{"core": &c.Core, "task": &c.Task, "pool": &c.Pool}[role]
}

// workerName is what the n-th worker of a role is called, counted from 1.
func workerName(role string, n int) string { return fmt.Sprintf("%s-%d", role, n) }

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
	numbers := c.countWorkers()
	for i := range c.conf.Masters {
		if err := c.prepareMaster(fmt.Sprintf("master-%d", i+1)); err != nil {
			return err
		}
	}
	memory := c.memory()
	for _, role := range workerRoles {
		for _, n := range numbers[role] {
			if err := c.prepareWorker(role, workerName(role, n), memory); err != nil {
				return err
			}
		}
	}
	return nil
}

// countWorkers settles which workers of each role are started, by their numbers, and which of those that the folder has are not.
func (c *Cluster) countWorkers() (numbers map[string][]int) {
	had := c.layout.workers()
	numbers = map[string][]int{}
	for _, role := range workerRoles {
		wanted := c.conf.workers(role)
		if len(had) > 0 && slices.Contains(c.conf.AsBefore, role) {
			numbers[role] = had[role]
			if role == "core" && len(had[role]) == 0 {
				numbers[role] = []int{1}
			}
			*wanted = len(numbers[role])
			continue
		}
		for n := range *wanted {
			numbers[role] = append(numbers[role], n+1)
		}
		for _, n := range had[role] {
			if n > *wanted {
				c.left = append(c.left, workerName(role, n))
			}
		}
	}
	if c.conf.Slots == 0 {
		c.conf.Slots = max(1, runtime.NumCPU()/(c.conf.Core+c.conf.Task+c.conf.Pool))
	}
	return numbers
}

// memory is what each worker gets; 0 if it cannot be told.
func (c *Cluster) memory() int64 {
	return nodeMemory(machineMemory(), c.conf.Core+c.conf.Task+c.conf.Pool)
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
	argv = append(argv, c.conf.Keep...)
	if c.conf.Processes {
		argv = append(argv, "--process-dir", filepath.Join(c.conf.Dir, "nodes"), "--process-slots", fmt.Sprint(c.conf.Slots))
		if memory := c.memory(); memory > 0 {
			argv = append(argv, "--process-memory", fmt.Sprint(memory))
		}
	}
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
	n := &node{role: role, base: argv, process: &process{name: name}}
	c.arm(n)
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
