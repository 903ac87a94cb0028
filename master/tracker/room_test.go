package tracker

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"millrace/master/state"
)

// Nodes come, go, and get more or less room: the best are those that sorting all of them gives, and what there is
// in all is what they have together.
func TestRoomsAreAsSortingAllNodesHasThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tr := &Tracker{rooms: map[string]*rooms{}}
		r := tr.roomsOf("j-1")
		here := map[string]*node{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			id := fmt.Sprintf("i-%d", rapid.IntRange(0, 9).Draw(t, "node"))
			n := here[id]
			switch {
			case n == nil:
				n = &node{id: id, cluster: "j-1", role: rapid.SampledFrom([]string{state.RoleCore, state.RoleTask}).Draw(t, "role")}
				here[id] = n
				tr.enter(n)
			case rapid.IntRange(0, 4).Draw(t, "leaves") == 0:
				tr.leave(n)
				delete(here, id)
			default:
				var room [roomKinds]int
				for kind := range room {
					room[kind] = rapid.IntRange(0, 3).Draw(t, "room")
				}
				r.set(n, room)
			}
			var cores []*node
			for kind := range r.rankings {
				var want []*node
				sum := 0
				for _, n := range here {
					if sum += n.room[kind]; n.room[kind] > 0 {
						want = append(want, n)
					}
				}
				slices.SortFunc(want, func(a, b *node) int {
					if r.rankings[kind].before(a, b) {
						return -1
					}
					return 1
				})
				if got := slices.Collect(r.rankings[kind].best()); !slices.Equal(got, want) || r.sums[kind] != sum {
					t.Fatalf("kind %d: %v with %d, not %v with %d", kind, got, r.sums[kind], want, sum)
				}
			}
			for _, n := range here {
				if n.role == state.RoleCore {
					cores = append(cores, n)
				}
			}
			slices.SortFunc(cores, byID)
			if !slices.Equal(cores, r.cores) {
				t.Fatalf("core nodes are %v, not %v", r.cores, cores)
			}
		}
	})
}
