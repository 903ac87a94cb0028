package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"millrace/master/state"
	"millrace/pkg/api"
)

const (
	mostSteps    = 256 // jobs at once, as EMR has it
	mostTags     = 50
	mostTagKey   = 128 // bytes
	mostTagValue = 256
	leastIdle    = time.Second // before a cluster ends by itself
)

// clusterName is what a cluster may be called: it stands in hdfs:// URLs, and is typed.
var clusterName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

var clusterID = regexp.MustCompile(`^j-[A-Z0-9]{13}$`)

// CreateCluster checks what is asked for, and names all mistakes at once; then one entry of the log makes the cluster, and the
// fleet fills its groups.
func (s *millraceService) CreateCluster(ctx context.Context, req *connect.Request[api.CreateClusterRequest]) (*connect.Response[api.Cluster], error) {
	v, l, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	m, user := req.Msg, callOf(ctx).caller.ID
	if c := createdBefore(v, user, m.RequestId); c != nil {
		return s.createdAgain(l, c, m)
	}
	record, err := s.clusterRecord(ctx, v, l, m, user)
	if err != nil {
		return nil, err
	}
	c, err := applied[state.Cluster](ctx, s.Server, state.CreateCluster{Cluster: *record})
	switch {
	case errors.Is(err, state.ErrExists): // another one was faster
		return nil, nameTaken(m.Name)
	case err != nil:
		return nil, fmt.Errorf("create cluster %s: %w", m.Name, err)
	case c.ID != record.ID:
		return s.createdAgain(l, c, m)
	}
	s.log.Info("cluster created", zap.String("cluster", c.ID), zap.String("name", c.Name), zap.String("user", user))
	l.Fleet.Poke()
	return connect.NewResponse(s.clusterView(s.cfg.View(), l, c)), nil
}

// createdBefore finds the cluster that a user's request id has made; nil if none.
func createdBefore(v *state.View, user, requestID string) *state.Cluster {
	if requestID == "" {
		return nil
	}
	all := v.Clusters()
	if i := slices.IndexFunc(all, func(c *state.Cluster) bool { return c.RequestID == requestID && c.User == user }); i >= 0 {
		return all[i]
	}
	return nil
}

// createdAgain answers a request whose id has made a cluster before.
func (s *Server) createdAgain(l *Leader, c *state.Cluster, m *api.CreateClusterRequest) (*connect.Response[api.Cluster], error) {
	if c.Name != m.Name {
		return nil, usage("use another request id for another cluster", fmt.Sprintf("request id %q has made cluster %s (%s)", m.RequestId, c.Name, c.ID))
	}
	return connect.NewResponse(s.clusterView(s.cfg.View(), l, c)), nil
}

// applied logs a command and gives the record that it answers with.
func applied[R any](ctx context.Context, s *Server, c state.Command) (*R, error) {
	result, err := s.cfg.Log.Apply(ctx, c)
	if err != nil {
		return nil, err
	}
	record, ok := result.(*R)
	if !ok {
		return nil, fmt.Errorf("the log answered %s with %T", c.CommandName(), result)
	}
	return record, nil
}

// clusterRecord is the cluster as it is to be logged.
func (s *Server) clusterRecord(ctx context.Context, v *state.View, l *Leader, m *api.CreateClusterRequest, user string) (*state.Cluster, error) {
	id, err := NewID("j-")
	if err != nil {
		return nil, err
	}
	now := s.cfg.Now().UTC()
	c := &state.Cluster{
		ID: id, Name: m.Name, CreatedAt: now, User: user, RequestID: m.RequestId,
		StepConcurrency: int(m.StepConcurrency), TerminationProtected: m.TerminationProtected, AutoTerminateMs: m.AutoTerminateMs, TerminateAfterSteps: m.TerminateAfterSteps,
	}
	var found findings
	found.name(v, m.Name)
	if c.Groups, err = found.newGroups(m.Groups); err != nil {
		return nil, err
	}
	found.provider(c.Groups, m.Provider, l.Fleet.Providers())
	found.limits(m.StepConcurrency, m.AutoTerminateMs)
	c.Tags = found.tags(nil, m.Tags, nil)
	if c.Bootstrap, err = s.checkActions(ctx, v, m.BootstrapActions, &found); err != nil {
		return nil, err
	}
	if err := found.refusal(); err != nil {
		return nil, err
	}
	c.Events = []state.Event{{At: now, Kind: eventCluster, Subject: c.ID, Message: fmt.Sprintf("created by %s: %s", user, targets(c.Groups))}}
	c.EventsSeen = 1
	return c, nil
}

