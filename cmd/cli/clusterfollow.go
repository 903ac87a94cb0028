package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"millrace/cmd/cli/view"
)

const (
	clusterLookEvery = 200 * time.Millisecond
	// clusterPatience is how long whoever follows a cluster waits for a master.
	clusterPatience = time.Minute
)

func msDuration(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }

// clusterLine is the one line people get of a cluster.
func clusterLine(v view.Cluster) string {
	var parts []string
	for _, g := range v.Groups {
		parts = append(parts, groupLine(g))
	}
	return fmt.Sprintf("cluster %s (%s) is %s%s: %s", clean(v.Name), v.ID, v.State, because(v.Reason), strings.Join(parts, "; "))
}

// groupLine says how far a group is from its target.
func groupLine(g view.Group) string {
	text := fmt.Sprintf("%s %d of %d", strings.ToLower(g.Role), g.Running, g.Target)
	if rest := strings.TrimPrefix(groupState(g), fmt.Sprintf("%d running", g.Running)); rest != "" {
		text += rest
	}
	if g.Reason != "" && g.Running != g.Target {
		text += " (" + clean(firstLineOf(g.Reason)) + ")"
	}
	return text
}

func firstLineOf(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// isSettled says whether a cluster takes jobs, and each group is what it is to be.
func isSettled(v view.Cluster) (bool, error) {
	if v.State == "TERMINATING" || over(v.State) {
		return false, faultf(exitFailed, "millrace cluster events "+v.Name, "cluster %s is %s%s", clean(v.Name), v.State, because(v.Reason))
	}
	settled := v.State == "RUNNING" || v.State == "WAITING"
	for _, g := range v.Groups {
		if g.Suspended {
			return false, faultf(exitFailed, "millrace node list --cluster "+clean(v.Name)+" says more; once the cause is mended: millrace cluster resize "+clean(v.Name)+" --retry, or with others: millrace cluster set "+clean(v.Name)+" --bootstrap-action SCRIPT", "the %s group of cluster %s grows no more%s", strings.ToLower(g.Role), clean(v.Name), because(g.Reason))
		}
		settled = settled && g.Running == g.Target && g.Launching+g.Bootstrapping+g.Draining == 0
		if g.Role == "CORE" && g.Target == 0 && g.Running == 0 { // it waits for nodes that somebody lets join
			settled = true
		}
	}
	return settled, nil
}

// isOver says whether a cluster has ended.
func isOver(v view.Cluster) (bool, error) { return over(v.State), nil }

// followCluster shows how a cluster gets on until it is done. Ctrl-C leaves it going.
func (c *call) followCluster(ctx context.Context, conn *connection, v view.Cluster, done func(view.Cluster) (bool, error)) (view.Cluster, error) {
	show, stop := c.drainProgress()
	defer stop()
	look := time.NewTicker(clusterLookEvery)
	defer look.Stop()
	goesOn := "millrace cluster show " + v.Name + " says how far it is"
	well := time.Now() // when a master last answered
	for {
		if ok, err := done(v); ok || err != nil {
			return v, err
		}
		show(clusterLine(v))
		select {
		case <-look.C:
		case <-ctx.Done():
			return v, faultf(exitInterrupted, goesOn, "interrupted; what was asked for of cluster %s goes on", clean(v.Name))
		}
		now, err := getCluster(ctx, conn, v.ID)
		switch {
		case err == nil:
			v, well = now, time.Now()
		case ctx.Err() != nil:
		case explain(ctx, err).code != exitUnreachable || time.Since(well) > clusterPatience:
			f := explain(ctx, err)
			f.lines = append(f.lines, "what was asked for of cluster "+clean(v.Name)+" goes on")
			f.next = goesOn
			return v, f
		}
	}
}
