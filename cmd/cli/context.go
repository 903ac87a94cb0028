package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"millrace/pkg/client"
)

// contextView is a context without its secrets.
type contextView struct {
	Name       string   `json:"name"`
	Current    bool     `json:"current"`
	Servers    []string `json:"servers"`
	Cluster    string   `json:"cluster"`
	S3Endpoint string   `json:"s3Endpoint"`
	S3Region   string   `json:"s3Region"`
	S3Access   string   `json:"s3AccessKey"`
}

func (a *app) contextCommand() *cli.Command {
	return group("context", "which cluster and which storage commands speak to", "millrace context list\nmillrace context use dev", nil,
		a.leaf(spec{name: "list", aliases: []string{"ls"}, usage: "all contexts", example: "millrace context list", do: contextList}),
		a.leaf(spec{name: "use", usage: "make a context the current one", args: "NAME", min: 1, max: 1, example: "millrace context use dev", do: contextUse}),
		a.leaf(spec{name: "show", aliases: []string{"describe"}, usage: "a context, without its secrets", args: "[NAME]", max: 1, example: "millrace context show", do: contextShow}),
		a.leaf(spec{name: "set", usage: "change the current context's object store, servers or cluster", args: "[NAME]", max: 1,
			example: "millrace context set --s3 http://minio:9000 --s3-access-key KEY --s3-secret-key SECRET\nmillrace context set --cluster nightly", do: contextSet}),
		a.leaf(spec{name: "remove", aliases: []string{"rm"}, usage: "delete a context", args: "NAME", min: 1, max: 1, example: "millrace context remove old", do: contextRemove}),
		a.leaf(spec{name: "env", usage: "lines that let aws, boto3, rclone and mc see the same storage", example: "eval \"$(millrace context env)\"\nmillrace context env --duckdb | duckdb …",
			flags: []cli.Flag{&cli.BoolFlag{Name: "duckdb", Usage: "a CREATE SECRET statement for DuckDB instead"}}, do: contextEnv}),
	)
}

func contextList(c *call) error {
	names, err := client.ListContexts(c.millraceHome())
	if err != nil {
		return err
	}
	views := []contextView{}
	for _, n := range names {
		v, err := c.viewContext(n)
		if err != nil {
			return err
		}
		views = append(views, v)
	}
	return c.print(views, func(w io.Writer) {
		t := newTable(w, "", "NAME", "SERVERS", "CLUSTER", "OBJECT STORE")
		for _, v := range views {
			mark := ""
			if v.Current {
				mark = "*"
			}
			t.row(mark, v.Name, strings.Join(v.Servers, " "), v.Cluster, v.S3Endpoint)
		}
		t.flush()
	})
}

func (c *call) viewContext(name string) (contextView, error) {
	ctx, err := client.LoadContext(c.millraceHome(), name)
	if err != nil {
		return contextView{}, contextFault(err)
	}
	current, err := client.CurrentContext(c.millraceHome())
	if err != nil && !errors.Is(err, client.ErrNoContext) {
		return contextView{}, err
	}
	v := contextView{Name: ctx.Name, Current: current == ctx.Name, Servers: ctx.Servers, Cluster: ctx.Cluster}
	if v.Servers == nil {
		v.Servers = []string{}
	}
	if v.Cluster == "" {
		v.Cluster = "default"
	}
	if ctx.S3 != nil {
		v.S3Endpoint, v.S3Region, v.S3Access = ctx.S3.Endpoint, ctx.S3.Region, ctx.S3.AccessKey
	}
	return v, nil
}

func contextFault(err error) error {
	if errors.Is(err, client.ErrNoContext) {
		return faultf(exitNotFound, "millrace context list", "%s", err)
	}
	return err
}

// nearContext names the context that was probably meant.
func (a *app) nearContext(name string) string {
	names, err := client.ListContexts(a.millraceHome())
	if near := nearest(name, names); err == nil && near != "" {
		return ": did you mean " + near + "?"
	}
	return ""
}

func contextUse(c *call) error {
	if err := client.UseContext(c.millraceHome(), c.args[0]); err != nil {
		if near := c.nearContext(c.args[0]); near != "" && errors.Is(err, client.ErrNoContext) {
			err = fmt.Errorf("%w%s", err, near)
		}
		return contextFault(err)
	}
	return contextShowNamed(c, c.args[0])
}

func contextShow(c *call) error {
	name := c.String("context")
	if len(c.args) > 0 {
		name = c.args[0]
	}
	return contextShowNamed(c, name)
}

func contextShowNamed(c *call, name string) error {
	v, err := c.viewContext(name)
	if err != nil {
		return err
	}
	return c.print(v, func(w io.Writer) {
		t := newTable(w)
		t.row("context", v.Name)
		t.row("servers", strings.Join(v.Servers, " "))
		t.row("cluster", v.Cluster)
		t.row("object store", v.S3Endpoint)
		t.row("access key", v.S3Access)
		t.flush()
	})
}

func contextSet(c *call) error {
	name := c.String("context")
	if len(c.args) > 0 {
		name = c.args[0]
	}
	ctx, err := client.LoadContext(c.millraceHome(), name)
	if errors.Is(err, client.ErrNoContext) && name != "" {
		ctx, err = &client.Context{Name: name}, nil
	}
	if err != nil {
		return contextFault(err)
	}
	changed := false
	if s := c.StringSlice("server"); len(s) > 0 {
		ctx.Servers, changed = s, true
	}
	if s := c.String("cluster"); s != "" {
		ctx.Cluster, changed = s, true
	}
	if c.IsSet("s3") || c.IsSet("s3-access-key") || c.IsSet("s3-region") {
		source, err := c.storage()
		if err != nil {
			return err
		}
		ctx.S3, changed = &source.S3, true
	}
	if !changed {
		return usagef("millrace context set --help", "nothing to set was given: --s3, --server or --cluster")
	}
	if err := client.SaveContext(c.millraceHome(), ctx); err != nil {
		return err
	}
	return contextShowNamed(c, ctx.Name)
}

func contextRemove(c *call) error {
	if err := client.RemoveContext(c.millraceHome(), c.args[0]); err != nil {
		return contextFault(err)
	}
	return c.print(map[string]string{"removed": c.args[0]}, func(w io.Writer) { fmt.Fprintf(w, "removed context %s\n", c.args[0]) })
}
