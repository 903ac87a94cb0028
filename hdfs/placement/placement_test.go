package placement

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// site makes nodes named by their rack and number (a1, a2, b1 …), each with room for a thousand bytes.
func site(perRack map[string]int) []Node {
	var out []Node
	for _, rack := range []string{"a", "b", "c", "d"} {
		for i := range perRack[rack] {
			out = append(out, Node{ID: fmt.Sprintf("%s%d", rack, i+1), Rack: rack, Room: 1000})
		}
	}
	return out
}

func ids(nodes []Node) []string {
	out := []string{}
	for _, n := range nodes {
		out = append(out, n.ID)
	}
	return out
}

func named(nodes []Node, names ...string) []Node {
	var out []Node
	for _, name := range names {
		i := slices.IndexFunc(nodes, func(n Node) bool { return n.ID == name })
		out = append(out, nodes[i])
	}
	return out
}

// always runs a choice with many sources of chance.
func always(t *testing.T, check func(r *rand.Rand)) {
	t.Helper()
	for seed := range uint64(200) {
		check(rand.New(rand.NewPCG(seed, 1)))
	}
}

func TestTheThreeReplicasOfANewBlock(t *testing.T) {
	nodes := site(map[string]int{"a": 3, "b": 3, "c": 2})
	always(t, func(r *rand.Rand) {
		got := Choose(r, nodes, Want{Count: 3, Size: 10, Writer: "a2", Rack: "a"})
		require.Len(t, got, 3)
		require.Equal(t, "a2", got[0].ID, "the first on the writer's node")
		require.NotEqual(t, "a", got[1].Rack, "the second on another rack")
		require.Equal(t, got[1].Rack, got[2].Rack, "the third on the second's rack")
		require.NotEqual(t, got[1].ID, got[2].ID, "on another node")
	})
}

func TestAWriterThatStoresNothingOrIsFullWritesNearby(t *testing.T) {
	nodes := site(map[string]int{"a": 3, "b": 3})
	nodes[0].Room = 9
	always(t, func(r *rand.Rand) {
		for _, writer := range []string{"a1", "i-task"} {
			got := Choose(r, nodes, Want{Count: 3, Size: 10, Writer: writer, Rack: "a"})
			require.Equal(t, "a", got[0].Rack)
			require.NotEqual(t, "a1", got[0].ID)
		}
	})
}

func TestFurtherReplicasAreSpreadOverTheRacks(t *testing.T) {
	nodes := site(map[string]int{"a": 8, "b": 8, "c": 8})
	always(t, func(r *rand.Rand) {
		onRack := map[string]int{}
		for _, n := range Choose(r, nodes, Want{Count: 10, Size: 10, Writer: "a1", Rack: "a"}) {
			onRack[n.Rack]++
		}
		for rack, n := range onRack {
			require.LessOrEqual(t, n, (10-1)/3+2, rack)
		}
	})
}

func TestFewerNodesGiveFewerReplicas(t *testing.T) {
	nodes := site(map[string]int{"a": 2})
	always(t, func(r *rand.Rand) {
		require.Len(t, Choose(r, nodes, Want{Count: 3, Size: 10}), 2)
		require.Empty(t, Choose(r, nil, Want{Count: 3, Size: 10}))
		require.Empty(t, Choose(r, nodes, Want{Count: 0, Size: 10}))
	})
}

func TestWhatIsNeverChosen(t *testing.T) {
	nodes := site(map[string]int{"a": 3, "b": 3})
	nodes[0].Room = 9
	nodes[1].Draining = true
	always(t, func(r *rand.Rand) {
		got := Choose(r, nodes, Want{Count: 9, Size: 10, Writer: "a2", Rack: "a", Avoid: []string{"b1"}, Have: named(nodes, "b2")})
		require.ElementsMatch(t, []string{"a3", "b3"}, ids(got), "not the full, the draining, the avoided, and the one that has it")
	})
}

