package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"millrace/pkg/client"
)

// contextView is a context without its secrets.
type contextView struct {
	Name       string   `json:"name"`
	Current    bool     `json:"current"`
	Servers    []string `json:"servers"`
	Cluster    string   `json:"cluster"`
	User       string   `json:"user"`                // whom the credential is for; "": there is none, or not one that can be read
	Site       string   `json:"site"`                // of which site, as the former
	GoodUntil  string   `json:"goodUntil,omitempty"` // of the credential
	S3Endpoint string   `json:"s3Endpoint"`
	S3Region   string   `json:"s3Region"`
	S3Access   string   `json:"s3AccessKey"`
	Damage     string   `json:"damage,omitempty"` // why it cannot be used
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
	home, err := c.home()
	if err != nil {
		return err
	}
	names, err := client.ListContexts(home)
	if err != nil {
		return c.contextFault(home, err)
	}
	views := []contextView{}
	for _, n := range names {
		v, err := c.viewContext(n)
		var damaged *client.DamagedContextError
		if errors.As(err, &damaged) { // the others are as good as before
			v, err = contextView{Name: n, Servers: []string{}, Damage: damaged.Error()}, nil
		}
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
			if v.Damage != "" {
				t.row(mark, v.Name, v.Damage)
				continue
			}
			t.row(mark, v.Name, strings.Join(v.Servers, " "), v.Cluster, v.S3Endpoint)
		}
		t.flush()
	})
}

func (c *call) viewContext(name string) (contextView, error) {
	home, err := c.home()
	if err != nil {
		return contextView{}, err
	}
	ctx, err := client.LoadContext(home, name)
	if err != nil {
		return contextView{}, c.contextFault(home, err)
	}
	current, err := client.CurrentContext(home)
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
	if cert, err := ctx.Credential().Certificate(); err == nil {
		v.GoodUntil = cert.NotAfter.UTC().Format(time.RFC3339)
	}
	if id, err := ctx.Credential().Identity(); err == nil {
		v.User, v.Site = id.ID, id.Site
	}
	if ctx.S3 != nil {
		v.S3Endpoint, v.S3Region, v.S3Access = ctx.S3.Endpoint, ctx.S3.Region, ctx.S3.AccessKey
	}
	return v, nil
}

// contextFault says what to do about a context, or the folder they lie in, that cannot be used.
func (c *call) contextFault(home string, err error) error {
	var damaged *client.DamagedContextError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, client.ErrNoContext):
		return faultf(exitNotFound, "millrace context list", "%s", err)
	case errors.Is(err, client.ErrContextName):
		return usagef("millrace context list", "%s", err)
	case errors.As(err, &damaged):
		return usagef("millrace context remove "+damaged.Name+"; then make it again: millrace dev, for a cluster on this machine", "%s", err)
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission), notMade(err):
		return usagef("export MILLRACE_HOME=…, a folder that this user can write to", "%s: %s", home, err)
	}
	return err
}

// nearContext names the context that was probably meant.
func nearContext(home, name string) string {
	names, err := client.ListContexts(home)
	if near := nearest(name, names); err == nil && near != "" {
		return ": did you mean " + near + "?"
	}
	return ""
}

func contextUse(c *call) error {
	home, err := c.home()
	if err != nil {
		return err
	}
	if err := client.UseContext(home, c.args[0]); err != nil {
		if near := nearContext(home, c.args[0]); near != "" && errors.Is(err, client.ErrNoContext) {
			err = fmt.Errorf("%w%s", err, near)
		}
		return c.contextFault(home, err)
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
		t.row("user", v.User)
		t.row("site", v.Site)
		t.row("good until", v.GoodUntil)
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
	home, err := c.home()
	if err != nil {
		return err
	}
	ctx, err := client.LoadContext(home, name)
	if errors.Is(err, client.ErrNoContext) && name != "" {
		ctx, err = &client.Context{Name: name}, nil
	}
	if err != nil {
		return c.contextFault(home, err)
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
	if err := client.SaveContext(home, ctx); err != nil {
		return c.contextFault(home, err)
	}
	return contextShowNamed(c, ctx.Name)
}

func contextRemove(c *call) error {
	home, err := c.home()
	if err != nil {
		return err
	}
	if err := client.RemoveContext(home, c.args[0]); err != nil {
		return c.contextFault(home, err)
	}
	return c.print(map[string]string{"removed": c.args[0]}, func(w io.Writer) { fmt.Fprintf(w, "removed context %s\n", c.args[0]) })
}
