package files

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
)

// events are what the cluster's events tell of disks.
func (w *world) events() (list []string) {
	c, _ := w.store.View().Cluster(cluster)
	for _, e := range c.Events {
		if e.Kind == eventDisk {
			list = append(list, e.Subject+": "+e.Message)
		}
	}
	return list
}

func (w *world) disks(node string, problems ...string) {
	r := &api.BlockReport{}
	for i, p := range problems {
		r.Disks = append(r.Disks, &api.DataDisk{Dir: "/d" + string(rune('0'+i)), CapacityBytes: 1 << 40, FreeBytes: 1 << 39, ReserveBytes: 1 << 30, Problem: p})
	}
	w.tell(node, r)
}

// That a disk has failed is told once, whatever is reported again and whoever leads; and once more when it has failed anew.
func TestAFailedDiskIsAnEventOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "i-1", "i-2")
		w.run(3 * time.Second)
		require.Empty(t, w.events())
		w.disks("i-1", "", "it is on fire")
		w.run(3 * time.Second)
		want := []string{"i-1: disk /d1 has failed: it is on fire"}
		require.Equal(t, want, w.events())
		require.Len(t, w.Disks("i-1"), 2)
		require.EqualValues(t, 1<<30, w.Disks("i-1")[0].ReserveBytes)
		require.True(t, w.Disks("i-1")[1].Failed)
		require.Equal(t, "it is on fire", w.Disks("i-1")[1].Reason)

		w.disks("i-1", "", "it is still on fire")
		w.lead(2)
		w.up("i-1")
		w.disks("i-1", "", "it is on fire")
		w.run(3 * time.Second)
		require.Equal(t, want, w.events())

		w.Down("i-1", "")
		require.Empty(t, w.Disks("i-1"), "who knows")
		w.up("i-1")
		w.disks("i-1", "", "")
		w.run(3 * time.Second)
		w.disks("i-1", "", "it is wet")
		w.run(3 * time.Second)
		require.Equal(t, append(want, "i-1: disk /d1 is in use again", "i-1: disk /d1 has failed: it is wet"), w.events())
	})
}

func TestADiskSmallerThanItsReserveSaysWhyItTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "i-1")
		w.tell("i-1", &api.BlockReport{Disks: []*api.DataDisk{{Dir: "/d", CapacityBytes: 64 << 20, ReserveBytes: 1 << 30}}})
		w.run(3 * time.Second)
		require.Len(t, w.Disks("i-1"), 1)
		require.Equal(t, "it has 64 MiB, and --data-reserve keeps 1 GiB free: it never takes a block", w.Disks("i-1")[0].Reason)
		require.False(t, w.Disks("i-1")[0].Failed)
		require.Empty(t, w.events())
	})
}

// Blocks that wait for room, or for a node, are told from those that are being copied: nothing goes on by itself there.
func TestBlocksThatNoOtherNodeCanTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "i-1", "i-2", "i-3")
		a, b := w.write("/a", 2), w.write("/b", 2)
		w.run(2 * time.Second)
		require.Empty(t, w.Problems(cluster))
		full := &api.BlockReport{Disks: []*api.DataDisk{{Dir: "/d", CapacityBytes: 1 << 40}}}
		for _, n := range []string{"i-1", "i-2", "i-3"} {
			w.tell(n, full)
		}
		w.tell(a.Nodes[0].ID, &api.BlockReport{Gone: stored(a.Block)})
		w.tell(b.Nodes[0].ID, &api.BlockReport{Gone: stored(b.Block)})
		w.run(3 * time.Second)
		wait := "fewer replicas than wanted of 2 blocks, and no other core node can take a copy: make room, mend what is wrong with core nodes, " +
			"or let one more join (millrace join-token create --role core); millrace fs fsck names the files"
		require.Equal(t, []string{wait}, w.Problems(cluster))
		w.run(time.Minute)
		require.Equal(t, []string{wait}, w.Problems(cluster))

		w.disks("i-1", "")
		w.disks("i-2", "")
		w.disks("i-3", "")
		w.run(12 * time.Second)
		require.Equal(t, []string{"fewer replicas than wanted of 2 blocks: they are being copied; millrace fs fsck says how far that is"}, w.Problems(cluster))
	})
}