func TestARepairRestoresTheSpread(t *testing.T) {
	nodes := site(map[string]int{"a": 3, "b": 3})
	for name, c := range map[string]struct {
		have  []string
		racks []string
	}{
		"one is left":           {[]string{"a1"}, []string{"b"}},
		"two on one rack":       {[]string{"b1", "b2"}, []string{"a"}},
		"three on one rack":     {[]string{"b1", "b2", "b3"}, []string{"a"}},
		"two on different ones": {[]string{"a1", "b2"}, []string{"a", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			always(t, func(r *rand.Rand) {
				got := Choose(r, nodes, Want{Count: 1, Size: 10, Have: named(nodes, c.have...)})
				require.Len(t, got, 1)
				require.Contains(t, c.racks, got[0].Rack)
			})
		})
	}
}

func TestRoomAndLoadDecideHowOftenANodeIsChosen(t *testing.T) {
	nodes := []Node{{ID: "large", Room: 3000}, {ID: "small", Room: 1000}, {ID: "busy", Room: 3000, Load: 5}}
	r := rand.New(rand.NewPCG(1, 2))
	times := map[string]int{}
	for range 10_000 {
		times[Choose(r, nodes, Want{Count: 1, Size: 10})[0].ID]++
	}
	require.InDelta(t, 3, float64(times["large"])/float64(times["small"]), 0.4)
	require.InDelta(t, 6, float64(times["large"])/float64(times["busy"]), 0.9)
}

func TestTheSameChanceGivesTheSameChoice(t *testing.T) {
	nodes := site(map[string]int{"a": 5, "b": 5, "c": 5})
	choose := func() []Node {
		return Choose(rand.New(rand.NewPCG(7, 7)), nodes, Want{Count: 6, Size: 10, Writer: "b1", Rack: "b"})
	}
	require.Equal(t, choose(), choose())
}

func TestChooseAgainstTheRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var nodes []Node
		for i := range rapid.IntRange(0, 12).Draw(t, "nodes") {
			nodes = append(nodes, Node{
				ID:       fmt.Sprint("n", i),
				Rack:     rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "rack"),
				Room:     rapid.Int64Range(-5, 30).Draw(t, "room"),
				Load:     rapid.IntRange(0, 3).Draw(t, "load"),
				Draining: rapid.IntRange(0, 4).Draw(t, "draining") == 0,
			})
		}
		w := Want{
			Count: rapid.IntRange(0, 8).Draw(t, "count"), Size: 10,
			Writer: rapid.SampledFrom([]string{"", "n0", "n3", "elsewhere"}).Draw(t, "writer"),
			Avoid:  rapid.SliceOfN(rapid.SampledFrom([]string{"n1", "n2"}), 0, 2).Draw(t, "avoid"),
		}
		if len(nodes) > 4 {
			w.Have = nodes[4 : 4+rapid.IntRange(0, min(3, len(nodes)-4)).Draw(t, "have")]
		}
		may := map[string]Node{}
		for _, n := range nodes {
			if !n.Draining && n.Room >= w.Size && !slices.Contains(w.Avoid, n.ID) && !contains(w.Have, n.ID) {
				may[n.ID] = n
			}
		}
		got := Choose(rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)), nodes, w)
		require.Len(t, got, min(w.Count, len(may)), "as many as are wanted, or as there are")
		racks := map[string]bool{}
		for _, n := range may {
			racks[n.Rack] = true
		}
		for _, n := range w.Have {
			racks[n.Rack] = true
		}
		all := slices.Concat(w.Have, got)
		if len(got) > 0 && len(all) >= 2 {
			require.GreaterOrEqual(t, Racks(all), min(2, len(racks)), "on two racks where there are two")
		}
		for _, n := range got {
			require.Contains(t, may, n.ID)
			delete(may, n.ID)
		}
	})
}

func TestWhatIsRemovedWhenThereAreTooMany(t *testing.T) {
	nodes := site(map[string]int{"a": 3, "b": 2})
	change := func(name string, f func(*Node)) []Node {
		out := slices.Clone(nodes)
		f(&out[slices.IndexFunc(out, func(n Node) bool { return n.ID == name })])
		return out
	}
	for name, c := range map[string]struct {
		nodes []Node
		have  []string
		keep  int
		want  []string
	}{
		"nothing, when there are not":    {nodes, []string{"a1", "b1"}, 2, []string{}},
		"the fullest":                    {change("a2", func(n *Node) { n.Room = 1 }), []string{"a1", "a2", "a3", "b1"}, 3, []string{"a2"}},
		"a rack keeps its last":          {change("b1", func(n *Node) { n.Room = 1 }), []string{"a1", "a2", "b1"}, 2, []string{"a1"}},
		"of a draining node first":       {change("b2", func(n *Node) { n.Draining = true }), []string{"a1", "a2", "b1", "b2"}, 3, []string{"b2"}},
		"then where a disk has failed":   {change("a3", func(n *Node) { n.Failing = true }), []string{"a1", "a2", "a3", "b1"}, 3, []string{"a3"}},
		"all but one, over racks to end": {nodes, []string{"a1", "a2", "b1"}, 1, []string{"a1", "a2"}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, ids(Surplus(named(c.nodes, c.have...), c.keep)))
		})
	}
}

