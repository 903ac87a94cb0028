package files

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
	"millrace/master/state"
	"millrace/pkg/api"
)

func TestABlockIsWhereItsWriterIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "i-1", "i-2", "i-3")
		near := w.Names(cluster, "i-2", "")
		ctx := t.Context()
		id, err := near.Create(ctx, hdfs.Create{Path: "/a", Lease: "l", Replication: 2, BlockSize: chunk})
		require.NoError(t, err)
		first, err := near.AddBlock(ctx, id, "l", nil, nil)
		require.NoError(t, err)
		require.Len(t, first.Nodes, 2)
		require.Equal(t, "i-2", first.Nodes[0].ID)
		require.Equal(t, "https://i-2", first.Nodes[0].Address)

		again, err := near.Restamp(ctx, id, "l", first.Block, []string{"i-2"})
		require.NoError(t, err)
		require.Greater(t, again.Stamp, first.Stamp)
		require.Equal(t, []string{"i-2"}, ids(again.Nodes))
		again.Size = chunk
		w.tell("i-2", &api.BlockReport{Stored: stored(again.Block)})

		second, err := near.AddBlock(ctx, id, "l", &again.Block, []string{"i-2"})
		require.NoError(t, err)
		require.ElementsMatch(t, []string{"i-1", "i-3"}, ids(second.Nodes))
		second.Size = 5
		w.tell("i-1", &api.BlockReport{Stored: stored(second.Block)})
		w.tell("i-3", &api.BlockReport{Stored: stored(second.Block)})
		info, err := near.Complete(ctx, id, "l", &second.Block)
		require.NoError(t, err)
		require.Equal(t, chunk+5, info.Size)

		for _, c := range []struct {
			reader         string
			offset, length int64
			want           []hdfs.BlockID
			first          string // node of the last of them
		}{
			{"i-3", 0, -1, []hdfs.BlockID{first.ID, second.ID}, "i-3"},
			{"i-1", 0, -1, []hdfs.BlockID{first.ID, second.ID}, "i-1"},
			{"", 0, 1, []hdfs.BlockID{first.ID}, "i-2"},
			{"i-1", chunk, -1, []hdfs.BlockID{second.ID}, "i-1"},
			{"i-1", chunk, 1, []hdfs.BlockID{second.ID}, "i-1"},
		} {
			for _, by := range []hdfs.FileID{0, id} {
				_, blocks, err := w.Names(cluster, c.reader, "").Locate(ctx, "/a", by, c.offset, c.length)
				require.NoError(t, err)
				var got []hdfs.BlockID
				for _, b := range blocks {
					got = append(got, b.ID)
				}
				require.Equal(t, c.want, got, "%+v", c)
				require.Equal(t, c.first, blocks[len(blocks)-1].Nodes[0].ID, "%+v", c)
			}
		}
		_, _, err = near.Locate(ctx, "/none", 0, 0, -1)
		require.ErrorIs(t, err, hdfs.ErrNotExist)
		_, _, err = near.Locate(ctx, "", 99, 0, -1)
		require.ErrorIs(t, err, hdfs.ErrNotExist)
	})
}

func TestABlockThatNobodyCanTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.begin("/a", "l", 3)
		_, err := w.names().AddBlock(t.Context(), id, "l", nil, nil)
		require.ErrorIs(t, err, hdfs.ErrUnavailable, "one may yet come to this leader")
		require.ErrorContains(t, err, "none is up")

		// With one node a writer has no choice, whatever it thinks of it.
		w.admit("i-1", "CORE")
		w.up("i-1")
		at, err := w.names().AddBlock(t.Context(), id, "l", nil, []string{"i-1"})
		require.NoError(t, err)
		require.Equal(t, []string{"i-1"}, ids(at.Nodes))
		w.admit("i-2", "CORE")
		w.up("i-2")
		same, err := w.names().AddBlock(t.Context(), id, "l", nil, []string{"i-1"})
		require.NoError(t, err)
		require.Equal(t, at.Block, same.Block, "asked again it is the same block")
		require.Equal(t, []string{"i-2"}, ids(same.Nodes))

		_, err = w.names().AddBlock(t.Context(), id, "other", nil, nil)
		require.ErrorIs(t, err, hdfs.ErrLease)
		require.NoError(t, w.names().Abandon(t.Context(), id, "l"))
		_, err = w.names().AddBlock(t.Context(), id, "l", nil, nil)
		require.ErrorIs(t, err, hdfs.ErrLease)
	})
}

