package cli

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"millrace/master"
	"millrace/pkg/joining"
	"millrace/pkg/security"
	"millrace/worker"
)

func (a *app) joinCommand() *cli.Command {
	return a.leaf(spec{name: "join", usage: "make this machine a node, as what the token is for: master, core, task or of the pool", args: "URL… TOKEN", min: 2, max: -1,
		example: "millrace join https://10.0.0.1:7400 @token\nmillrace join https://10.0.0.1:7400 - --advertise 192.168.7.2   (the token on standard input, another interface)",
		flags: append([]cli.Flag{
			&cli.StringFlag{Name: "advertise", Usage: "`ADDRESS` by which others reach this machine, or the name of an interface; default: the one on the way to the master"},
			&cli.StringFlag{Name: "name", Usage: "`NAME` of the node; default: the host's"},
			&cli.DurationFlag{Name: "wait", Usage: "try for `TIME` while masters or ports cannot be reached; default: once"},
			&cli.StringFlag{Name: "ca-sha256", Usage: "the site's CA has this `FINGERPRINT`, or nothing is done"},
			&cli.StringFlag{Name: "listen", Usage: "`HOST:PORT` to serve at; default " + workerListen + ", of a master " + masterListen},
			&cli.StringFlag{Name: "raft-listen", Usage: "`HOST:PORT` for masters among themselves; default " + masterRaft},
			&cli.StringFlag{Name: "gossip-listen", Usage: "`HOST:PORT` for gossip, UDP and TCP; default " + workerGossip + ", of a master " + masterGossip},
			machineDirFlag(),
		}, workerFlags()...), do: join})
}

// retryJoin is how long a join that waits rests between two tries.
const retryJoin = 3 * time.Second

// joined is what join says of the machine.
type joined struct {
	Node    string   `json:"id"`
	Role    string   `json:"role"`
	Cluster string   `json:"cluster,omitempty"`
	Site    string   `json:"site"`
	Address string   `json:"address,omitempty"`
	Masters []string `json:"masters"`
	Service string   `json:"service"`
	Already bool     `json:"already"` // it had joined before
	attemptsAs
}

func join(c *call) error {
	m, err := c.machineOf()
	if err != nil {
		return err
	}
	masters, token, err := c.joinArgs()
	if err != nil {
		return err
	}
	m.take(c)
	out, err := m.already(c.Context.Context, token)
	if err == nil && out == nil {
		out, err = m.joinUntil(c.Context.Context, masters, token)
	}
	if err != nil {
		return c.roleFault("millrace join", m.dir, err)
	}
	out.attemptsAs = m.attempts
	return c.print(out, func(w io.Writer) {
		what := strings.ToLower(out.Role) + " node"
		if out.Role == "MASTER" {
			what = "master"
		}
		if out.Cluster != "" {
			what += " of cluster " + out.Cluster
		}
		said := "joined"
		if out.Already {
			said = "had joined already"
		}
		fmt.Fprintf(w, "%s: this machine is %s, a %s of site %s\n%s\n", said, out.Node, what, out.Site, m.runs(out.Service))
		out.say(w)
	})
}

// take is what flags say of ports.
func (m *machine) take(c *call) {
	listen, raft, gossip := c.String("listen"), c.String("raft-listen"), c.String("gossip-listen")
	m.masterPorts = nodePorts{cmp.Or(listen, masterListen), cmp.Or(raft, masterRaft), cmp.Or(gossip, masterGossip)}
	m.workerPorts = nodePorts{api: cmp.Or(listen, workerListen), gossip: cmp.Or(gossip, workerGossip)}
}

