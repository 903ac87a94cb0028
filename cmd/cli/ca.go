package cli

import (
	"cmp"
	"context"
	"errors"
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

// Phases of a change of the CA, beside those that nodes are waited for in.
const (
	caSteady   = "STEADY"   // none is under way
	caRetiring = "RETIRING" // the old CA is trusted yet, for people
)

// caAsks is how often --wait asks.
const caAsks = 500 * time.Millisecond

func (a *app) caCommand() *cli.Command {
	return group("ca", "the site's certificate authority", "millrace ca show", nil,
		a.leaf(spec{name: "show", aliases: []string{"describe"}, usage: "its fingerprint, and how far a change of it has come", example: "millrace ca show", do: caShow}),
		a.leaf(spec{name: "rotate", usage: "give the site a new CA, step by step, without an interruption", example: "millrace ca rotate --wait\nmillrace ca rotate --finish     (trust the old one no more, at once)",
			flags: []cli.Flag{
				&cli.BoolFlag{Name: "wait", Usage: "until all nodes have certificates of the new one"},
				&cli.BoolFlag{Name: "finish", Usage: "wait for nobody any more: nodes and people that have nothing of the new CA yet have to join or log in anew"},
			}, do: caRotate}),
	)
}

func caShow(c *call) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	s, err := askCA(c.Context.Context, conn, &api.RotateCARequest{StatusOnly: true})
	if err != nil {
		return err
	}
	return c.printCA(conn, s)
}

func caRotate(c *call) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	before, err := askCA(c.Context.Context, conn, &api.RotateCARequest{StatusOnly: true})
	if err != nil {
		return err
	}
	s, err := askCA(c.Context.Context, conn, &api.RotateCARequest{Finish: c.Bool("finish")})
	if err != nil {
		return err
	}
	if before.GetPhase() != caSteady && !c.Bool("finish") && !c.json {
		fmt.Fprintf(c.env.Stderr, "this changes nothing: a change of the CA is under way since %s, and one is made at a time\n", formatTime(view.At(before.GetSince())))
	}
	if c.Bool("wait") {
		if s, err = c.awaitCA(conn, s); err != nil {
			return err
		}
	}
	return c.printCA(conn, s)
}

// awaitCA follows a change of the CA until no node is waited for any more.
func (c *call) awaitCA(conn *connection, s *api.CAState) (*api.CAState, error) {
	ctx, said := c.Context.Context, ""
	for s.GetPhase() != caSteady && s.GetPhase() != caRetiring {
		if now := caLine(s.GetPhase(), c.waitedFor(conn, s)); now != said && !c.json {
			fmt.Fprintln(c.env.Stderr, now)
			said = now
		}
		var err error
		select {
		case <-time.After(caAsks):
			s, err = askCA(ctx, conn, &api.RotateCARequest{StatusOnly: true})
		case <-ctx.Done():
			err = ctx.Err()
		}
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil, faultf(exitInterrupted, "millrace ca rotate --wait follows it, millrace ca show says how far it is", "interrupted; the change of the CA goes on")
		}
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

func askCA(ctx context.Context, conn *connection, req *api.RotateCARequest) (*api.CAState, error) {
	resp, err := conn.api().RotateCA(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// waitedFor names the nodes that a change waits for, as people know them, and says which of them are away and what ends the wait.
func (c *call) waitedFor(conn *connection, s *api.CAState) []string {
	names := slices.Clone(s.GetWaiting())
	if len(names) == 0 {
		return nil
	}
	resp, err := conn.api().ListNodes(c.Context.Context, connect.NewRequest(&api.ListNodesRequest{}))
	if err != nil {
		return names // ids will do
	}
	for i, id := range names {
		for _, n := range resp.Msg.GetNodes() {
			if n.GetId() != id {
				continue
			}
			name := clean(cmp.Or(n.GetName(), id))
			names[i] = name
			switch {
			case n.GetState() != "LOST":
			case n.GetRole() == "MASTER":
				names[i] += " (lost; if for good: millrace master remove " + name + ")"
			default:
				names[i] += " (lost; if for good: millrace node remove " + name + ")"
			}
		}
	}
	return names
}

// caLine says in a line what goes on.
func caLine(phase string, waitedFor []string) string {
	waiting := ""
	if len(waitedFor) > 0 {
		waiting = ": waiting for " + strings.Join(waitedFor, ", ")
	}
	switch phase {
	case "SPREADING":
		return "all nodes learn to trust the new CA" + waiting
	case "ISSUING":
		return "all nodes get certificates of the new CA" + waiting
	case caRetiring:
		return "all nodes have certificates of the new CA; the old one is trusted for a week yet, for people who log in seldom (millrace ca rotate --finish ends that)"
	}
	return "nothing changes"
}

func (c *call) printCA(conn *connection, s *api.CAState) error {
	v := view.OfCA(s)
	return c.print(v, func(w io.Writer) {
		t := newTable(w)
		t.row("fingerprint", v.Fingerprint)
		t.row("phase", v.Phase)
		t.row("since", formatTime(v.Since))
		t.row("", caLine(v.Phase, c.waitedFor(conn, s)))
		t.flush()
	})
}
