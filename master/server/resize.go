package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"millrace/master/files"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/bytesize"
)

// mostNodes bounds a group: more is a slip of the finger.
const mostNodes = 10_000

const resizeNext = "millrace cluster resize --help"

// ResizeCluster changes groups of a cluster, or says what that would take. It answers as soon as that is logged: the fleet makes it so.
func (s *millraceService) ResizeCluster(ctx context.Context, req *connect.Request[api.ResizeClusterRequest]) (*connect.Response[api.ResizeClusterResponse], error) {
	s.moves.Lock() // a node that drains counts for the plan
	defer s.moves.Unlock()
	v, l, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	m := req.Msg
	c, err := liveCluster(v, m.Cluster)
	if err != nil {
		return nil, err
	}
	groups, err := resized(c, m)
	if err != nil {
		return nil, err
	}
	s.awaitNodes(ctx, v, l, c.ID)
	plans := l.Fleet.Plan(c.ID, groups)
	for _, p := range plans {
		if err := mayShrink(v, l, c, p); err != nil {
			return nil, err
		}
	}
	if !m.DryRun {
		was := targets(c.Groups)
		if c, err = applied[state.Cluster](ctx, s.Server, state.ResizeCluster{Cluster: c.ID, Groups: groups}); err != nil {
			return nil, fmt.Errorf("resize cluster %s: %w", m.Cluster, err)
		}
		s.log.Info("cluster is resized", zap.String("cluster", c.ID), zap.String("from", was), zap.String("to", targets(c.Groups)))
		s.happened(ctx, c.ID, eventCluster, c.ID, "resized by %s from %s to %s", callOf(ctx).caller.ID, was, targets(c.Groups))
		l.Fleet.Poke()
	}
	return connect.NewResponse(&api.ResizeClusterResponse{Cluster: s.clusterView(s.cfg.View(), l, c), Groups: plans}), nil
}

// resized are the groups of a cluster that a request changes, as they are then.
func resized(c *state.Cluster, m *api.ResizeClusterRequest) ([]state.Group, error) {
	if len(m.Groups) == 0 {
		return nil, usage(resizeNext, "nothing was said of what to change")
	}
	if m.GetGraceMs() < 0 {
		return nil, usage(resizeNext, "a grace cannot be negative")
	}
	groups := slices.Clone(c.Groups)
	for _, role := range []string{state.RoleCore, state.RoleTask} {
		if slices.ContainsFunc(groups, func(g state.Group) bool { return g.Role == role }) {
			continue
		}
		id, err := NewID("ig-")
		if err != nil {
			return nil, err
		}
		g := state.Group{ID: id, Role: role}
		if len(groups) > 0 {
			g.Provider = groups[0].Provider
		}
		groups = append(groups, g)
	}
	var found findings
	changed := found.change(groups, m.Groups)
	if err := found.refusal(); err != nil {
		return nil, err
	}
	groups = slices.DeleteFunc(groups, func(g state.Group) bool { return !changed[g.Role] })
	for i := range groups {
		groups[i].Suspended, groups[i].GraceMs = "", 0
		if m.GraceMs != nil {
			groups[i].GraceMs = max(1, *m.GraceMs) // 0 is the usual one
		}
	}
	return groups, nil
}

// change gives groups the targets and bounds that are asked for, says which were changed, and finds what is wrong with that.
func (f *findings) change(groups []state.Group, asked []*api.GroupTarget) (changed map[string]bool) {
	changed = map[string]bool{}
	for _, t := range asked {
		role := strings.ToUpper(t.Role)
		i := slices.IndexFunc(groups, func(g state.Group) bool { return g.Role == role })
		switch {
		case i < 0:
			f.wrong("", "a cluster has the groups core and task, not %q", t.Role)
		case changed[role]:
			f.wrong("", "the group %s is given twice", strings.ToLower(role))
		default:
			changed[role] = true
			f.bounds(&groups[i], t)
			f.target(&groups[i], t)
		}
	}
	return changed
}

// bounds are those within which a group scales by itself.
func (f *findings) bounds(g *state.Group, t *api.GroupTarget) {
	if t.Min == nil && t.Max == nil {
		return
	}
	least, most := int64(g.Min), int64(g.Max)
	if t.Min != nil {
		least = *t.Min
	}
	if t.Max != nil {
		most = *t.Max
	}
	const next = "--task-min 0 --task-max 20; both 0 is: no more"
	switch {
	case g.Role != state.RoleTask:
		f.wrong("millrace cluster resize --core N", "only the task group scales by itself: core nodes keep data")
	case least < 0 || most < 0:
		f.wrong(next, "a group's bounds cannot be negative: %d to %d", least, most)
	case t.Max == nil && most == 0:
		f.wrong(next, "a group that has at least %s needs an upper bound, too", countOf(int(least), "node"))
	case least > most:
		f.wrong(next, "a group cannot have at least %d and at most %s", least, countOf(int(most), "node"))
	case most > mostNodes:
		f.wrong(next, "a group has at most %d nodes, not %d", mostNodes, most)
	default:
		g.Scales, g.Min, g.Max = most > 0, int(least), int(most)
	}
}

