package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	"millrace/cmd/cli/view"
	"millrace/pkg/api"
)

const eventsLookEvery = 500 * time.Millisecond

func (a *app) clusterEventsCommand() *cli.Command {
	return a.leaf(spec{name: "events", usage: "what has happened to a cluster, and why; the last 300", args: clusterArg, max: 1, example: "millrace cluster events\nmillrace cluster events nightly -f",
		flags: []cli.Flag{&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with what happens, until Ctrl-C or the cluster's end"}}, do: clusterEvents})
}

func clusterEvents(c *call) error {
	if c.Bool("follow") && c.json {
		return usagef("leave out one of them", "--follow and --json exclude each other: one document has an end")
	}
	conn, err := c.connect()
	if err != nil {
		return err
	}
	ctx, name := c.Context.Context, c.clusterNamed(conn)
	events, err := listEvents(ctx, conn, name, 0)
	if err != nil {
		return err
	}
	if err := c.print(events, func(w io.Writer) { printEvents(w, events) }); err != nil || !c.Bool("follow") {
		return err
	}
	return c.followEvents(ctx, conn, name, events)
}

func listEvents(ctx context.Context, conn *connection, name string, after uint64) ([]view.Event, error) {
	resp, err := conn.api().ListEvents(ctx, connect.NewRequest(&api.ListEventsRequest{Cluster: name, After: after}))
	if err != nil {
		return nil, err
	}
	return view.Events(resp.Msg.GetEvents()), nil
}

// printEvents prints a line for each.
func printEvents(w io.Writer, events []view.Event) {
	for _, e := range events {
		fmt.Fprintf(w, "%s  %-9s  %s\n", formatTime(e.At), clean(e.Kind), clean(e.Message))
	}
}

// followEvents goes on printing what happens, for as long as the cluster is there.
func (c *call) followEvents(ctx context.Context, conn *connection, name string, had []view.Event) error {
	look := time.NewTicker(eventsLookEvery)
	defer look.Stop()
	var after uint64
	if len(had) > 0 {
		after = had[len(had)-1].Number
	}
	cluster, err := getCluster(ctx, conn, name)
	if err != nil {
		return err
	}
	well := time.Now()
	for ended := false; !ended; {
		select {
		case <-look.C:
		case <-ctx.Done():
			return silent{exitInterrupted}
		}
		now, err := getCluster(ctx, conn, cluster.ID) // before its events: the last of them are printed
		var events []view.Event
		if err == nil {
			events, err = listEvents(ctx, conn, cluster.ID, after)
		}
		switch {
		case err == nil:
			well, ended = time.Now(), over(now.State)
		case ctx.Err() != nil:
			return silent{exitInterrupted}
		case explain(ctx, err).code != exitUnreachable || time.Since(well) > clusterPatience:
			return err
		}
		if len(events) > 0 {
			after = events[len(events)-1].Number
			if err := c.print(events, func(w io.Writer) { printEvents(w, events) }); err != nil {
				return err
			}
		}
	}
	return nil
}