// Waiting brings a core node only where one is or was asked for.
func TestABlockInAClusterWithoutCoreNodesIsRefusedForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.begin("/a", "l", 3)
		w.do(state.ResizeCluster{Cluster: cluster, Groups: []state.Group{{ID: "ig-core", Role: state.RoleCore, Target: 0}}})
		_, err := w.names().AddBlock(t.Context(), id, "l", nil, nil)
		require.ErrorIs(t, err, hdfs.ErrNoCore)
		require.ErrorContains(t, err, "in cluster default")

		w.admit("i-1", "CORE")
		_, err = w.names().AddBlock(t.Context(), id, "l", nil, nil)
		require.ErrorIs(t, err, hdfs.ErrUnavailable, "there is one, and it may come")
		w.up("i-1")
		_, err = w.names().AddBlock(t.Context(), id, "l", nil, nil)
		require.NoError(t, err)
	})
}

func TestReplicationThatIsChangedIsMadeUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "i-1", "i-2")
		b := w.write("/a", 1)
		w.run(2 * time.Second)
		require.NoError(t, w.names().SetReplication(t.Context(), "/a", 2))
		w.run(2 * time.Second)
		require.Len(t, w.orders(b.Nodes[0].ID).Copies, 1)
		require.ErrorIs(t, w.names().SetReplication(t.Context(), "/none", 2), hdfs.ErrNotExist)
		require.ErrorIs(t, w.names().SetReplication(t.Context(), "/", 2), hdfs.ErrIsDir)
	})
}

func TestNamesAreThoseOfTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "i-1")
		n, ctx := w.names(), t.Context()
		w.write("/a/b", 1)
		require.NoError(t, n.Mkdir(ctx, "/x"))
		require.NoError(t, n.Rename(ctx, "/a/b", "/x/c"))
		infos, err := n.List(ctx, "/", "", 10)
		require.NoError(t, err)
		require.Len(t, infos, 2)
		usage, err := n.Usage(ctx, "/x")
		require.NoError(t, err)
		require.EqualValues(t, 1, usage.Files)
		require.NoError(t, n.Remove(ctx, "/x", true, true))
		require.Empty(t, w.all())

		id, err := n.Create(ctx, hdfs.Create{Path: "/out/0", Lease: "l", Group: "g", Task: "r-0"})
		require.NoError(t, err)
		_, err = n.Complete(ctx, id, "l", nil)
		require.NoError(t, err)
		require.ErrorIs(t, n.Abandon(ctx, id, "l"), hdfs.ErrLease, "it is sealed")
		uploads, err := n.Uploads(ctx, "g")
		require.NoError(t, err)
		require.Len(t, uploads, 1)
		require.NoError(t, n.Publish(ctx, "g", "/out", 1, false, time.Now()))
		require.Equal(t, []string{"/out/0"}, w.all())
	})
}

// A reader who finds every replica damaged learns whether it is worth waiting for another one, and for whom.
func TestABlockThatIsLostIsToldFromOneWhoseNodeIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "i-1", "i-2")
		w.run(2 * time.Second)
		at := w.write("/f", 2)
		locate := func() hdfs.Located {
			_, found, err := w.names().Locate(t.Context(), "/f", 0, 0, chunk)
			require.NoError(t, err)
			require.True(t, found[0].Settled)
			return found[0]
		}
		require.Empty(t, locate().Away)
		for _, n := range at.Nodes {
			w.tell(n.ID, &api.BlockReport{Bad: []*api.BadBlock{{Block: stored(at.Block)[0], Reason: "flipped"}}})
		}
		require.Empty(t, locate().Away)
		w.Down("i-2", "")
		require.Equal(t, []string{"i-2"}, locate().Away)
	})
}

// Who is refused a path as it has a writer learns who that is, and when the path is free again.
func TestAPathThatIsBusySaysUntilWhen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "i-1")
		begin := func(node, user, lease string) error {
			_, err := w.Names(cluster, node, user).Create(t.Context(), hdfs.Create{Path: "/a/f", Lease: lease, Replication: 1, BlockSize: chunk})
			return err
		}
		require.NoError(t, begin("", "ana", "first"))
		w.run(17 * time.Second)
		err := begin("", "bob", "second")
		require.ErrorIs(t, err, hdfs.ErrBusy)
		require.EqualError(t, err, "create hdfs:///a/f: is being written by another (user ana, last heard of 17s ago): free again in 44s, if it is not heard of until then")

		w.lead(2)
		w.run(2 * time.Second)
		require.ErrorContains(t, begin("", "bob", "second"), "(not heard of since there is a new leader, for 2s): free again in 1m0s")
		_, err = w.Names(cluster, "i-1", "").Renew(t.Context(), []string{"first"})
		require.NoError(t, err)
		require.ErrorContains(t, begin("", "bob", "second"), "(node i-1, last heard of 0s ago): free again in 1m1s")
		w.run(62 * time.Second)
		require.NoError(t, begin("", "bob", "second"))
	})
}