// joinArgs reads the masters and the token, which may be - or @FILE.
func (c *call) joinArgs() (masters []string, token security.Token, err error) {
	last := len(c.args) - 1
	for _, a := range c.args[:last] {
		m, err := masterURL(a)
		if err != nil {
			return nil, token, err
		}
		masters = append(masters, m)
	}
	text, err := c.readSecret("TOKEN", c.args[last])
	if err != nil {
		return nil, token, err
	}
	if token, err = security.ParseToken(text); err != nil {
		return nil, token, usagef("copy the token whole, or make one, on a machine with a context: millrace join-token create", "%s", err)
	}
	for _, flag := range []string{"listen", "raft-listen", "gossip-listen"} {
		if v := c.String(flag); v != "" {
			if _, _, err := net.SplitHostPort(v); err != nil {
				return nil, token, usagef("--"+flag+" :7410", "--%s %s: not of the form HOST:PORT", flag, v)
			}
		}
	}
	if want := c.String("ca-sha256"); want != "" {
		has, err := base64.RawURLEncoding.DecodeString(token.CAHash)
		if err != nil || !strings.EqualFold(hex.EncodeToString(has), want) || len(want) != 2*sha256.Size {
			return nil, token, faultf(exitUnreachable, "print the script, or the join line, anew", "the token is of a site whose CA has the fingerprint %x, not %s", has, want)
		}
	}
	return masters, token, nil
}

// masterURL completes what people type: https:// and the usual port go without saying.
func masterURL(text string) (string, error) {
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return "", usagef("millrace join https://HOST:7400 TOKEN", "%s is no address of a master", text)
	}
	port := cmp.Or(u.Port(), strings.TrimPrefix(masterListen, ":"))
	return "https://" + net.JoinHostPort(u.Hostname(), port), nil
}

// readSecret is a value that may be - (standard input) or @FILE.
func (c *call) readSecret(what, value string) (string, error) {
	switch {
	case value == "-":
		data, err := io.ReadAll(io.LimitReader(c.env.Stdin, 64<<10))
		return strings.TrimSpace(string(data)), err
	case strings.HasPrefix(value, "@"):
		data, err := os.ReadFile(value[1:])
		if err != nil {
			return "", usagef("give the token, - to read it from standard input, or @FILE", "%s: %s", what, err)
		}
		return strings.TrimSpace(string(data)), nil
	}
	return value, nil
}

// already says what the machine is if it has joined: nil if it has not. Of another site than the token's, it is refused.
func (m *machine) already(ctx context.Context, token security.Token) (*joined, error) {
	for _, role := range []string{"worker", "master"} {
		n, err := m.node(role)
		if err != nil {
			return nil, err
		}
		if n == nil {
			continue
		}
		err = joining.SameSite(token.String(), n.CAPEM, fmt.Sprintf("this machine is node %s of site %s (%s)", n.ID, n.Site, m.nodeDir(role)))
		if errors.Is(err, joining.ErrOtherNode) {
			return nil, usagef("leave it first: millrace node drain "+n.ID+" --wait and millrace node remove "+n.ID+" there, then here: millrace uninstall --data",
				"this machine is node %s of site %s, and the token is of another site", n.ID, n.Site)
		}
		if err != nil {
			return nil, err
		}
		if err := m.keepServing(ctx, role); err != nil {
			return nil, err
		}
		return &joined{Node: n.ID, Role: n.Role, Site: n.Site, Masters: n.Masters, Service: "millrace-" + role, Already: true}, nil
	}
	return nil, nil
}

// keepServing has the service of a node that has joined run. A start that was cut short after the join left none: it is installed.
func (m *machine) keepServing(ctx context.Context, role string) error {
	if err := m.programIsThere(); err != nil {
		return err
	}
	if installed, err := m.mgr.Begin(ctx, "millrace-"+role); err != nil || installed {
		return err
	}
	n, err := m.node(role)
	if err != nil {
		return err
	}
	peer := "192.0.2.1:9"
	if n != nil && len(n.Masters) > 0 {
		peer = strings.TrimPrefix(n.Masters[0], "https://")
	}
	host, _, err := hostAddress(m.c.String("advertise"), peer)
	if err != nil {
		return usagef("--advertise ADDRESS", "%s", err)
	}
	if role == "master" {
		return m.serve(ctx, m.masterServiceOf(host))
	}
	if err := m.prepareTaskUser(ctx); err != nil {
		return err
	}
	return m.serve(ctx, m.workerServiceOf(host))
}

// programIsThere installs the program if none is there; a later one stays.
func (m *machine) programIsThere() error {
	if _, err := os.Stat(programPath); err == nil {
		return nil
	}
	return m.installProgram()
}

