package cli

import (
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	"millrace/cmd/cli/view"
	"millrace/pkg/api"
)

func (a *app) userCommand() *cli.Command {
	ttl := &cli.DurationFlag{Name: "ttl", Usage: "how long the login code is good for", Value: 24 * time.Hour}
	return group("user", "people and what they may do", "millrace user create alice --role submit", nil,
		a.leaf(spec{name: "create", usage: "make a person known; prints the line that they log in with, once", args: "NAME", min: 1, max: 1, example: "millrace user create alice --role submit",
			flags: []cli.Flag{&cli.StringFlag{Name: "role", Usage: "`ROLE`: read looks, submit also runs jobs and changes files, admin also changes nodes, clusters, users and the site"}, ttl}, do: userCreate}),
		a.leaf(spec{name: "list", aliases: []string{"ls"}, usage: "the people who are known, and their roles", example: "millrace user list", do: userList}),
		a.leaf(spec{name: "code", usage: "a further login line for somebody who is known: for another machine, or as the last one was lost or has expired. The code before is worthless then", args: "NAME", min: 1, max: 1, example: "millrace user code alice",
			flags: []cli.Flag{ttl}, do: userCode}),
		a.leaf(spec{name: "remove", aliases: []string{"rm"}, usage: "a person may do nothing any more, at once", args: "NAME", min: 1, max: 1, example: "millrace user remove alice", do: userRemove}),
	)
}

func userCreate(c *call) error {
	if c.String("role") == "" {
		return usagef("millrace user create "+c.args[0]+" --role submit", "--role is missing: admin, submit or read")
	}
	if err := c.checkCodeLife(); err != nil {
		return err
	}
	conn, err := c.connect()
	if err != nil {
		return err
	}
	resp, err := conn.api().CreateUser(c.Context.Context, connect.NewRequest(&api.CreateUserRequest{Name: c.args[0], Role: c.String("role"), CodeTtlMs: c.Duration("ttl").Milliseconds()}))
	if err != nil {
		return err
	}
	return c.printCode(conn, resp.Msg)
}

func userCode(c *call) error {
	if err := c.checkCodeLife(); err != nil {
		return err
	}
	conn, err := c.connect()
	if err != nil {
		return err
	}
	resp, err := conn.api().CreateLoginCode(c.Context.Context, connect.NewRequest(&api.CreateLoginCodeRequest{Name: c.args[0], CodeTtlMs: c.Duration("ttl").Milliseconds()}))
	if err != nil {
		return err
	}
	return c.printCode(conn, resp.Msg)
}

func (c *call) checkCodeLife() error {
	if c.Duration("ttl") < time.Second {
		return usagef("--ttl 24h", "--ttl %s is less than a second", c.Duration("ttl"))
	}
	return nil
}

// printCode prints what a person types to log in.
func (c *call) printCode(conn *connection, u *api.User) error {
	servers := c.servers()
	if len(servers) == 0 {
		servers = conn.context.Servers
	}
	v := view.OfUser(u)
	v.Login = fmt.Sprintf("millrace login %s %s", servers[0], v.Code)
	if !c.json {
		fmt.Fprintf(c.env.Stderr, "for %s, role %s, once, until %s; it is as good as a password: send it by a way that others do not read\n", v.Name, v.Role, formatTime(v.CodeExpiresAt))
	}
	return c.print(v, func(w io.Writer) { fmt.Fprintln(w, v.Login) })
}

func userList(c *call) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	resp, err := conn.api().ListUsers(c.Context.Context, connect.NewRequest(&api.ListUsersRequest{}))
	if err != nil {
		return err
	}
	views := []view.User{}
	for _, u := range resp.Msg.GetUsers() {
		views = append(views, view.OfUser(u))
	}
	return c.print(views, func(w io.Writer) {
		t := newTable(w, "NAME", "ROLE", "CREATED", "LAST LOGIN", "CODE UNTIL")
		for _, v := range views {
			t.row(v.Name, v.Role, formatTime(v.CreatedAt), formatTime(v.LastLoginAt), formatTime(v.CodeExpiresAt))
		}
		t.flush()
	})
}

func userRemove(c *call) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	resp, err := conn.api().RemoveUser(c.Context.Context, connect.NewRequest(&api.RemoveUserRequest{Name: c.args[0]}))
	if err != nil {
		return err
	}
	v := view.OfUser(resp.Msg)
	return c.print(v, func(w io.Writer) { fmt.Fprintf(w, "removed %s\n", v.Name) })
}
