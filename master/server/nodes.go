package server

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"

	"millrace/master/session"
	"millrace/master/state"
	"millrace/pkg/api"
)

const (
	nodeRunning  = "RUNNING"
	nodeDraining = "DRAINING"
	nodeLost     = "LOST"
	nodeFailed   = "FAILED"

	nodeBootstrapping = "BOOTSTRAPPING"
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
	s.awaitNodes(ctx, v, l, id)
	nodes := s.nodes(v, l, id)
	for _, n := range nodes {
		why := append([]string{n.Reason}, failedDisks(n)...)
		n.Reason = strings.TrimPrefix(strings.Join(why, "; "), "; ")
	}
	return connect.NewResponse(&api.ListNodesResponse{Nodes: nodes}), nil
}

// awaitNodes waits until a new leader has heard of all workers of a cluster ("" = all), or they have had the time: before, a node
// that is well would be said to be lost.
func (s *Server) awaitNodes(ctx context.Context, v *state.View, l *Leader, clusterID string) {
	if l.Settled == nil {
		return
	}
	look := time.NewTicker(25 * time.Millisecond)
	defer look.Stop()
	for !allHeard(v, l.Sessions.Nodes(), clusterID) {
		select {
		case <-look.C:
		case <-l.Settled:
			return
		case <-l.Done:
			return
		case <-ctx.Done():
			return
		}
	}
}

func allHeard(v *state.View, heard []session.Node, clusterID string) bool {
	here := map[string]bool{}
	for _, n := range heard {
		here[n.ID] = true
	}
	for _, n := range v.Nodes("") {
		if n.Role != state.RoleMaster && n.State != state.NodeTerminated && (clusterID == "" || n.Cluster == clusterID) && !here[n.ID] {
			return false
		}
	}
	return true
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
			workers = append(workers, s.workerView(n, sess, up, l))
		}
	}
	return append(masters, workers...)
}

func nodeView(n *state.Node) *api.Node {
	return &api.Node{
		Id: n.ID, Name: n.Name, Cluster: n.Cluster, Group: n.Group, Role: n.Role,
		Address: n.Address, Version: n.Version, JoinedAt: stamp(n.JoinedAt), Provider: n.Provider, Pooled: n.Pooled,
	}
}

func (s *Server) masterView(n *state.Node) *api.Node {
	if n.State == state.NodeTerminated {
		v := nodeView(n)
		v.State, v.Member = state.NodeTerminated, MemberNone
		return v
	}
	v, heard := nodeView(n), s.cfg.Cluster.LastHeard(n.ID)
	v.Protocol = int32(cmp.Or(heard.Protocol, n.Protocol))
	if v.Member = s.cfg.Cluster.Member(n.ID); v.Member == MemberNone && !n.Spare {
		v.Member = MemberLearner // it is about to be
	}
	if n.ID == s.cfg.NodeID { // only the leader is asked
		v.State, v.Leader, v.Pid, v.LastSeenAt, v.Reason = nodeRunning, true, int64(os.Getpid()), stamp(s.cfg.Now()), heard.Problem
		return v
	}
	v.State, v.LastSeenAt, v.Pid = nodeRunning, stamp(heard.At), heard.PID
	if !s.cfg.Cluster.Alive(n.ID) {
		v.State, v.Reason = nodeLost, "gossip does not reach it"
	}
	switch {
	case v.State == nodeLost && n.Spare:
		v.Reason = "it was taken out of the set of masters, and is lost: millrace master remove " + n.ID + " ends it for good"
	case v.State == nodeLost:
	case heard.Problem != "":
		v.Reason = heard.Problem
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

func (s *Server) workerView(n *state.Node, sess session.Node, up bool, l *Leader) *api.Node {
	v := nodeView(n)
	v.Bootstrap = s.bootstrapOf(n)
	if !up {
		v.State, v.LastSeenAt = nodeLost, stamp(l.Sessions.LastSeen(n.ID))
		v.Reason = cmp.Or(s.skewed.reason(n.ID), "it has no session with the leader")
		if n.Draining() {
			v.Reason += "; it was being drained"
		}
		return v
	}
	v.State, v.Address, v.Slots, v.Running = nodeRunning, sess.Address, int64(sess.Slots), int64(l.Tracker.RunningOn(n.ID))
	v.MemoryBytes, v.DiskBytes, v.DiskFreeBytes = sess.Memory, sess.Disk, sess.DiskFree
	v.Version, v.Protocol, v.Pid, v.LastSeenAt = sess.Version, int32(sess.Protocol), sess.PID, stamp(sess.LastSeen)
	v.Reason = l.Tracker.Reason(n.ID)
	if l.Files != nil {
		v.Disks = l.Files.Disks(n.ID)
	}
	switch {
	case n.Failure != "":
		v.State, v.Reason = nodeFailed, n.Failure
	case n.Draining():
		v.State, v.Reason = nodeDraining, drainReason(n, drainOf(n, l), s.cfg.Now())
	case v.Bootstrap == bootstrapWaiting:
		v.State = nodeBootstrapping
		if v.Reason != "" { // it says which one it runs
			v.Bootstrap = bootstrapRunning
		}
	}
	if !sess.Connected {
		v.Reason = "its connection broke; it has until its lease ends"
	}
	return v
}

// failedDisks says which disks of a node are out of use, and why. It has the others, and tasks: that is no reason not to run.
func failedDisks(n *api.Node) (list []string) {
	for _, d := range n.Disks {
		if d.Failed {
			list = append(list, fmt.Sprintf("disk %s has failed: %s", d.Dir, firstLine(d.Reason)))
		}
	}
	return list
}

// How far a node's bootstrap actions are, as people see it; beside those of the log.
const (
	bootstrapWaiting = "WAITING"
	bootstrapRunning = "RUNNING"
)

// bootstrapOf is how far the log says that a node's bootstrap actions are; "" if its cluster has none.
func (s *Server) bootstrapOf(n *state.Node) string {
	if c, ok := s.cfg.View().Cluster(n.Cluster); n.Cluster == "" || !ok || len(c.Bootstrap) == 0 {
		return ""
	}
	return cmp.Or(n.Bootstrap, bootstrapWaiting)
}

// isUp says whether a node has a session, whatever it gets.
func isUp(n *api.Node) bool { return n.State != nodeLost && n.State != state.NodeTerminated }