// joinUntil joins; with --wait again and again while what is wrong may pass.
func (m *machine) joinUntil(ctx context.Context, masters []string, token security.Token) (*joined, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	until := time.Now().Add(m.c.Duration("wait"))
	for said := ""; ; {
		out, err := m.joinOnce(ctx, masters, token)
		var passing *againError
		if err == nil || !errors.As(err, &passing) || !time.Now().Before(until) {
			return out, err
		}
		if text := err.Error(); text != said {
			m.c.sayer()("not yet: %s", text)
			said = text
		}
		select {
		case <-time.After(retryJoin):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (m *machine) joinOnce(ctx context.Context, masters []string, token security.Token) (*joined, error) {
	host, local, err := hostAddress(m.c.String("advertise"), strings.TrimPrefix(masters[0], "https://"))
	if err != nil && m.c.String("advertise") != "" {
		return nil, usagef("--advertise ADDRESS, of this machine: ip addr lists them", "--advertise %s: %s", m.c.String("advertise"), err)
	}
	if err != nil {
		return nil, again(reachNext, "cannot reach %s: %s", masters[0], netWhy(err))
	}
	p := &preflight{masters: masters, token: token, host: host, local: local, nodeID: joining.Left(m.nodeDir("worker")), ports: func(role string) nodePorts {
		if role == "MASTER" {
			return m.masterPorts
		}
		return m.workerPorts
	}}
	d, err := p.describe(ctx)
	if err != nil {
		return nil, err
	}
	role := "worker"
	if d.GetRole() == "MASTER" {
		role, p.nodeID = "master", joining.Left(m.nodeDir("master"))
	}
	if err := p.check(ctx, d); err != nil {
		return nil, err
	}
	for _, lost := range d.GetLost() {
		m.c.sayer()("mind: master %s is lost: it was not tried whether this machine and it reach each other", lost)
	}
	if err := m.installProgram(); err != nil {
		return nil, err
	}
	all := append(slices.Clone(masters), d.GetMasters()...)
	if role == "master" {
		err = m.enrollMaster(ctx, all, token)
	} else if err = m.prepareTaskUser(ctx); err == nil {
		err = m.enrollWorker(ctx, all, token)
	}
	if err != nil {
		return nil, err
	}
	serve := m.workerServiceOf(host)
	if role == "master" {
		serve = m.masterServiceOf(host)
	}
	if err := m.serve(ctx, serve); err != nil {
		return nil, err
	}
	n, err := m.node(role)
	if err != nil || n == nil {
		return nil, errors.Join(err, fmt.Errorf("node in %s: it has joined and is not there", m.nodeDir(role)))
	}
	tcp, _ := p.ports(d.GetRole()).of(host)
	if local {
		if err := m.awaitServing(ctx, tcp[0], serve.Name); err != nil {
			return nil, err
		}
	}
	return &joined{Node: n.ID, Role: n.Role, Cluster: d.GetCluster(), Site: n.Site, Address: "https://" + tcp[0], Masters: d.GetMasters(), Service: serve.Name}, nil
}

// servesWithin is how long a node may take from its service's start until it serves.
const servesWithin = time.Minute

// awaitServing waits until the node takes connections.
func (m *machine) awaitServing(ctx context.Context, address, name string) error {
	ctx, cancel := context.WithTimeout(ctx, servesWithin)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-time.After(lookAgain):
		case <-ctx.Done():
			return faultf(exitFailed, "look what it says: "+m.mgr.Logs(name), "the machine has joined, and its service %s does not serve at %s within %s", name, address, servesWithin)
		}
	}
}

func (m *machine) enrollMaster(ctx context.Context, masters []string, token security.Token) error {
	return master.Enroll(ctx, master.Config{Dir: m.nodeDir("master"), Listen: m.masterPorts.api, Join: masters, Token: token.String(), Name: m.c.String("name"), Version: Version})
}

func (m *machine) enrollWorker(ctx context.Context, masters []string, token security.Token) error {
	return worker.Enroll(ctx, worker.Config{Dir: m.nodeDir("worker"), Listen: m.workerPorts.api, Join: masters, Token: token.String(), Name: m.c.String("name"), Version: Version})
}