func TestASourceIsOneWithLittleToDo(t *testing.T) {
	require.Equal(t, "n2", Source([]Node{{ID: "n1", Load: 2}, {ID: "n2", Load: 1}}).ID)
	require.Equal(t, "n1", Source([]Node{{ID: "n1", Load: 2, Draining: true}, {ID: "n2"}}).ID, "nothing is written to a draining node")
}

func TestTheOrderForReading(t *testing.T) {
	nodes := []Node{{ID: "far", Rack: "b"}, {ID: "busy", Rack: "a", Load: 3}, {ID: "near", Rack: "a"}, {ID: "own", Rack: "a", Load: 9}}
	always(t, func(r *rand.Rand) {
		require.Equal(t, []string{"own", "near", "busy", "far"}, ids(Order(r, "own", "a", nodes)))
		require.Equal(t, "far", Order(r, "", "b", nodes)[0].ID)
	})
	first := map[string]int{}
	always(t, func(r *rand.Rand) {
		first[Order(r, "", "x", []Node{{ID: "n1"}, {ID: "n2"}})[0].ID]++
	})
	require.Greater(t, first["n1"], 50, "equals share the readers")
	require.Greater(t, first["n2"], 50)
}

func TestThePlanOfADrain(t *testing.T) {
	nodes := site(map[string]int{"a": 4})
	t.Run("copies what would be lacking", func(t *testing.T) {
		d := NewDrain(nodes, []string{"a1"}, Speed{Rate: 100})
		d.Add(600, 3, named(nodes, "a1", "a2", "a3")) // one copy
		d.Add(300, 1, named(nodes, "a1"))             // only there
		d.Add(500, 2, named(nodes, "a2", "a3"))       // not there
		d.Add(500, 1, named(nodes, "a1", "a3"))       // enough elsewhere
		require.Equal(t, Plan{Blocks: 2, Bytes: 900, Estimate: 6 * time.Second}, d.Plan(), "the larger one takes as long")
	})
	t.Run("is as slow as the only one who can send", func(t *testing.T) {
		d := NewDrain(nodes, []string{"a1"}, Speed{Rate: 100})
		d.Add(900, 1, named(nodes, "a1"))
		require.Equal(t, 9*time.Second, d.Plan().Estimate)
	})
	t.Run("begins so many copies a second", func(t *testing.T) {
		d := NewDrain(nodes, []string{"a1"}, Speed{Rate: 100, Copies: 2})
		for range 12 {
			d.Add(1, 3, named(nodes, "a1", "a2", "a3"))
		}
		require.Equal(t, 2040*time.Millisecond, d.Plan().Estimate, "three nodes take two each, and twelve bytes")
	})
	t.Run("needs nodes", func(t *testing.T) {
		d := NewDrain(nodes, []string{"a1", "a2"}, Speed{Rate: 100})
		d.Add(100, 3, named(nodes, "a1", "a3", "a4"))
		require.Equal(t, "replication 3 needs 3 core nodes; 2 would be left", d.Plan().Problem)
	})
	t.Run("keeps no more than there is", func(t *testing.T) {
		d := NewDrain(nodes, []string{"a1", "a2"}, Speed{Rate: 100})
		d.Add(100, 3, named(nodes, "a1", "a3"))
		require.Empty(t, d.Plan().Problem)
	})
	t.Run("needs room", func(t *testing.T) {
		d := NewDrain(nodes, []string{"a1"}, Speed{Rate: 100})
		d.Add(4096, 1, named(nodes, "a1"))
		require.Equal(t, "4 KiB must be copied to the other core nodes, which lack 1.1 KiB of room for it", d.Plan().Problem)
	})
}
