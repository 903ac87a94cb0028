package cli

import (
	"io"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	"millrace/cmd/cli/view"
	"millrace/pkg/api"
)

func (a *app) siteCommand() *cli.Command {
	return group("site", "the site as a whole", "millrace site show", nil,
		a.leaf(spec{name: "show", aliases: []string{"describe"}, usage: "its id, store, CA and settings", example: "millrace site show", do: siteShow}),
		a.leaf(spec{name: "set", usage: "change what holds for the whole site", example: "millrace site set --exec off",
			flags: []cli.Flag{&cli.StringFlag{Name: "exec", Usage: "`on` or off: whether administrators may run programs on nodes with node exec"}}, do: siteSet}),
	)
}

func siteShow(c *call) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	resp, err := conn.api().GetSite(c.Context.Context, connect.NewRequest(&api.GetSiteRequest{}))
	if err != nil {
		return err
	}
	return c.printSite(resp.Msg)
}

func (c *call) printSite(s *api.Site) error {
	v := view.OfSite(s)
	return c.print(v, func(w io.Writer) {
		exec := "on"
		if !v.Exec {
			exec = "off"
		}
		t := newTable(w)
		t.row("site", v.ID)
		t.row("leader", v.Leader)
		t.row("version", v.Version)
		t.row("object store", v.S3Endpoint)
		t.row("system prefix", v.SystemPrefix)
		t.row("CA", v.CA.Fingerprint)
		t.row("CA phase", v.CA.Phase)
		t.row("node exec", exec)
		t.flush()
	})
}

func siteSet(c *call) error {
	var off bool
	switch c.String("exec") {
	case "on":
	case "off":
		off = true
	case "":
		return usagef("millrace site set --help", "nothing to set was given: --exec on or off")
	default:
		return usagef("millrace site set --exec off", "--exec %s is not one of on, off", c.String("exec"))
	}
	conn, err := c.connect()
	if err != nil {
		return err
	}
	resp, err := conn.api().SetSite(c.Context.Context, connect.NewRequest(&api.SetSiteRequest{NoExec: &off}))
	if err != nil {
		return err
	}
	return c.printSite(resp.Msg)
}
