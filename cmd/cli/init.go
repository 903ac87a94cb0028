package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	"millrace/master"
	"millrace/pkg/api"
	"millrace/pkg/client"
	"millrace/pkg/joining"
	"millrace/worker"
)

func (a *app) initCommand() *cli.Command {
	return a.leaf(spec{name: "init", usage: "make this machine the first of a site: a master, and with --role master,core a core node as well", example: "AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… millrace init --s3 http://minio:9000\nmillrace init --role master,core --advertise 10.0.0.1 --s3 http://minio:9000 --system s3://millrace/",
		flags: append([]cli.Flag{
			&cli.StringFlag{Name: "role", Usage: "what this machine is: master, or `master,core`", Value: "master"},
			&cli.StringFlag{Name: "advertise", Usage: "`ADDRESS` by which others reach this machine, or the name of an interface; default: the one on the way to the world"},
			&cli.StringFlag{Name: "name", Usage: "`NAME` of the nodes; default: the host's"},
			&cli.StringFlag{Name: "system", Usage: "`URL` of the site's own prefix in the object store; default " + master.DefaultSystemPrefix},
			machineDirFlag(),
		}, workerFlags()...), do: initSite})
}

// How long init waits for what it has started.
const (
	leadsWithin = 2 * time.Minute
	lookAgain   = 200 * time.Millisecond
)

// firstMachine is what init says of the machine.
type firstMachine struct {
	Server  string   `json:"server"`
	Site    string   `json:"site"`
	Master  string   `json:"master"`         // node id
	Core    string   `json:"core,omitempty"` // node id
	Context string   `json:"context"`
	Dir     string   `json:"dir"`
	Ports   []string `json:"ports"` // that have to be open between the machines
	Token   string   `json:"token,omitempty"`
	Already bool     `json:"already"` // it had been set up before
	Note    string   `json:"note,omitempty"`
	attemptsAs
}

func initSite(c *call) error {
	m, err := c.machineOf()
	if err != nil {
		return err
	}
	roles := strings.Split(strings.ToLower(c.String("role")), ",")
	core := slices.Contains(roles, "core")
	if !slices.Contains(roles, "master") || len(roles) > 2 || len(roles) == 2 && !core {
		return usagef("millrace init --role master,core", "--role %s: the first machine is master, or master,core; the others join", c.String("role"))
	}
	m.core = core
	out, err := m.first(c.Context.Context)
	if err == nil && core {
		err = m.firstCore(c.Context.Context, out)
	}
	if err == nil {
		err = m.adminContext(out)
	}
	if err == nil && out.Already {
		out.Note, err = m.otherStore(c.Context.Context)
	} else if err == nil {
		out.Token, err = m.joinToken(c.Context.Context, &api.CreateJoinTokenRequest{Role: "core"})
	}
	if err != nil {
		return c.roleFault("millrace init", m.dir, err)
	}
	out.attemptsAs = m.attempts
	return c.print(out, func(w io.Writer) { m.sayFirst(w, out) })
}

// first makes this machine a site's first master, if it is none yet, and waits until it leads.
func (m *machine) first(ctx context.Context) (*firstMachine, error) {
	n, err := m.node("master")
	if err != nil {
		return nil, err
	}
	if n == nil {
		if err := m.makeSite(ctx); err != nil {
			return nil, err
		}
	} else if err := m.keepServing(ctx, "master"); err != nil {
		return nil, err
	}
	out := &firstMachine{Dir: m.dir, Context: cmp.Or(m.c.String("context"), "millrace"), Already: n != nil}
	if out.Server, err = m.awaitLead(ctx); err != nil {
		return nil, err
	}
	if n, err = m.node("master"); err != nil {
		return nil, err
	}
	out.Master, out.Site, out.Ports = n.ID, n.Site, m.openPorts()
	return out, nil
}

// openPorts are the ports of this site that machines use among themselves.
func (m *machine) openPorts() (ports []string) {
	port := func(listen string) string { return listen[strings.LastIndexByte(listen, ':')+1:] }
	for _, p := range []nodePorts{m.masterPorts, m.workerPorts} {
		ports = append(ports, port(p.api)+"/tcp")
		if p.raft != "" {
			ports = append(ports, port(p.raft)+"/tcp")
		}
		ports = append(ports, port(p.gossip)+"/tcp", port(p.gossip)+"/udp")
	}
	return ports
}

