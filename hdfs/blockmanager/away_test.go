package blockmanager

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Who finds no good replica learns whether a node may have one that is not there: none does if all replicas are accounted for.
func TestWhoMayHaveABlockAndIsAway(t *testing.T) {
	all := []string{"a", "b", "c", "d"}
	s := newScene(t, all...)
	away := func() []string { return s.Away(1, slices.Values(all)) }
	b := s.block(1, 2, "a", "b")
	require.Empty(t, away())

	s.NodeDown("d")
	require.Empty(t, away(), "both replicas are known, and their nodes are there")
	s.Bad(b, "a", "flipped")
	s.Bad(b, "b", "flipped")
	require.Empty(t, away(), "though they are no good")
	s.Deleted("b", b)
	require.Equal(t, []string{"d"}, away(), "one is gone: who can tell what d has?")
	require.Empty(t, s.Away(2, slices.Values(all)), "no such block")

	s.pass(time.Minute)
	require.Equal(t, []string{"d"}, away(), "given up, and it may come back all the same")
	s.NodeUp(member("d"))
	require.Equal(t, []string{"d"}, away(), "it has not said what it has")
	s.Report("d", nil, true)
	require.Empty(t, away())

	s.NodeDown("a")
	require.Equal(t, []string{"a"}, away())
}

// Of replicas none of which is certain the damaged ones are given, and then those that are not there just now.
func TestNodesThatAreAwayAreNamedBesideDamagedReplicas(t *testing.T) {
	s := newScene(t, "a", "b", "c")
	b := s.block(1, 2, "a", "b")
	s.NodeDown("a")
	require.Equal(t, []string{"b"}, s.at(1))
	s.Bad(b, "b", "flipped")
	var nodes []string
	for _, n := range s.Locate(1, "", "") {
		nodes = append(nodes, n.ID)
	}
	require.Equal(t, []string{"b", "a"}, nodes)
}
