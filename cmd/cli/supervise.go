package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/urfave/cli/v2"

	"millrace/pkg/service"
)

// superviseCommand is what keeps services running on machines without systemd.
func (a *app) superviseCommand() *cli.Command {
	return a.leaf(spec{name: "supervise", usage: "keep a service of this machine running, where systemd does not", args: "[NAME]", max: 1, hidden: true,
		example: "millrace supervise --all", flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Usage: "every service that init and join have set up here"},
			&cli.BoolFlag{Name: "start", Usage: "have it kept running by another process, unless it is already"},
			&cli.BoolFlag{Name: "stop", Usage: "end that, and the service"},
			&cli.BoolFlag{Name: "status", Usage: "say whether it is kept running"},
		}, do: supervise})
}

func supervise(c *call) error {
	names, host, ctx := c.args, service.Host{}, c.Context.Context
	modes := slices.DeleteFunc([]string{"all", "start", "stop", "status"}, func(flag string) bool { return !c.Bool(flag) })
	if len(modes) > 1 || c.Bool("all") == (len(names) == 1) {
		return usagef("millrace supervise --all", "name one service, or give --all")
	}
	switch {
	case c.Bool("start"):
		return service.StartSupervisor(ctx, host, names[0])
	case c.Bool("stop"):
		return service.EndSupervisor(ctx, host, names[0])
	case c.Bool("status"):
		return c.supervised(host, names[0])
	case c.Bool("all"):
		var err error
		if names, err = service.Names(host); err != nil {
			return err
		}
	}
	errs := make([]error, len(names))
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() { errs[i] = superviseOne(ctx, host, name) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// supervised says whether a service is kept running; in its exit code, too, as scripts of OpenRC do.
func (c *call) supervised(host service.Host, name string) error {
	has, err := service.HasSupervisor(host, name)
	if err != nil {
		return err
	}
	if !has {
		return faultf(exitFailed, "millrace supervise --start "+name, "%s is not kept running", name)
	}
	return c.print(map[string]bool{"supervised": has}, func(w io.Writer) { fmt.Fprintf(w, "%s is kept running\n", name) })
}

// superviseOne is no mistake where somebody does so already: it may be asked for at every boot, and again.
func superviseOne(ctx context.Context, host service.Host, name string) error {
	err := service.Supervise(ctx, host, name)
	if errors.Is(err, service.ErrSupervised) {
		return nil
	}
	return err
}
