package state

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/go-memdb"
)

const (
	maxEvents        = 300 // of a cluster
	maxEndedClusters = 100 // of the site
)

func (t *txn) createCluster(c CreateCluster) (*Cluster, error) {
	in := c.Cluster
	if in.RequestID != "" {
		if known, ok := first[Cluster](t.Txn, tableCluster, byRequest, "", in.User, in.RequestID); ok {
			return known, nil
		}
	}
	if _, ok := first[Site](t.Txn, tableSite, byID, "site"); !ok {
		return nil, fmt.Errorf("site: %w", ErrNotFound)
	}
	if in.ID == "" || in.Name == "" || in.StepConcurrency < 0 || in.AutoTerminateMs < 0 {
		return nil, fmt.Errorf("%w: a cluster needs an id, a name, and limits of zero or more", ErrInvalid)
	}
	if _, ok := first[Cluster](t.Txn, tableCluster, byID, in.ID); ok {
		return nil, fmt.Errorf("cluster %s: %w", in.ID, ErrExists)
	}
	if other, ok := clusterNamed(t.Txn, in.Name); ok {
		return nil, fmt.Errorf("cluster %q: %w: it is %s", in.Name, ErrExists, other.ID)
	}
	made := &Cluster{ // what is not the creator's to say starts empty
		ID: in.ID, Name: in.Name, CreatedAt: in.CreatedAt, RequestID: in.RequestID, User: in.User, Bootstrap: in.Bootstrap,
		StepConcurrency: in.StepConcurrency, TerminationProtected: in.TerminationProtected,
		AutoTerminateMs: in.AutoTerminateMs, TerminateAfterSteps: in.TerminateAfterSteps,
	}
	for _, g := range in.Groups {
		if err := made.addGroup(g); err != nil {
			return nil, err
		}
	}
	made.putTags(in.Tags)
	made.addEvents(in.Events)
	return made, t.Insert(tableCluster, made)
}

// clusterNamed finds the cluster that has a name: of those that have not ended one alone does. An id names nobody else.
func clusterNamed(t *memdb.Txn, name string) (*Cluster, bool) {
	if c, ok := first[Cluster](t, tableCluster, byID, name); ok {
		return c, true
	}
	return first[Cluster](t, tableCluster, byName, name)
}

// cluster returns a copy of a cluster's record, to change and put. Its lists are the old one's: they are replaced, never changed.
func (t *txn) cluster(id string) (*Cluster, error) {
	old, ok := first[Cluster](t.Txn, tableCluster, byID, id)
	if !ok {
		return nil, fmt.Errorf("cluster %q: %w", id, ErrNotFound)
	}
	c := *old
	return &c, nil
}

// liveCluster is cluster, of one that is not about to end.
func (t *txn) liveCluster(id string) (*Cluster, error) {
	c, err := t.cluster(id)
	if err == nil && c.Ending() {
		return nil, ending(c)
	}
	return c, err
}

// ending is ErrTooLate with what the cluster does instead.
func ending(c *Cluster) error {
	what := "is being terminated"
	if c.Ended() {
		what = "has ended"
	}
	return fmt.Errorf("cluster %s (%s) %s: %w", c.Name, c.ID, what, ErrTooLate)
}

// addGroup adds a group of a role that the cluster has none of.
func (c *Cluster) addGroup(g Group) error {
	if g.ID == "" || g.Role != RoleCore && g.Role != RoleTask {
		return fmt.Errorf("%w: an instance group needs an id and the role %s or %s", ErrInvalid, RoleCore, RoleTask)
	}
	if err := g.bound(); err != nil {
		return err
	}
	if slices.ContainsFunc(c.Groups, func(o Group) bool { return o.ID == g.ID || o.Role == g.Role }) {
		return fmt.Errorf("instance group %s of role %s: %w", g.ID, g.Role, ErrExists)
	}
	g.Suspended, g.Failed = "", 0
	c.Groups = append(slices.Clone(c.Groups), g)
	return nil
}

// bound refuses numbers that no group can have, and puts the target of one that scales within its bounds.
func (g *Group) bound() error {
	if g.Target < 0 || g.Min < 0 || g.GraceMs < 0 || g.Max < g.Min {
		return fmt.Errorf("%w: instance group %s: target %d within %d to %d, grace of %d ms", ErrInvalid, g.ID, g.Target, g.Min, g.Max, g.GraceMs)
	}
	if g.Scales {
		g.Target = g.within(g.Target)
	}
	return nil
}

func (g *Group) within(target int) int { return min(max(target, g.Min), g.Max) }

// group gives a cluster's group, by its id, in a list that may be changed.
func (c *Cluster) group(id string) (*Group, error) {
	i := slices.IndexFunc(c.Groups, func(g Group) bool { return g.ID == id })
	if i < 0 {
		return nil, fmt.Errorf("instance group %q of cluster %s: %w", id, c.ID, ErrNotFound)
	}
	c.Groups = slices.Clone(c.Groups)
	return &c.Groups[i], nil
}

