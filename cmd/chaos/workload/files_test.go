package workload

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestChanges: what holds of every change of files, whatever came of those before.
func TestChanges(t *testing.T) {
	l := newWorkload(t, 1).FileLane(0)
	seen, contents := map[Deed]int{}, map[string]bool{}
	sure, ever := map[string]bool{}, map[string]bool{}
	for i := range 2000 {
		c := l.Next()
		seen[c.Deed]++
		require.Equal(t, "fs", c.Args[0])
		require.True(t, slices.Contains(c.Args, c.Path), c)
		require.True(t, strings.HasPrefix(c.Path, FilesRoot+"w0/"), c)
		switch c.Deed {
		case Put, PutKilled:
			require.False(t, contents[c.Version.Content], "%s comes twice", c.Version)
			contents[c.Version.Content] = true
			require.True(t, !ever[c.Path] || sure[c.Path], "what may be there, or may not, is left alone: %v", c)
			require.True(t, c.Deed == Put || !ever[c.Path], c)
			require.True(t, c.Deed == Put || c.Version.Size >= 2, "it has a half: %v", c)
		default:
			require.True(t, sure[c.Path], c)
		}
		if c.Deed == Move {
			require.False(t, ever[c.To], c)
		}
		ever[c.Path], ever[c.To] = true, true
		acknowledged, happenedNot := i%5 != 0 && c.Deed != PutKilled, c.Deed == PutKilled || c.Deed == SetRep
		l.Done(c, acknowledged, happenedNot)
		if happenedNot {
			continue
		}
		sure[c.Path] = acknowledged && c.Deed == Put
		if c.Deed == Move {
			sure[c.To] = acknowledged
		}
	}
	for _, d := range []Deed{Put, PutKilled, Move, Trash, Remove, SetRep} {
		require.NotZero(t, seen[d], d)
	}
}

// TestJobsInTheBlockStore read and write there, and nowhere else.
func TestJobsInTheBlockStore(t *testing.T) {
	for _, o := range next(newWorkload(t, 1).LaneOfFiles(7), 30) {
		require.True(t, strings.HasPrefix(valueOf(t, o.Args, "--input"), FilesOfJobs+"in-"), o.Args)
		require.Equal(t, o.Prefix, valueOf(t, o.Args, "--output"))
		require.True(t, strings.HasPrefix(o.Prefix, FilesOfJobs), o.Prefix)
	}
}
