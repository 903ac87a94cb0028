package server

import (
	"millrace/master/fleet"
	"millrace/master/state"
	"millrace/pkg/api"
)

// Fleet brings the groups of the clusters to their targets.
type Fleet interface {
	// Poke has it look at once at what the log says by now.
	Poke()
	// Plan is what it would take to bring groups of a cluster to the targets given: from, to, add, missing, drain.
	Plan(cluster string, groups []state.Group) []*api.GroupPlan
	// Status says how it gets on with a group, by its id.
	Status(group string) fleet.Status
	// Arriving says whether a node without a session was given its place only a moment ago, and has not had one there.
	Arriving(n *state.Node) bool
	// Providers are the names of what nodes can be had from.
	Providers() []string
}