func (c *Cluster) putTags(tags []Tag) {
	c.Tags = slices.Clone(c.Tags)
	for _, tag := range tags {
		i, known := slices.BinarySearchFunc(c.Tags, tag.Key, func(t Tag, key string) int { return cmp.Compare(t.Key, key) })
		if known {
			c.Tags[i] = tag
		} else {
			c.Tags = slices.Insert(c.Tags, i, tag)
		}
	}
}

func (c *Cluster) addEvents(events []Event) {
	if len(events) == 0 {
		return
	}
	all := slices.Concat(c.Events, events)
	for i := len(c.Events); i < len(all); i++ {
		all[i].Subject, all[i].Message = clip(all[i].Subject, maxMessage), clip(all[i].Message, maxMessage)
	}
	c.EventsSeen += uint64(len(events))
	c.Events = slices.Clone(all[max(0, len(all)-maxEvents):])
}

func (t *txn) resizeCluster(r ResizeCluster) (*Cluster, error) {
	c, err := t.liveCluster(r.Cluster)
	if err != nil {
		return nil, err
	}
	for _, want := range r.Groups {
		g, err := c.group(want.ID)
		if err != nil {
			if err := c.addGroup(want); err != nil {
				return nil, err
			}
			continue
		}
		if err := want.bound(); err != nil {
			return nil, err
		}
		g.Target, g.Scales, g.Min, g.Max, g.GraceMs = want.Target, want.Scales, want.Min, want.Max, want.GraceMs
		g.Suspended, g.Failed = "", 0
	}
	return c, t.Insert(tableCluster, c)
}

func (t *txn) setTarget(s SetTarget) (*Cluster, error) {
	c, err := t.liveCluster(s.Cluster)
	if err != nil {
		return nil, err
	}
	g, err := c.group(s.Group)
	if err != nil {
		return nil, err
	}
	if to := g.within(s.To); g.Scales && g.Target == s.From && to != s.From {
		g.Target = to
		if s.Event != nil {
			c.addEvents([]Event{*s.Event})
		}
	}
	return c, t.Insert(tableCluster, c)
}

func (t *txn) setCluster(s SetCluster) (*Cluster, error) {
	c, err := t.liveCluster(s.Cluster)
	if err != nil {
		return nil, err
	}
	set(&c.TerminationProtected, s.TerminationProtected)
	set(&c.StepConcurrency, s.StepConcurrency)
	set(&c.AutoTerminateMs, s.AutoTerminateMs)
	set(&c.TerminateAfterSteps, s.TerminateAfterSteps)
	if c.StepConcurrency < 0 || c.AutoTerminateMs < 0 {
		return nil, fmt.Errorf("%w: a cluster's limits are zero or more", ErrInvalid)
	}
	if c.ReadyAt.IsZero() {
		c.ReadyAt = s.Ready
	}
	c.putTags(s.PutTags)
	c.Tags = slices.DeleteFunc(c.Tags, func(tag Tag) bool { return slices.Contains(s.RemoveTags, tag.Key) })
	if len(s.Bootstrap) > 0 {
		if err := t.replaceBootstrap(c, s.Bootstrap); err != nil {
			return nil, err
		}
	}
	return c, t.Insert(tableCluster, c)
}

// bootstrapReplaced is why a node is of no use that has still to end actions that its cluster has no more.
const bootstrapReplaced = "its bootstrap actions were replaced by others before they had ended"

// replaceBootstrap gives a cluster other bootstrap actions. Nodes are told theirs once: one that has still to end the former ones fails, so that
// another comes in its place; one that had none to run stays as it is.
// The same list again, as of a request that is repeated, replaces nothing.
func (t *txn) replaceBootstrap(c *Cluster, actions []BootstrapAction) error {
	for i := range c.Groups {
		c.Groups[i].Suspended, c.Groups[i].Failed = "", 0
	}
	if slices.EqualFunc(c.Bootstrap, actions, BootstrapAction.equal) {
		return nil
	}
	for _, old := range slices.Collect(each[Node](t.Txn, tableNode, byID)) {
		if old.Cluster != c.ID || old.Role == RoleMaster || old.State != NodeAdmitted || old.Bootstrap != "" {
			continue
		}
		n := *old
		n.Bootstrap = BootstrapDone
		if len(c.Bootstrap) > 0 {
			n.Bootstrap, n.Failure = BootstrapFailed, bootstrapReplaced
		}
		if err := t.Insert(tableNode, &n); err != nil {
			return err
		}
	}
	c.Bootstrap = actions
	return nil
}

func (a BootstrapAction) equal(b BootstrapAction) bool {
	return a.Name == b.Name && a.URL == b.URL && slices.Equal(a.Args, b.Args) && a.SHA256 == b.SHA256 && a.TimeoutMs == b.TimeoutMs
}

// set sets what is given.
func set[T any](to, given *T) {
	if given != nil {
		*to = *given
	}
}

