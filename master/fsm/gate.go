package fsm

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"millrace/hdfs/namespace"
	"millrace/master/state"
	"millrace/pkg/objectstore"
)

// said is the protocol since which it is said who speaks what.
const said = 2

// needHistory is the protocol that it takes to read what becomes of ended jobs.
const needHistory = 2

// needFiles is the protocol that it takes to read what becomes of files in the block store.
const needFiles = 3

// needDrain is the protocol that it takes to read that a node drains, and what becomes of its place.
const needDrain = 3

// needFleet is the protocol that it takes to read that clusters, their nodes and people come and go.
const needFleet = 4

// MayHoldFleets says whether the masters of a site that uses a protocol all know of clusters, nodes and people that come and go.
func MayHoldFleets(uses int) bool { return uses >= needFleet }

// MayHoldFiles says whether the masters of a site that uses a protocol all know of the block store.
func MayHoldFiles(uses int) bool { return uses >= needFiles }

// MayRetire says whether the masters of a site that uses a protocol all know of the history of jobs.
func MayRetire(uses int) bool { return uses >= needHistory }

// ErrTooNew says that a command cannot be logged yet, as not every master could read it. It was not logged.
var ErrTooNew = errors.New("not every master reads that yet")

// needs is the protocol that it takes to read a command: the one that it came with, or that the latest of its
// fields that are set came with. testdata/fields.txt has them all.
func needs(c state.Command) int {
	switch c := c.(type) {
	case state.CreateSite:
		return needsSite(c.Site, c.Cluster)
	case state.RetireJobs, state.ForgetJobs:
		return needHistory
	case namespace.Remove:
		if c.File != 0 {
			return needFleet
		}
		return needFiles
	case namespace.Command:
		return needFiles
	case state.SubmitJob:
		if onFiles(c.Job) {
			return needFiles // it could be read, and not be run by who leads next
		}
	case state.RaiseSite:
		return max(said, c.Protocol)
	case state.PutNode:
		return needsNode(c.Node)
	case state.AdmitNode:
		return needsNode(c.Node)
	case state.CreateToken:
		if c.Token.Role == state.RolePool || c.Token.Launch != "" {
			return needFleet
		}
	case state.DrainNode:
		if c.Bye != "" {
			return needFleet
		}
		return needDrain
	case state.RemoveNode:
		if c.Shrink {
			return needDrain
		}
	case state.CreateCluster, state.ResizeCluster, state.SetTarget, state.SetCluster, state.TerminateCluster, state.EndCluster, state.SuspendGroup, state.AddEvents,
		state.AssignNode, state.LeaveNode, state.ReleaseNode, state.FindNode, state.NoteBootstrap, state.PutLaunch, state.DropLaunch, state.CreateUser, state.PutLoginCode,
		state.RemoveUser, state.LoginUser, state.SetSite, state.PutCA:
		return needFleet
	}
	return 1
}

// needsSite: what is left of the two when the fields are taken away that they had at first came with the fleet.
func needsSite(s state.Site, c state.Cluster) int {
	need, groups := 1, c.Groups
	if s.Protocol != 0 {
		need = max(said, s.Protocol)
	}
	s.ID, s.CreatedAt, s.CAPEM, s.SealedCAKey, s.SealedStore, s.SealedGossip, s.SystemPrefix, s.Protocol = "", time.Time{}, "", nil, nil, nil, "", 0
	c.ID, c.Name, c.CreatedAt, c.Groups = "", "", time.Time{}, nil
	newer := !reflect.ValueOf(s).IsZero() || !reflect.ValueOf(c).IsZero()
	for _, g := range groups {
		g.ID, g.Role, g.Target = "", "", 0
		newer = newer || g != (state.Group{})
	}
	if newer {
		return max(need, needFleet)
	}
	return need
}

// onFiles says whether a job reads or writes a block store.
func onFiles(j state.Job) bool {
	return slices.ContainsFunc(append([]string{j.Output}, j.Input...), objectstore.IsHDFS)
}

func needsNode(n state.Node) int {
	switch {
	case n.Role == state.RolePool || n.Provider != "" || n.Launch != "" || n.Pooled || n.Bootstrap != "" || n.Failure != "" || n.Leaving || n.Bye != "" || n.Unsure:
		return needFleet
	case n.Draining():
		return needDrain
	case n.Protocol != 0:
		return said
	}
	return 1
}

// gate is the one place that keeps a command out of the log while there is a master that could not read it. The
// first entry of a site has nobody else to be read by.
func (l *Log) gate(c state.Command) error {
	if _, first := c.(state.CreateSite); first {
		return nil
	}
	if need, uses := needs(c), l.cfg.Uses(); need > uses {
		return fmt.Errorf("%s: %w: it takes protocol %d, and the site uses %d until all of its masters are upgraded", c.CommandName(), ErrTooNew, need, uses)
	}
	return nil
}

// Raise makes the site use a later protocol. It is for who has seen that every master that gets the log reads it.
func (l *Log) Raise(ctx context.Context, to int) error {
	_, err := l.apply(ctx, state.RaiseSite{Protocol: to})
	return err
}
