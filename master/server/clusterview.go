package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"

	"millrace/master/state"
	"millrace/master/tracker"
	"millrace/pkg/api"
)

// States of a cluster that follow from its nodes and jobs, beside those of the log.
const (
	clusterStarting      = "STARTING"
	clusterBootstrapping = "BOOTSTRAPPING"
	clusterRunning       = "RUNNING"
	clusterWaiting       = "WAITING"
)

func (s *millraceService) GetCluster(ctx context.Context, req *connect.Request[api.GetClusterRequest]) (*connect.Response[api.Cluster], error) {
	v, l, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	c, err := anyCluster(v, req.Msg.Cluster)
	if err != nil {
		return nil, err
	}
	s.awaitNodes(ctx, v, l, c.ID)
	return connect.NewResponse(s.clusterView(v, l, c)), nil
}

// anyCluster finds a cluster, also one that has ended, by its name too: the one that was created last, if no other has the name now.
func anyCluster(v *state.View, ref string) (*state.Cluster, error) {
	c, err := cluster(v, ref)
	if err == nil || ref == "" {
		return c, err
	}
	for _, o := range v.Clusters() {
		if o.Name == ref && (c == nil || o.CreatedAt.After(c.CreatedAt)) {
			c, err = o, nil
		}
	}
	return c, err
}