// makeSite does all that can go wrong before it changes anything.
func (m *machine) makeSite(ctx context.Context) error {
	if n, err := m.node("worker"); err != nil || n != nil {
		if n != nil {
			err = usagef("leave that first: millrace uninstall --data", "this machine is node %s of site %s", n.ID, n.Site)
		}
		return err
	}
	host, err := m.hostOf()
	if err != nil {
		return err
	}
	source, err := m.tryStore(ctx)
	if err != nil {
		return err
	}
	if u, err := url.Parse(source.S3.Endpoint); err == nil && loopback(u.Hostname()) {
		m.c.sayer()("mind: %s is this machine only: nodes elsewhere will not reach that object store", source.S3.Endpoint)
	}
	for _, p := range []nodePorts{m.masterPorts, m.workerPorts} {
		d, err := openDoors(p, netip.Addr{})
		if err != nil {
			return err
		}
		d.close()
	}
	if err := m.installProgram(); err != nil {
		return err
	}
	if m.core {
		if err := m.prepareTaskUser(ctx); err != nil {
			return err
		}
	}
	if err := master.Enroll(ctx, master.Config{Dir: m.nodeDir("master"), Listen: m.masterPorts.api, Store: apiStore(source.S3), SystemPrefix: m.c.String("system"),
		Name: m.c.String("name"), Version: Version}); err != nil {
		return err
	}
	return m.serve(ctx, m.masterServiceOf(host))
}

// hostOf is where others will reach this machine.
func (m *machine) hostOf() (netip.Addr, error) {
	given := m.c.String("advertise")
	if given == "" {
		host, err := outwardAddress()
		if err != nil {
			return host, usagef("say by which address the other machines reach it: --advertise IP", "%s", err)
		}
		return host, nil
	}
	host, err := namedAddress(given)
	if err != nil {
		return host, usagef("--advertise ADDRESS, of this machine: ip addr lists them", "--advertise %s: %s", given, err)
	}
	return host, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// admin is the administrator's way to this machine's master; nil while it has not led yet.
func (m *machine) admin() (*client.Context, error) {
	ctx, err := client.ReadContext(filepath.Join(m.nodeDir("master"), "admin.json"))
	if err != nil {
		return nil, err
	}
	return ctx, nil
}

// adminClient speaks to this machine's master as the administrator.
func (m *machine) adminClient() (*client.Client, *client.Context, error) {
	ctx, err := m.admin()
	if err != nil {
		return nil, nil, err
	}
	cl, err := client.New(client.Config{Servers: ctx.Servers, Credential: ctx.Credential(), UserAgent: "millrace/" + Version, RetryFor: -1})
	return cl, ctx, err
}

// awaitLead waits until the site answers, and says where.
func (m *machine) awaitLead(ctx context.Context) (server string, err error) {
	ctx, cancel := context.WithTimeout(ctx, leadsWithin)
	defer cancel()
	for {
		cl, admin, err := m.adminClient()
		if err == nil {
			_, err = cl.API().GetSite(ctx, connect.NewRequest(&api.GetSiteRequest{}))
			cl.Close()
		}
		if err == nil {
			return admin.Servers[0], nil
		}
		if running, runErr := m.mgr.Running(ctx, masterService); runErr == nil && !running {
			err = errors.Join(err, errors.New("its service does not run"))
		}
		select {
		case <-time.After(lookAgain):
		case <-ctx.Done():
			return "", faultf(exitFailed, "look what it says: "+m.mgr.Logs(masterService), "the master has not taken up its work within %s: %s", leadsWithin, err)
		}
	}
}

// firstCore makes the first machine a core node as well.
func (m *machine) firstCore(ctx context.Context, out *firstMachine) error {
	n, err := m.node("worker")
	if err == nil && !m.mgr.Installed(workerService) {
		err = m.prepareTaskUser(ctx)
	}
	if err != nil {
		return err
	}
	if n == nil {
		token, err := m.joinToken(ctx, &api.CreateJoinTokenRequest{Role: "core", Uses: 1, TtlMs: (10 * time.Minute).Milliseconds()})
		if err != nil {
			return err
		}
		if err := worker.Enroll(ctx, worker.Config{Dir: m.nodeDir("worker"), Listen: m.workerPorts.api, Join: []string{out.Server}, Token: token, Name: m.c.String("name"), Version: Version}); err != nil {
			return err
		}
	}
	installed, err := m.mgr.Begin(ctx, workerService)
	if err == nil && !installed {
		var host netip.Addr
		if host, err = m.sameHost(out.Server); err == nil {
			err = m.serve(ctx, m.workerServiceOf(host))
		}
	}
	if err != nil {
		return err
	}
	if n, err = joining.Who(m.nodeDir("worker")); err != nil {
		return err
	}
	out.Core = n.ID
	return m.awaitNode(ctx, n.ID)
}

// sameHost is the address that this machine's master is known by.
func (m *machine) sameHost(server string) (netip.Addr, error) {
	host, _, err := net.SplitHostPort(strings.TrimPrefix(server, "https://"))
	if err != nil {
		return netip.Addr{}, err
	}
	return namedAddress(host)
}

// awaitNode waits until a node has its session.
func (m *machine) awaitNode(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, leadsWithin)
	defer cancel()
	for {
		state, err := m.nodeState(ctx, id)
		if err == nil && state == "RUNNING" {
			return nil
		}
		select {
		case <-time.After(lookAgain):
		case <-ctx.Done():
			return faultf(exitFailed, "look what it says: "+m.mgr.Logs(workerService), "the core node has not taken up its work within %s: %s %v", leadsWithin, state, err)
		}
	}
}

