package schedule

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var machines = Machines{
	Masters: []string{"m1", "m2", "m3"}, Core: []string{"c1", "c2", "c3"}, Task: []string{"t1", "t2"},
	Network: true, Late: true, Disks: true,
}

func TestASeedSaysItAll(t *testing.T) {
	require.Equal(t, Plan(1, 3*time.Minute, machines), Plan(1, 3*time.Minute, machines))
	require.NotEqual(t, Plan(1, 3*time.Minute, machines), Plan(2, 3*time.Minute, machines))
}

// TestPlans: what holds of every plan, over many seeds.
func TestPlans(t *testing.T) {
	const length = 3 * time.Minute
	for seed := range uint64(200) {
		plan := Plan(seed, length, machines)
		kinds := map[Kind]int{}
		free := map[string]time.Duration{}
		last := time.Duration(0)
		for i, f := range plan {
			require.Equal(t, i+1, f.N)
			require.GreaterOrEqual(t, f.At, last, "in order")
			require.LessOrEqual(t, f.At+f.For, length, "healed at the end")
			require.NotEqual(t, f.Target, f.Peer)
			for _, name := range []string{f.Target, f.Peer} {
				require.LessOrEqual(t, free[name], f.At+time.Millisecond, "one fault at a time: %v", f)
				if name != "" {
					free[name] = f.At + f.For
				}
			}
			require.Equal(t, f.Kind == Cut || f.Kind == OneWay, f.Peer != "", f)
			last = f.At
			kinds[f.Kind]++
		}
		for _, r := range rules(machines) {
			require.NotZero(t, kinds[r.kind], "seed %d has no %s in 3 minutes", seed, r.kind)
		}
	}
}

// TestWhatAMachineCannot is not in its plan.
func TestWhatAMachineCannot(t *testing.T) {
	plain := machines
	plain.Network, plain.Late, plain.Disks = false, false, false
	for _, f := range Plan(3, 10*time.Minute, plain) {
		require.NotContains(t, []Kind{Crash, Pause, Isolate, Cut, OneWay, Deaf, Alone, NoStore, Slow, Fill, Inodes, KillAttempt, FreezeAttempt}, f.Kind)
	}
}

func TestAFaultSaysWhatItIs(t *testing.T) {
	f := Fault{N: 4, Kind: Cut, Target: "m1", Peer: "c1", At: 1500 * time.Millisecond, For: 2 * time.Second}
	require.Equal(t, "fault 4, at 1.5s for 2.0s: cut of m1 and c1", f.String())
	require.Equal(t, "fault 4, at 1.5s for 2.0s: kill of store", Fault{N: 4, Kind: Kill, Target: Store, At: f.At, For: f.For}.String())
}
