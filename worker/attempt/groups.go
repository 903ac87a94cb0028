package attempt

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// gids is a range of groups; the zero value has none.
type gids struct{ first, n uint32 }

const (
	// Groups from lowest on nobody gives to anything: they are above what machines give to containers, and below what
	// systemd keeps for itself (its UIDS-GIDS document).
	lowestGroup  = 1_879_048_192
	highestGroup = 2_147_352_575
	groupsOfNode = 512
)

// nodeGroups are those of a node, by what marks its processes, hex digits: one of half a million ranges.
func nodeGroups(prefix string) gids {
	n, err := strconv.ParseUint(prefix[:8], 16, 32)
	if err != nil {
		return gids{}
	}
	const nodes = (highestGroup - lowestGroup + 1) / groupsOfNode
	return gids{lowestGroup + uint32(n%nodes)*groupsOfNode, groupsOfNode}
}

// hold says whether a process is in one of them: as its own group, which it cannot leave.
func (g gids) hold(pid int) bool {
	if g.n == 0 {
		return false
	}
	gid, ok := groupOf(pid)
	return ok && gid >= g.first && gid-g.first < g.n
}

// groupOf is a process's effective group.
func groupOf(pid int) (uint32, bool) {
	var st unix.Stat_t
	err := unix.Stat("/proc/"+strconv.Itoa(pid), &st)
	return st.Gid, err == nil
}

// mapped says whether a process here may have these groups, by its /proc/self/gid_map.
func (g gids) mapped(gidMap []byte) bool {
	for line := range bytes.Lines(gidMap) {
		f := strings.Fields(string(line)) // first here, first outside, how many
		if len(f) != 3 {
			continue
		}
		first, err := strconv.ParseUint(f[0], 10, 32)
		n, err2 := strconv.ParseUint(f[2], 10, 32)
		if err == nil && err2 == nil && uint64(g.first) >= first && uint64(g.first)+uint64(g.n) <= first+n {
			return true
		}
	}
	return false
}

// groupPool lends each child a group, the one that nobody has had for longest.
type groupPool struct {
	gids
	next uint32
	lent map[uint32]bool
}

// errGroups is told as what it is: too many processes.
var errGroups = fmt.Errorf("all %d groups of this node's attempts are taken: %w", groupsOfNode, unix.EAGAIN)

func (g *groupPool) take() (uint32, error) {
	for range g.n {
		gid := g.first + g.next
		g.next = (g.next + 1) % g.n
		if !g.lent[gid] {
			g.lent[gid] = true
			return gid, nil
		}
	}
	return 0, errGroups
}

func (g *groupPool) giveBack(gid uint32) { delete(g.lent, gid) }