func (m *machine) nodeState(ctx context.Context, id string) (string, error) {
	cl, _, err := m.adminClient()
	if err != nil {
		return "", err
	}
	defer cl.Close()
	resp, err := cl.API().ListNodes(ctx, connect.NewRequest(&api.ListNodesRequest{}))
	if err != nil {
		return "", err
	}
	for _, n := range resp.Msg.GetNodes() {
		if n.GetId() == id {
			return n.GetState(), nil
		}
	}
	return "", nil
}

func (m *machine) joinToken(ctx context.Context, req *api.CreateJoinTokenRequest) (string, error) {
	cl, _, err := m.adminClient()
	if err != nil {
		return "", err
	}
	defer cl.Close()
	resp, err := cl.API().CreateJoinToken(ctx, connect.NewRequest(req))
	if err != nil {
		return "", err
	}
	return resp.Msg.GetToken(), nil
}

// sayFirst says what to do next.
func (m *machine) sayFirst(w io.Writer, out *firstMachine) {
	what := "master " + out.Master
	if out.Core != "" {
		what += " and core node " + out.Core
	}
	if out.Already {
		fmt.Fprintf(w, "this machine is %s of site %s already; nothing was changed\n", what, out.Site)
		if out.Note != "" {
			fmt.Fprintf(w, "next: %s\n", out.Note)
		}
	} else {
		fmt.Fprintf(w, "this machine is %s of the new site %s\n", what, out.Site)
	}
	fmt.Fprintf(w, "ready: %s\n%s\n", out.Server, m.runs(masterService))
	out.say(w)
	fmt.Fprintf(w, "context: %s, now the current one\n\n", out.Context)
	masters, workers := out.Ports[:4], out.Ports[4:]
	fmt.Fprintf(w, "ports that must be open between the machines:\n  to masters     %s\n  to core, task  %s\n\n", strings.Join(masters, " "), strings.Join(workers, " "))
	if out.Token == "" {
		fmt.Fprintf(w, "further machines:  millrace join-token create --role core (or master, task, pool), and there: millrace join %s TOKEN\n", out.Server)
	} else {
		fmt.Fprintf(w, "on the next machine, as a core node (good for 24 h, and for others, too):\n  millrace join %s %s\nother roles:  millrace join-token create --role master (or task, pool)\n", out.Server, out.Token)
	}
	fmt.Fprintf(w, "for people:   millrace user create NAME --role admin (or submit, read)\n")
}
