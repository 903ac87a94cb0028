package cli

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	"millrace/pkg/api"
	"millrace/pkg/userdata"
)

func (a *app) userDataCommand() *cli.Command {
	return a.leaf(spec{name: "user-data", usage: "print a script that makes a fresh machine a node: run it as root, or give it as user data (cloud-init)",
		example: "millrace cluster user-data --role task --cluster nightly > user-data.sh\nmillrace cluster user-data --role pool --ttl 720h --uses 50",
		flags: []cli.Flag{
			&cli.StringFlag{Name: "role", Usage: "`ROLE` of the machine: core, task or pool", Value: "task"},
			&cli.DurationFlag{Name: "ttl", Usage: "how long machines can join by it", Value: 24 * time.Hour},
			&cli.IntFlag{Name: "uses", Usage: "how many machines may; 0: any number"},
			&cli.DurationFlag{Name: "wait", Usage: "for `TIME` it waits for the network and the masters", Value: 15 * time.Minute},
			machineDirFlag(), taskUserFlag(),
		}, do: userData})
}

// userDataView is the script as JSON.
type userDataView struct {
	Script    string    `json:"script"`
	Role      string    `json:"role"`
	Cluster   string    `json:"cluster,omitempty"`
	TokenID   string    `json:"tokenId"`
	ExpiresAt time.Time `json:"expiresAt"`
}

func userData(c *call) error {
	role := strings.ToLower(c.String("role"))
	var m mistakes
	if role != "core" && role != "task" && role != "pool" {
		m.wrong("millrace cluster user-data --role task", "--role %s is not one of core, task, pool", c.String("role"))
	}
	if role == "pool" && c.IsSet("cluster") {
		m.wrong("millrace cluster user-data --role pool", "--cluster %s does not go with --role pool: those machines are of the site, not of a cluster", shown(c.String("cluster")))
	}
	if c.Duration("ttl") < time.Second {
		m.wrong("millrace cluster user-data --ttl 24h", "--ttl %s is less than a second", c.Duration("ttl"))
	}
	if c.Int("uses") < 0 {
		m.wrong("millrace cluster user-data --uses 3", "--uses %d is negative", c.Int("uses"))
	}
	if c.Duration("wait") < time.Second {
		m.wrong("millrace cluster user-data --wait 15m", "--wait %s is less than a second", c.Duration("wait"))
	}
	if err := c.checkTaskUser(); err != nil {
		m.wrong("millrace cluster user-data --task-user "+usualTaskUser, "--task-user: %s", err)
	}
	if err := m.fault(); err != nil {
		return err
	}
	conn, err := c.connect()
	if err != nil {
		return err
	}
	ctx := c.Context.Context
	binaries, err := conn.api().ListBinaries(ctx, connect.NewRequest(&api.ListBinariesRequest{}))
	if err != nil {
		return err
	}
	masters, err := conn.masterURLs(ctx)
	if err != nil {
		return err
	}
	cluster := conn.cluster
	if role == "pool" {
		cluster = ""
	}
	token, err := conn.api().CreateJoinToken(ctx, connect.NewRequest(&api.CreateJoinTokenRequest{
		Cluster: cluster, Role: role, TtlMs: c.Duration("ttl").Milliseconds(), Uses: int32(c.Int("uses"))}))
	if err != nil {
		return err
	}
	view := userDataView{Role: role, Cluster: token.Msg.GetCluster(), TokenID: token.Msg.GetId(), ExpiresAt: token.Msg.GetExpiresAt().AsTime()}
	what := "a " + role + " node of cluster " + view.Cluster
	if role == "pool" {
		what = "a node of the site's pool"
	}
	spec := userdata.Spec{Masters: masters, Token: token.Msg.GetToken(), CAPEM: string(binaries.Msg.GetCaPem()), Binaries: map[string]string{},
		What: what, Expires: view.ExpiresAt, Patience: c.Duration("wait"), Dir: c.String("dir")}
	if c.IsSet("task-user") {
		spec.TaskUser = c.String("task-user")
	}
	for _, b := range binaries.Msg.GetBinaries() {
		spec.Binaries[b.GetArch()] = b.GetSha256()
	}
	if view.Script, err = userdata.Script(spec); err != nil {
		return usagef("millrace cluster user-data --help", "%s", err)
	}
	if !c.json {
		c.sayRole(what)
		if onlyLocal(masters) {
			fmt.Fprintf(c.env.Stderr, "the site's masters are reached at %s alone, from their own machine: no other will get there (millrace init --advertise makes a site that others join)\n", strings.Join(masters, ", "))
		}
	}
	return c.print(view, func(w io.Writer) { io.WriteString(w, view.Script) })
}

// onlyLocal says whether all URLs lead back to the machine that asks.
func onlyLocal(urls []string) bool {
	return !slices.ContainsFunc(urls, func(text string) bool {
		u, err := url.Parse(text)
		if err != nil {
			return true
		}
		ip, err := netip.ParseAddr(u.Hostname())
		return u.Hostname() != "localhost" && (err != nil || !ip.IsLoopback())
	})
}

// masterURLs are the addresses of the site's masters, those that are up first. One that is out of the set is none of them.
func (c *connection) masterURLs(ctx context.Context) (urls []string, err error) {
	resp, err := c.api().ListNodes(ctx, connect.NewRequest(&api.ListNodesRequest{}))
	if err != nil {
		return nil, err
	}
	var down []string
	for _, n := range resp.Msg.GetNodes() {
		switch {
		case n.GetRole() != "MASTER" || n.GetMember() == "NONE" || n.GetAddress() == "":
		case n.GetState() == "LOST":
			down = append(down, n.GetAddress())
		default:
			urls = append(urls, n.GetAddress())
		}
	}
	return append(urls, down...), nil
}
