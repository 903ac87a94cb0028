package server

import (
	"context"
	"fmt"
	"os"

	"connectrpc.com/connect"

	"millrace/master/session"
	"millrace/master/state"
	"millrace/pkg/api"
)

const (
	nodeRunning = "RUNNING"
	nodeLost    = "LOST"

	clusterStarting = "STARTING"
	clusterRunning  = "RUNNING"
	clusterWaiting  = "WAITING"
)

func (s *millraceService) ListNodes(ctx context.Context, req *connect.Request[api.ListNodesRequest]) (*connect.Response[api.ListNodesResponse], error) {
	v, l, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	id := ""
	if req.Msg.Cluster != "" {
		c, err := cluster(v, req.Msg.Cluster)
		if err != nil {
			return nil, err
		}
		id = c.ID
	}
	return connect.NewResponse(&api.ListNodesResponse{Nodes: s.nodes(v, l, id)}), nil
}

// nodes lists the masters, then a cluster's admitted workers ("" = all).
func (s *Server) nodes(v *state.View, l *Leader, clusterID string) []*api.Node {
	open := map[string]session.Node{}
	for _, n := range l.Sessions.Nodes() {
		open[n.ID] = n
	}
	var masters, workers []*api.Node
	for _, n := range v.Nodes("") {
		switch {
		case n.State == state.NodeTerminated:
		case n.Role == state.RoleMaster:
			masters = append(masters, s.masterView(n))
		case clusterID == "" || n.Cluster == clusterID:
			sess, up := open[n.ID]
			workers = append(workers, workerView(n, sess, up, l))
		}
	}
	return append(masters, workers...)
}

func nodeView(n *state.Node) *api.Node {
	return &api.Node{
		Id: n.ID, Name: n.Name, Cluster: n.Cluster, Group: n.Group, Role: n.Role,
		Address: n.Address, Version: n.Version, JoinedAt: stamp(n.JoinedAt),
	}
}

func (s *Server) masterView(n *state.Node) *api.Node {
	v := nodeView(n)
	if v.Member = s.cfg.Cluster.Member(n.ID); v.Member == MemberNone && !n.Spare {
		v.Member = MemberLearner // it is about to be
	}
	if n.ID == s.cfg.NodeID { // only the leader is asked
		v.State, v.Leader, v.Pid, v.LastSeenAt = nodeRunning, true, int64(os.Getpid()), stamp(s.cfg.Now())
		return v
	}
	at, pid := s.cfg.Cluster.LastHeard(n.ID)
	v.State, v.LastSeenAt, v.Pid = nodeRunning, stamp(at), pid
	if !s.cfg.Cluster.Alive(n.ID) {
		v.State, v.Reason = nodeLost, "gossip does not reach it"
	}
	switch {
	case v.State == nodeLost:
	case n.Spare:
		v.Reason = "it was taken out of the set of masters: millrace master add " + n.ID + " takes it back"
	case v.Member != MemberVoter:
		v.Reason = "it has no vote yet: it is being given the log"
	}
	return v
}

// What a master may be in the set.
const (
	MemberVoter   = "VOTER"
	MemberLearner = "LEARNER"
	MemberNone    = "NONE" // it was taken out
)

func workerView(n *state.Node, sess session.Node, up bool, l *Leader) *api.Node {
	v := nodeView(n)
	if !up {
		v.State, v.Reason = nodeLost, "it has no session with the leader"
		return v
	}
	v.State, v.Address, v.Slots, v.Running = nodeRunning, sess.Address, int64(sess.Slots), int64(l.Tracker.RunningOn(n.ID))
	v.MemoryBytes, v.DiskBytes, v.DiskFreeBytes = sess.Memory, sess.Disk, sess.DiskFree
	v.Version, v.Pid, v.LastSeenAt = sess.Version, sess.PID, stamp(sess.LastSeen)
	v.Reason = l.Tracker.Reason(n.ID)
	if !sess.Connected {
		v.Reason = "its connection broke; it has until its lease ends"
	}
	return v
}

func (s *millraceService) GetCluster(ctx context.Context, req *connect.Request[api.GetClusterRequest]) (*connect.Response[api.Cluster], error) {
	v, l, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	c, err := cluster(v, req.Msg.Cluster)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(s.clusterView(v, l, c)), nil
}

func (s *millraceService) ListClusters(ctx context.Context, _ *connect.Request[api.ListClustersRequest]) (*connect.Response[api.ListClustersResponse], error) {
	v, l, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	resp := &api.ListClustersResponse{}
	for _, c := range v.Clusters() {
		resp.Clusters = append(resp.Clusters, s.clusterView(v, l, c))
	}
	return connect.NewResponse(resp), nil
}

func (s *Server) clusterView(v *state.View, l *Leader, c *state.Cluster) *api.Cluster {
	out := &api.Cluster{
		Id: c.ID, Name: c.Name, CreatedAt: stamp(c.CreatedAt),
		QueuedTasks: int64(l.Tracker.Queued(c.ID)),
	}
	running := map[string]int64{} // by group
	cores := 0
	for _, n := range s.nodes(v, l, c.ID) {
		up := n.State == nodeRunning
		if n.Role == state.RoleMaster {
			out.Masters = append(out.Masters, n)
		}
		if !up && n.Role == state.RoleMaster && n.Member == MemberNone {
			continue // it was taken out
		}
		if !up {
			out.Problems = append(out.Problems, fmt.Sprintf("%s node %s (%s) is lost: %s", n.Role, n.Id, n.Name, n.Reason))
			continue
		}
		running[n.Group]++
		out.SlotsTotal += n.Slots
		out.SlotsRunning += n.Running
		if n.Role == state.RoleCore {
			cores++
		}
	}
	out.Problems = append(out.Problems, mastersProblems(out.Masters)...)
	for _, g := range c.Groups {
		out.Groups = append(out.Groups, &api.InstanceGroup{Id: g.ID, Role: g.Role, Target: int64(g.Target), Running: running[g.ID]})
	}
	open := 0
	for _, j := range v.OpenJobs() {
		if j.Cluster == c.ID {
			open++
		}
	}
	switch {
	case cores == 0:
		out.State = clusterStarting
		out.Problems = append(out.Problems, "no core node is up: jobs wait")
	case open > 0:
		out.State = clusterRunning
	default:
		out.State = clusterWaiting
	}
	return out
}

// mastersProblems says what is wrong with the set of masters as a whole.
func mastersProblems(masters []*api.Node) (list []string) {
	voters, up := 0, 0
	for _, m := range masters {
		if m.Member == MemberVoter {
			voters++
			if m.State == nodeRunning {
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
