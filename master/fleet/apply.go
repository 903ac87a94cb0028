package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"millrace/master/leaving"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/security"
)

// do logs steps, one after another, and has everybody take up what they change. False: one of them was not taken.
func (f *Fleet) do(ctx context.Context, steps []Step) (all bool) {
	events := map[string][]state.Event{} // by cluster
	all = true
	for _, s := range steps {
		command, err := f.command(s)
		if c, leaves := command.(state.LeaveNode); leaves && err == nil && c.Bye == "" { // what ends by itself does so, whatever is said to it
			if e := f.refusal(c.ID); e != nil {
				s.Event, command = e, nil
			}
		}
		if err == nil && command != nil {
			err = f.apply(ctx, command)
		}
		if err != nil {
			f.trouble("a step of the fleet is not taken", err)
			all = false
			break
		}
		if s.Failed != "" {
			f.failed(s.Failed, s.Event.Message)
		}
		if s.Event != nil && s.Event.Message != "" {
			events[s.Cluster] = append(events[s.Cluster], *s.Event)
			f.log.Info(s.Event.Message, zap.String("cluster", s.Cluster), zap.String("subject", s.Event.Subject))
		}
	}
	for cluster, list := range events {
		if _, err := f.cfg.Apply(ctx, state.AddEvents{Cluster: cluster, Events: list}); err != nil {
			f.trouble("events are not kept", err)
			all = false
		}
	}
	if all {
		f.well("a step of the fleet is not taken")
	}
	return all
}

// command is the entry of a step.
func (f *Fleet) command(s Step) (state.Command, error) {
	if s.Launch == nil {
		return s.Command, nil
	}
	return f.newLaunch(*s.Launch)
}

// newLaunch gives a launch its id and a token for one node.
func (f *Fleet) newLaunch(l state.Launch) (state.Command, error) {
	v := f.cfg.View()
	site, ok := v.Site()
	c, there := v.Cluster(l.Cluster)
	if !ok || !there {
		return nil, fmt.Errorf("launch for cluster %s: %w", l.Cluster, state.ErrNotFound)
	}
	i := slices.IndexFunc(c.Groups, func(g state.Group) bool { return g.ID == l.Group })
	if i < 0 {
		return nil, fmt.Errorf("launch for group %s: %w", l.Group, state.ErrNotFound)
	}
	token, err := security.NewToken([]byte(site.CAPEM))
	if err != nil {
		return nil, err
	}
	if l.ID, err = f.cfg.NewID("l-"); err != nil {
		return nil, err
	}
	if l.SealedToken, err = f.cfg.Seal.Seal([]byte(token.String())); err != nil {
		return nil, err
	}
	l.State, l.Token = state.LaunchRequested, token.ID
	return state.PutLaunch{Launch: l, Create: &state.Token{
		ID: token.ID, SecretHash: token.SecretHash(), Role: c.Groups[i].Role, Cluster: c.ID, UsesLeft: 1, Launch: l.ID,
		ExpiresAt: l.RequestedAt.Add(f.cfg.Rules.JoinWithin + tokenLeftover),
	}}, nil
}

// apply logs one command and tells who has to know.
func (f *Fleet) apply(ctx context.Context, c state.Command) error {
	if _, err := f.cfg.Apply(ctx, c); err != nil {
		return fmt.Errorf("%s: %w", c.CommandName(), err)
	}
	switch c := c.(type) {
	case state.LeaveNode:
		f.changed(c.ID)
	case state.DrainNode:
		f.changed(c.ID)
	case state.RemoveNode:
		f.changed(c.ID)
	case state.AssignNode:
		f.note(f.placed, c.ID)
		f.place(c.ID)
	case state.ReleaseNode:
		f.changed(c.ID)
		f.place(c.ID)
	case state.TerminateCluster:
		f.cfg.Jobs.ClusterChanged(c.Cluster) // a job may have come just before
	}
	return nil
}

func (f *Fleet) changed(node string) {
	f.cfg.Jobs.NodeChanged(node)
	f.cfg.Blocks.NodeChanged(node)
}

// place tells a node where it is from now on. If it does not hear that, its next session's welcome says so.
func (f *Fleet) place(node string) {
	if n, ok := f.cfg.View().Node(node); ok {
		f.cfg.Sessions.Send(node, &api.MasterMessage{Message: &api.MasterMessage_Assignment{Assignment: &api.Assignment{Cluster: n.Cluster, Role: n.Role}}})
	}
}

// refusal keeps a group for a while from losing a core node whose blocks could not be kept, or the last one that is needed: the event says
// why, and has no text if that was said before. nil: the node may leave.
func (f *Fleet) refusal(id string) *state.Event {
	v := f.cfg.View()
	n, ok := v.Node(id)
	if !ok || n.Role != state.RoleCore || n.Failure != "" {
		return nil
	}
	now := f.cfg.Now()
	if _, up := f.judge.Session(id); !up && now.Sub(f.begun) >= f.cfg.Rules.LostPatience { // there is nothing to be copied from it
		return nil
	}
	_, err := f.judge.Can(n)
	if errors.Is(err, leaving.ErrNoCore) && targetOf(v, n) == 0 {
		_, err = f.judge.CanAll(n)
	}
	if err == nil {
		return nil
	}
	why := fmt.Sprintf("%s cannot leave: %s", called(n), err)
	f.refusals[n.Group] = Refusal{now.Add(refusalLasts), why}
	e := &state.Event{At: now.UTC(), Kind: "GROUP", Subject: n.Group, Message: why}
	if c, ok := v.Cluster(n.Cluster); ok && said(c, e) {
		return &state.Event{}
	}
	return e
}

func targetOf(v *state.View, n *state.Node) int {
	if c, ok := v.Cluster(n.Cluster); ok {
		for _, g := range c.Groups {
			if g.ID == n.Group {
				return g.Target
			}
		}
	}
	return 0
}

// failed keeps a group from being given launches that fail one after another.
func (f *Fleet) failed(group, problem string) {
	b := f.backoffs[group]
	b.Failures++
	b.Problem, b.At = problem, f.cfg.Now()
	b.Until = b.At.Add(backoff(b.Failures))
	f.backoffs[group] = b
}