const createNext = "millrace cluster create --help"

func nameTaken(name string) *problem {
	return usage("choose another --name, or millrace cluster list", fmt.Sprintf("there is a cluster of the name %s already", name))
}

// name finds what is wrong with a new cluster's name.
func (f *findings) name(v *state.View, name string) {
	switch c, taken := v.Cluster(name); {
	case name == "":
		f.wrong(createNext, "a cluster needs a name")
	case !clusterName.MatchString(name):
		f.wrong(createNext, "%q is no name for a cluster: it takes letters, digits, . _ and -, begins with a letter or a digit, and has at most 128", name)
	case clusterID.MatchString(name):
		f.wrong(createNext, "%s is no name for a cluster: it looks like an id", name)
	case taken && !c.Ended():
		p := nameTaken(name)
		f.wrong(p.next, "%s", p.errs[0])
	}
}

// newGroups are the groups of a new cluster: core and task, whether they were named or not.
func (f *findings) newGroups(asked []*api.GroupTarget) (groups []state.Group, err error) {
	for _, role := range []string{state.RoleCore, state.RoleTask} {
		g := state.Group{Role: role}
		if g.ID, err = NewID("ig-"); err != nil {
			return nil, err
		}
		groups = append(groups, g)
	}
	f.change(groups, asked)
	return groups, nil
}

// provider gives groups the provider that was asked for.
func (f *findings) provider(groups []state.Group, name string, known []string) {
	if name != "" && !slices.Contains(known, name) {
		f.wrong("leave --provider out for the usual one", "there is no provider %q: this site has %s", name, orElse(strings.Join(known, ", "), "none"))
	}
	for i := range groups {
		groups[i].Provider = name
	}
}

func (f *findings) limits(steps int32, idleMs int64) {
	if steps < 0 || steps > mostSteps {
		f.wrong("0 is without limit", "a cluster runs 1 to %d jobs at once, not %d", mostSteps, steps)
	}
	if idleMs < 0 || idleMs > 0 && idleMs < leastIdle.Milliseconds() {
		f.wrong("0 is never", "a cluster ends by itself after %s without a job at least, not %s", leastIdle, time.Duration(idleMs)*time.Millisecond)
	}
}

// tags puts tags to those that a cluster has, and takes others away; by key.
func (f *findings) tags(has []state.Tag, put []*api.Tag, remove []string) []state.Tag {
	tags := slices.DeleteFunc(slices.Clone(has), func(t state.Tag) bool { return slices.Contains(remove, t.Key) })
	seen := map[string]bool{}
	for _, t := range put {
		switch {
		case t.Key == "":
			f.wrong("write it KEY=VALUE", "a tag needs a key")
		case len(t.Key) > mostTagKey || len(t.Value) > mostTagValue:
			f.wrong("", "tag %.32s: a key has at most %d bytes, a value %d", t.Key, mostTagKey, mostTagValue)
		case seen[t.Key]:
			f.wrong("", "tag %s is given twice", t.Key)
		}
		seen[t.Key] = true
		tags = slices.DeleteFunc(tags, func(o state.Tag) bool { return o.Key == t.Key })
		tags = append(tags, state.Tag{Key: t.Key, Value: t.Value})
	}
	if len(tags) > mostTags {
		f.wrong("", "a cluster has at most %d tags, not %d", mostTags, len(tags))
	}
	slices.SortFunc(tags, func(a, b state.Tag) int { return cmp.Compare(a.Key, b.Key) })
	return tags
}