// ListClusters lists the site's clusters, also those that have ended as far as they are kept, in the order in which they were created.
func (s *millraceService) ListClusters(ctx context.Context, _ *connect.Request[api.ListClustersRequest]) (*connect.Response[api.ListClustersResponse], error) {
	v, l, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	s.awaitNodes(ctx, v, l, "")
	all := slices.Clone(v.Clusters())
	slices.SortStableFunc(all, func(a, b *state.Cluster) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	resp := &api.ListClustersResponse{}
	for _, c := range all {
		resp.Clusters = append(resp.Clusters, s.clusterView(v, l, c))
	}
	return connect.NewResponse(resp), nil
}

// clusterRecordView is what the log alone says of a cluster.
func clusterRecordView(c *state.Cluster) *api.Cluster {
	v := &api.Cluster{
		Id: c.ID, Name: c.Name, State: c.State, CreatedAt: stamp(c.CreatedAt), ReadyAt: stamp(c.ReadyAt), EndedAt: stamp(c.EndedAt),
		Reason: c.Reason, ReasonCode: c.ReasonCode, BootstrapActions: actionsView(c.Bootstrap), StepConcurrency: int32(c.StepConcurrency),
		TerminationProtected: c.TerminationProtected, AutoTerminateMs: c.AutoTerminateMs, TerminateAfterSteps: c.TerminateAfterSteps,
	}
	for _, t := range c.Tags {
		v.Tags = append(v.Tags, &api.Tag{Key: t.Key, Value: t.Value})
	}
	for _, g := range c.Groups {
		group := &api.InstanceGroup{Id: g.ID, Role: g.Role, Target: int64(g.Target), Provider: g.Provider, Suspended: g.Suspended != "", Reason: g.Suspended}
		if g.Scales {
			least, most := int64(g.Min), int64(g.Max)
			group.Min, group.Max = &least, &most
		}
		v.Groups = append(v.Groups, group)
	}
	return v
}

func (s *Server) clusterView(v *state.View, l *Leader, c *state.Cluster) *api.Cluster {
	out := clusterRecordView(c)
	out.Protocol = int32(v.Protocol())
	if c.Ended() {
		return out
	}
	out.QueuedTasks = int64(l.Tracker.Queued(c.ID))
	leaving, arriving := map[string]bool{}, map[string]bool{}
	for _, n := range v.Nodes(c.ID) {
		leaving[n.ID], arriving[n.ID] = n.Leaving, l.Fleet != nil && l.Fleet.Arriving(n)
	}
	cores, preparing := 0, false
	for _, n := range s.nodes(v, l, c.ID) {
		if n.Role == state.RoleMaster {
			out.Masters = append(out.Masters, n)
			if !isUp(n) && n.Member != MemberNone { // else it was taken out
				out.Problems = append(out.Problems, lostProblem(n))
			}
			continue
		}
		if n.State == nodeLost && arriving[n.Id] {
			continue // nothing is wrong with it
		}
		countNode(out, n, leaving[n.Id])
		for _, failed := range failedDisks(n) {
			out.Problems = append(out.Problems, fmt.Sprintf("%s node %s (%s): %s; its blocks are copied from the nodes that have them, too; mend it, or name others with --data-dir, and start the node's worker again", n.Role, n.Id, n.Name, failed))
		}
		if n.Role == state.RoleCore {
			preparing = preparing || n.State == nodeBootstrapping
			if n.State == nodeRunning {
				cores++
			}
		}
	}
	s.groupProblems(l, c, out)
	out.Problems = append(out.Problems, launchProblems(c, v.Launches(c.ID))...)
	if l.Files != nil {
		out.Problems = append(out.Problems, l.Files.Problems(c.ID)...)
	}
	out.Problems = append(out.Problems, awayProblem(v, l.Tracker.StoreAway(c.ID))...)
	out.Problems = append(out.Problems, s.mastersProblems(out.Masters, v.Protocol())...)
	if c.Ending() {
		return out
	}
	switch {
	case cores == 0 && preparing:
		out.State = clusterBootstrapping
	case cores == 0 && c.ReadyAt.IsZero():
		out.State = clusterStarting
	case hasOpenJob(v, c.ID):
		out.State = clusterRunning
	default:
		out.State = clusterWaiting
	}
	if cores == 0 {
		out.Problems = append(out.Problems, "no core node is up: jobs wait")
	}
	return out
}

// countNode counts a worker for its group and for the cluster's slots, and says what is wrong with it.
func countNode(c *api.Cluster, n *api.Node, leaving bool) {
	group := &api.InstanceGroup{} // of a group that is gone
	if i := slices.IndexFunc(c.Groups, func(g *api.InstanceGroup) bool { return g.Id == n.Group }); i >= 0 {
		group = c.Groups[i]
	}
	switch {
	case n.State == nodeLost:
		c.Problems = append(c.Problems, lostProblem(n))
		return
	case n.State == nodeFailed:
		c.Problems = append(c.Problems, fmt.Sprintf("%s node %s (%s) is good for nothing: %s", n.Role, n.Id, n.Name, firstLine(n.Reason)))
		return
	case n.State == nodeBootstrapping:
		group.Bootstrapping++
		return
	case leaving:
		group.Draining++
	default:
		group.Running++
	}
	if n.State == nodeDraining {
		return // its slots are for nothing new, and that is as it should be
	}
	if n.Reason != "" {
		c.Problems = append(c.Problems, fmt.Sprintf("%s node %s (%s) takes no tasks now: %s", n.Role, n.Id, n.Name, n.Reason))
	}
	c.SlotsTotal += n.Slots
	c.SlotsRunning += n.Running
}

func lostProblem(n *api.Node) string {
	return fmt.Sprintf("%s node %s (%s) is lost: %s", n.Role, n.Id, n.Name, n.Reason)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// groupProblems says how the fleet gets on with the groups.
func (s *Server) groupProblems(l *Leader, c *state.Cluster, out *api.Cluster) {
	if l.Fleet == nil {
		return
	}
	for _, g := range out.Groups {
		st := l.Fleet.Status(g.Id)
		g.Launching, g.Missing = int64(st.Launching), int64(st.Missing)
		if g.Reason == "" {
			g.Reason = st.Reason
		}
		switch {
		case g.Suspended:
			out.Problems = append(out.Problems, fmt.Sprintf("the %s group grows no more: %s; once that is mended: millrace cluster resize %s --retry, or with others: millrace cluster set %[3]s --bootstrap-action SCRIPT", g.Role, firstLine(g.Reason), c.Name))
		case g.Missing > 0:
			out.Problems = append(out.Problems, fmt.Sprintf("the %s group lacks %s: %s; it is tried again and again", g.Role, countOf(int(g.Missing), "node"), orElse(firstLine(g.Reason), "there are no more now")))
		}
	}
}

// launchProblems says where a provider fails: once for each group, for those that are to come and for those that are to go.
func launchProblems(c *state.Cluster, launches []*state.Launch) (list []string) {
	for _, g := range c.Groups {
		for _, goes := range []bool{false, true} {
			var of []*state.Launch
			for _, l := range launches {
				if l.Group == g.ID && l.Tries > 0 && l.Problem != "" && goes == (l.State == state.LaunchTerminating) {
					of = append(of, l)
				}
			}
			if len(of) == 0 {
				continue
			}
			what := "asked for, not there yet"
			if goes {
				what = "to go, perhaps still there"
			}
			worst := slices.MaxFunc(of, func(a, b *state.Launch) int { return cmp.Compare(a.Tries, b.Tries) })
			list = append(list, fmt.Sprintf("the %s group: %s %s: %s; tried %s, it is tried again and again",
				g.Role, countOf(len(of), "machine"), what, firstLine(worst.Problem), countOf(worst.Tries, "time")))
		}
	}
	return list
}

// awayProblem says that jobs wait for their store: one line, whatever their number.
func awayProblem(v *state.View, a tracker.Away) []string {
	if a.Jobs == 0 {
		return nil
	}
	who, others := "job "+a.Job, ""
	if j, ok := v.Job(a.Job); ok {
		who += " (" + j.Name + ")"
	}
	if a.Jobs > 1 {
		others = ", and so " + doOthers(a.Jobs-1)
	}
	return []string{fmt.Sprintf("%s waits for its store since %s%s, as it does not answer: %s; jobs go on by themselves when it does", who, clock(a.Since), others, a.Trouble)}
}

func doOthers(n int) string {
	if n == 1 {
		return "does 1 other job"
	}
	return fmt.Sprintf("do %d other jobs", n)
}

func hasOpenJob(v *state.View, cluster string) bool {
	return slices.ContainsFunc(v.OpenJobs(), func(j *state.Job) bool { return j.Cluster == cluster })
}

// mastersProblems says what is wrong with the set of masters as a whole.
func (s *Server) mastersProblems(masters []*api.Node, uses int) (list []string) {
	voters, up := 0, 0
	for _, m := range masters {
		heard := s.cfg.Cluster.LastHeard(m.Id)
		if m.State == nodeRunning && heard.Problem != "" {
			list = append(list, fmt.Sprintf("MASTER node %s (%s): %s", m.Id, m.Name, heard.Problem))
		}
		if m.Member != MemberNone && s.binary.Speaks > uses && m.Protocol != 0 && int(m.Protocol) <= uses {
			list = append(list, fmt.Sprintf("MASTER node %s (%s) is of an older version (%s): the site goes on as that one does (protocol %d) until it is upgraded", m.Id, m.Name, m.Version, uses))
		}
		if m.Member == MemberVoter {
			voters++
			if m.State == nodeRunning && !heard.CannotLog {
				up++
			}
		}
	}
	need := voters/2 + 1
	if up < voters && up == need {
		list = append(list, fmt.Sprintf("%d of %d masters that vote are up: with one less nothing goes on", up, voters))
	}
	if voters%2 == 0 && voters > 0 {
		list = append(list, fmt.Sprintf("%d masters vote, which survive no more losses than %d would: let one more join (millrace join-token create --role master), or remove one", voters, voters-1))
	}
	return list
}
