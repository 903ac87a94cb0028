package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"connectrpc.com/connect"

	"millrace/cmd/cli/view"
	"millrace/pkg/api"
)

func masterList(c *call) error {
	nodes, err := c.nodes()
	if err != nil {
		return err
	}
	masters := []view.Node{}
	for _, n := range nodes {
		if n.Role == "MASTER" {
			masters = append(masters, n)
		}
	}
	return c.print(masters, func(w io.Writer) {
		t := newTable(w, "ID", "NAME", "STATE", "MEMBER", "VERSION", "SEEN", "ADDRESS", "REASON")
		for _, n := range masters {
			member := strings.ToLower(n.Member)
			if n.Leader {
				member = "leader"
			}
			t.row(n.ID, n.Name, n.State, member, n.Version, formatAge(n.LastSeenAt.Time, time.Now()), n.Address, n.Reason)
		}
		t.flush()
	})
}

func masterAdd(c *call) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	resp, err := conn.api().AddMaster(c.Context.Context, connect.NewRequest(&api.AddMasterRequest{Id: c.args[0]}))
	if err != nil {
		return err
	}
	return c.masterChanged(resp.Msg, "votes")
}

func masterRemove(c *call) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	resp, err := conn.api().RemoveMaster(c.Context.Context, connect.NewRequest(&api.RemoveMasterRequest{Id: c.args[0]}))
	if err != nil {
		return err
	}
	return c.masterChanged(resp.Msg, "is out of the set")
}

func (c *call) masterChanged(n *api.Node, what string) error {
	v := view.OfNode(n)
	return c.print(v, func(w io.Writer) { fmt.Fprintf(w, "master %s (%s) %s\n", v.ID, v.Name, what) })
}