// SetCluster changes what is not about groups.
func (s *millraceService) SetCluster(ctx context.Context, req *connect.Request[api.SetClusterRequest]) (*connect.Response[api.Cluster], error) {
	v, l, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	m := req.Msg
	if c, ok := v.Cluster(m.Cluster); ok && c.Ending() && endsBy(c, m) { // the call is made again, for want of an answer
		return connect.NewResponse(s.clusterView(v, l, c)), nil
	}
	c, err := liveCluster(v, m.Cluster)
	if err != nil {
		return nil, err
	}
	var found findings
	found.limits(m.GetStepConcurrency(), m.GetAutoTerminateMs())
	found.tags(c.Tags, m.PutTags, m.RemoveTags)
	actions, err := s.checkActions(ctx, v, m.BootstrapActions, &found)
	if err != nil {
		return nil, err
	}
	if err := found.refusal(); err != nil {
		return nil, err
	}
	set := state.SetCluster{Cluster: c.ID, Bootstrap: actions, TerminationProtected: m.TerminationProtected, AutoTerminateMs: m.AutoTerminateMs, TerminateAfterSteps: m.TerminateAfterSteps, RemoveTags: m.RemoveTags}
	if m.StepConcurrency != nil {
		n := int(*m.StepConcurrency)
		set.StepConcurrency = &n
	}
	for _, t := range m.PutTags {
		set.PutTags = append(set.PutTags, state.Tag{Key: t.Key, Value: t.Value})
	}
	if c, err = applied[state.Cluster](ctx, s.Server, set); err != nil {
		return nil, fmt.Errorf("change cluster %s: %w", m.Cluster, err)
	}
	if changes := settings(m); changes != "" {
		s.log.Info("cluster is changed", zap.String("cluster", c.ID), zap.String("to", changes))
		s.happened(ctx, c.ID, eventCluster, c.ID, "changed by %s: %s", callOf(ctx).caller.ID, changes)
	}
	l.Tracker.ClusterChanged(c.ID)
	l.Fleet.Poke()
	return connect.NewResponse(s.clusterView(s.cfg.View(), l, c)), nil
}

// endsBy says whether a request sets when a cluster ends by itself, and nothing that the cluster does not have already.
func endsBy(c *state.Cluster, m *api.SetClusterRequest) bool {
	if m.AutoTerminateMs == nil && m.TerminateAfterSteps == nil || len(m.PutTags)+len(m.RemoveTags)+len(m.BootstrapActions) > 0 {
		return false
	}
	return has(c.AutoTerminateMs, m.AutoTerminateMs) && has(c.TerminateAfterSteps, m.TerminateAfterSteps) &&
		has(c.TerminationProtected, m.TerminationProtected) && has(int32(c.StepConcurrency), m.StepConcurrency)
}

// has says whether a value is the one that is asked for, if one is.
func has[T comparable](value T, asked *T) bool { return asked == nil || *asked == value }

// settings says for people what a request sets, as it is said on the command line; "" if that is nothing.
func settings(m *api.SetClusterRequest) string {
	var all []string
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	if m.TerminationProtected != nil {
		add("termination-protected=%t", *m.TerminationProtected)
	}
	if m.StepConcurrency != nil {
		add("step-concurrency=%d", *m.StepConcurrency)
	}
	if m.AutoTerminateMs != nil {
		add("auto-terminate=%s", time.Duration(*m.AutoTerminateMs)*time.Millisecond)
	}
	if m.TerminateAfterSteps != nil {
		add("terminate-after-steps=%t", *m.TerminateAfterSteps)
	}
	for _, t := range m.PutTags {
		add("tag %s=%s", t.Key, t.Value)
	}
	for _, key := range m.RemoveTags {
		add("no tag %s", key)
	}
	for i, a := range m.BootstrapActions {
		add("bootstrap action %d: %s", i+1, a.Url)
	}
	return strings.Join(all, ", ")
}

// TerminateCluster has a cluster end. Repeating it is no error.
func (s *millraceService) TerminateCluster(ctx context.Context, req *connect.Request[api.TerminateClusterRequest]) (*connect.Response[api.Cluster], error) {
	v, l, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	c, err := anyCluster(v, req.Msg.Cluster)
	if err != nil {
		return nil, err
	}
	if c.TerminationProtected && !c.Ending() {
		return nil, failure("millrace cluster set "+c.Name+" --termination-protected=false, then terminate it", "cluster %s is protected from termination", c.Name)
	}
	if !c.Ending() {
		reason := "terminated by " + callOf(ctx).caller.ID
		if c, err = applied[state.Cluster](ctx, s.Server, state.TerminateCluster{Cluster: c.ID, ReasonCode: state.ReasonUserRequest, Reason: reason}); err != nil {
			return nil, fmt.Errorf("terminate cluster %s: %w", req.Msg.Cluster, err)
		}
		s.log.Info("cluster is terminated", zap.String("cluster", c.ID), zap.String("reason", reason))
		s.happened(ctx, c.ID, eventCluster, c.ID, "%s", reason)
		l.Tracker.ClusterChanged(c.ID)
		l.Fleet.Poke()
	}
	return connect.NewResponse(s.clusterView(s.cfg.View(), l, c)), nil
}

// liveCluster finds a cluster that is not ending.
func liveCluster(v *state.View, ref string) (*state.Cluster, error) {
	c, err := cluster(v, ref)
	if err != nil {
		return nil, err
	}
	if c.Ending() {
		return nil, failure("millrace cluster list", "cluster %s is %s: nothing of it can be changed", c.Name, c.State)
	}
	return c, nil
}
