package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	"millrace/cmd/cli/view"
	"millrace/pkg/api"
)

func (a *app) joinTokenCommand() *cli.Command {
	return group("join-token", "tokens with which further nodes join", "millrace join-token create --role task", nil,
		a.leaf(spec{name: "create", usage: "make a token; printed once, on standard output", example: "millrace join-token create --role task --ttl 1h --uses 3\nmillrace join-token create --role core --cluster nightly > token\nmillrace join-token create --role pool",
			flags: []cli.Flag{
				&cli.StringFlag{Name: "role", Usage: "`ROLE` of the nodes: core, task, master, or pool: free until a cluster takes them", Value: "task"},
				&cli.DurationFlag{Name: "ttl", Usage: "how long it is good for", Value: 24 * time.Hour},
				&cli.IntFlag{Name: "uses", Usage: "how many nodes may use it; 0: any number"},
			}, do: tokenCreate}),
		a.leaf(spec{name: "list", aliases: []string{"ls"}, usage: "tokens that are still good, without their secrets", example: "millrace join-token list", do: tokenList}),
		a.leaf(spec{name: "revoke", aliases: []string{"remove", "rm"}, usage: "make a token worthless", args: "ID", min: 1, max: 1, example: "millrace join-token revoke 7f3a", do: tokenRevoke}),
	)
}

func tokenCreate(c *call) error {
	role := strings.ToLower(c.String("role"))
	switch {
	case !slices.Contains([]string{"core", "task", "master", "pool"}, role):
		return usagef("millrace join-token create --role task", "--role %s is not one of core, task, master, pool", c.String("role"))
	case c.Duration("ttl") < time.Second:
		return usagef("millrace join-token create --ttl 24h", "--ttl %s is less than a second", c.Duration("ttl"))
	case (role == "master" || role == "pool") && c.IsSet("cluster"):
		return usagef("millrace join-token create --role "+role, "--cluster %s does not go with --role %s: those nodes are of the site, not of a cluster", c.String("cluster"), role)
	case c.Int("uses") < 0:
		return usagef("millrace join-token create --uses 3", "--uses %d is negative", c.Int("uses"))
	}
	conn, err := c.connect()
	if err != nil {
		return err
	}
	resp, err := conn.api().CreateJoinToken(c.Context.Context, connect.NewRequest(&api.CreateJoinTokenRequest{
		Cluster: conn.cluster, Role: role, TtlMs: c.Duration("ttl").Milliseconds(), Uses: int32(c.Int("uses"))}))
	if err != nil {
		return err
	}
	v := view.OfToken(resp.Msg)
	if !c.json {
		servers := c.servers()
		if len(servers) == 0 {
			servers = conn.context.Servers
		}
		c.sayRole(strings.TrimSpace("a task node of cluster " + v.Cluster))
		what := "worker"
		if role == "master" {
			what = "master run"
		}
		fmt.Fprintf(c.env.Stderr, "on the new machine: millrace "+what+" --dir DIR --join %s --token @FILE   (FILE holds the token; - reads it from standard input)\n", servers[0])
	}
	return c.print(v, func(w io.Writer) { fmt.Fprintln(w, v.Token) })
}

// sayRole says what a token is for, to who left it to the default.
func (c *call) sayRole(what string) {
	if !c.IsSet("role") {
		fmt.Fprintf(c.env.Stderr, "it makes %s; --role says otherwise\n", what)
	}
}

func tokenList(c *call) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	resp, err := conn.api().ListJoinTokens(c.Context.Context, connect.NewRequest(&api.ListJoinTokensRequest{}))
	if err != nil {
		return err
	}
	views := []view.Token{}
	for _, t := range resp.Msg.GetTokens() {
		if v := view.OfToken(t); stillGood(v, time.Now()) {
			views = append(views, v)
		}
	}
	return c.print(views, func(w io.Writer) {
		t := newTable(w, "ID", "ROLE", "CLUSTER", "EXPIRES", "USES LEFT")
		for _, v := range views {
			uses := fmt.Sprint(v.UsesLeft)
			if v.UsesLeft < 0 {
				uses = "any"
			}
			t.row(v.ID, v.Role, v.Cluster, formatTime(v.ExpiresAt), uses)
		}
		t.flush()
	})
}

// stillGood says whether a node can join with the token now.
func stillGood(t view.Token, now time.Time) bool {
	return t.UsesLeft != 0 && (t.ExpiresAt.IsZero() || t.ExpiresAt.After(now))
}

func tokenRevoke(c *call) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	if _, err := conn.api().RevokeJoinToken(c.Context.Context, connect.NewRequest(&api.RevokeJoinTokenRequest{Id: c.args[0]})); err != nil {
		return err
	}
	return c.print(map[string]string{"revoked": c.args[0]}, func(w io.Writer) { fmt.Fprintf(w, "revoked %s\n", c.args[0]) })
}