// target is how many nodes a group is to have.
func (f *findings) target(g *state.Group, t *api.GroupTarget) {
	role := strings.ToLower(g.Role)
	switch n := t.GetTarget(); {
	case t.Target == nil:
		if g.Scales {
			g.Target = min(max(g.Target, g.Min), g.Max)
		}
	case n < 0:
		f.wrong("", "%d %s nodes: a number of nodes cannot be negative", n, role)
	case n > mostNodes:
		f.wrong("", "%d %s nodes: a group has at most %d", n, role, mostNodes)
	case g.Scales && (n < int64(g.Min) || n > int64(g.Max)):
		f.wrong(fmt.Sprintf("change the bounds, too, with --task-min and --task-max: --task-min %d --task-max %d; both 0 is: it scales by itself no more", min(n, int64(g.Min)), max(n, int64(g.Max))),
			"%d %s nodes are not within the bounds of the group, which scales by itself between %d and %d", n, role, g.Min, g.Max)
	default:
		g.Target = int(n)
	}
}

// targets says for people what groups are to have.
func targets(groups []state.Group) string {
	var all []string
	for _, g := range groups {
		text := fmt.Sprintf("%d %s", g.Target, strings.ToLower(g.Role))
		if g.Scales {
			text += fmt.Sprintf(" (%d to %d)", g.Min, g.Max)
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

// mayShrink adds to a plan what there is on the nodes that leave, or says why they cannot.
func mayShrink(v *state.View, l *Leader, c *state.Cluster, p *api.GroupPlan) error {
	var up []string
	for _, id := range p.Drain {
		if _, ok := sessionOf(l, id); ok {
			up = append(up, id)
			p.Attempts += int64(l.Tracker.RunningOn(id))
		}
	}
	if p.Role != state.RoleCore || len(p.Drain) == 0 {
		return nil
	}
	if p.To == 0 {
		return mayEmpty(v, c)
	}
	if len(up) == 0 {
		return nil
	}
	d, err := l.Files.CanDrain(up...)
	if errors.Is(err, files.ErrCannotDrain) {
		return failure("keep more core nodes, or want fewer replicas first: millrace fs setrep", "resize cluster %s to %s: %s", c.Name, countOf(int(p.To), "core node"), err)
	}
	if err != nil {
		return filesError(err)
	}
	p.Blocks, p.Bytes, p.EstimateMs = d.Blocks, d.Bytes, d.EstimateMs
	return nil
}

// oneMore is the command by which a cluster gets a node more. The nodes of a cluster that somebody made come from its provider; those of
// the site's first one join by tokens.
func oneMore(c *state.Cluster, role string) string {
	as := strings.ToLower(role)
	switch {
	case c == nil:
		return "millrace join-token create --role " + as
	case c.User == "":
		return fmt.Sprintf("millrace join-token create --role %s --cluster %s", as, c.Name)
	}
	n := 1
	for _, g := range c.Groups {
		if g.Role == role {
			n += g.Target
		}
	}
	return fmt.Sprintf("millrace cluster resize %s --%s %d", c.Name, as, n)
}

// mayEmpty says why a cluster cannot be without core nodes.
func mayEmpty(v *state.View, c *state.Cluster) error {
	if has := v.Files(c.ID).Totals(); has.Blocks > 0 {
		return failure(fmt.Sprintf("copy them (millrace fs cp -r --distributed hdfs://%[1]s/ s3://BUCKET/PREFIX/) and remove them (millrace fs rm -r --skip-trash), keep a core node, or end it: millrace cluster terminate %[1]s", c.Name),
			"resize cluster %s to no core node: %s (%s) in its block store, the trash included, would be lost", c.Name, countOf(int(has.Files), "file"), bytesize.Format(has.Bytes))
	}
	for _, j := range v.OpenJobs() {
		if j.Cluster == c.ID {
			return failure("millrace job wait "+j.ID+", or millrace job cancel "+j.ID, "resize cluster %s to no core node: job %s runs, and only core nodes keep what maps write", c.Name, j.ID)
		}
	}
	return nil
}