func (t *txn) terminateCluster(e TerminateCluster) (*Cluster, error) {
	c, err := t.cluster(e.Cluster)
	switch {
	case err != nil:
		return nil, err
	case c.Ending():
		return c, nil // the first reason stays
	case e.ReasonCode == "":
		return nil, fmt.Errorf("%w: a cluster needs a reason to end", ErrInvalid)
	case c.TerminationProtected:
		return nil, fmt.Errorf("cluster %s (%s): %w", c.Name, c.ID, ErrProtected)
	}
	c.State, c.ReasonCode, c.Reason = ClusterTerminating, e.ReasonCode, clip(e.Reason, maxMessage)
	return c, t.Insert(tableCluster, c)
}

// endCluster leaves the name space to who owns the transaction.
func (t *txn) endCluster(e EndCluster) (*Cluster, error) {
	c, err := t.cluster(e.Cluster)
	switch {
	case err != nil:
		return nil, err
	case c.Ended():
		return c, nil
	case e.State != ClusterTerminated && e.State != ClusterTerminatedWithErrors:
		return nil, fmt.Errorf("%w: a cluster does not end %q", ErrInvalid, e.State)
	}
	if left := t.leftOf(c); left != "" {
		return nil, fmt.Errorf("cluster %s (%s) %s: %w", c.Name, c.ID, left, ErrNotReady)
	}
	c.State, c.EndedAt = e.State, e.At
	if err := t.Insert(tableCluster, c); err != nil {
		return nil, err
	}
	for token := range each[Token](t.Txn, tableToken, byID) {
		if token.Cluster != c.ID {
			continue
		}
		if err := t.Delete(tableToken, token); err != nil {
			return nil, err
		}
	}
	return c, t.forgetClusters()
}

// leftOf says what keeps a cluster from ending; "" if nothing does.
func (t *txn) leftOf(c *Cluster) string {
	if !c.Ending() {
		return "is not being terminated"
	}
	for j := range each[Job](t.Txn, tableJob, byOpen) {
		if j.Cluster == c.ID {
			return "has job " + j.ID
		}
	}
	for n := range each[Node](t.Txn, tableNode, byCluster, c.ID) {
		if n.State == NodeAdmitted {
			return "has node " + n.ID
		}
	}
	for l := range each[Launch](t.Txn, tableLaunch, byCluster, c.ID) {
		return "has launch " + l.ID
	}
	return ""
}

// forgetClusters forgets the clusters that ended first, beyond those that stay. That their nodes were removed stays known.
func (t *txn) forgetClusters() error {
	var over []*Cluster
	for c := range each[Cluster](t.Txn, tableCluster, byID) {
		if c.Ended() {
			over = append(over, c)
		}
	}
	slices.SortFunc(over, func(a, b *Cluster) int { return cmp.Or(a.EndedAt.Compare(b.EndedAt), strings.Compare(a.ID, b.ID)) })
	for _, c := range over[:max(0, len(over)-maxEndedClusters)] {
		if err := t.Delete(tableCluster, c); err != nil {
			return err
		}
	}
	return nil
}

func (t *txn) suspendGroup(s SuspendGroup) (*Cluster, error) {
	c, err := t.liveCluster(s.Cluster)
	if err != nil {
		return nil, err
	}
	g, err := c.group(s.Group)
	if err != nil {
		return nil, err
	}
	if s.Reason == "" {
		return nil, fmt.Errorf("%w: instance group %s needs a reason to grow no more", ErrInvalid, g.ID)
	}
	g.Suspended = clip(s.Reason, maxMessage)
	return c, t.Insert(tableCluster, c)
}

func (t *txn) addEventsTo(a AddEvents) (*Cluster, error) {
	c, err := t.cluster(a.Cluster)
	if err != nil {
		return nil, err
	}
	c.addEvents(a.Events)
	return c, t.Insert(tableCluster, c)
}

// LiveClusters returns the clusters that have not ended, in order of their ids.
func (v *View) LiveClusters() []*Cluster {
	return slices.DeleteFunc(v.Clusters(), (*Cluster).Ended)
}

// ClusterOfRequest finds the cluster that a user's request id has made.
func (v *View) ClusterOfRequest(user, requestID string) (*Cluster, bool) {
	return first[Cluster](v.txn, tableCluster, byRequest, "", user, requestID)
}

// Cluster finds a cluster by its id or name; "" is the default cluster. Of those that have had a name it is the one that has not
// ended, or the one that was made last.
func (v *View) Cluster(idOrName string) (*Cluster, bool) {
	if idOrName == "" {
		idOrName = DefaultCluster
	}
	if c, ok := clusterNamed(v.txn, idOrName); ok {
		return c, true
	}
	var last *Cluster
	for c := range each[Cluster](v.txn, tableCluster, byID) {
		if c.Name == idOrName && (last == nil || !c.CreatedAt.Before(last.CreatedAt)) {
			last = c
		}
	}
	return last, last != nil
}
