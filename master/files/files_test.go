package files

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
	"millrace/hdfs/namespace"
	"millrace/master/state"
	"millrace/pkg/api"
)

func TestALeaseThatIsNotRenewedEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "i-1")
		w.begin("/dead", "dead", 1)
		alive := w.begin("/alive", "alive", 1)
		for range 30 {
			w.run(5 * time.Second)
			over, err := w.names().Renew(t.Context(), []string{"alive"})
			require.NoError(t, err)
			require.Empty(t, over)
		}
		tree := w.store.View().Files(cluster)
		require.False(t, tree.HasLease("dead"))
		require.True(t, tree.HasLease("alive"))
		require.Equal(t, 1, w.count("ExpireLeases"))
		over, err := w.names().Renew(t.Context(), []string{"dead", "alive"})
		require.NoError(t, err)
		require.Equal(t, []string{"dead"}, over)
		_, err = w.names().Complete(t.Context(), alive, "alive", nil)
		require.NoError(t, err)
		require.Equal(t, []string{"/alive"}, w.all())
	})
}

// However much there is to say, an entry of the log stays small.
func TestManyLeasesEndInSeveralEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 2*leasesPerEntry + 1 {
			w.do(namespace.CreateFile{Cluster: cluster, Path: fmt.Sprint("/", i), Lease: fmt.Sprint("l", i)})
		}
		w.run(2 * time.Minute)
		require.Equal(t, 3, w.count("ExpireLeases"))
		require.Zero(t, w.store.View().Files(cluster).Totals().Hidden)

		ids := make([]hdfs.FileID, idsPerEntry+1)
		require.NoError(t, w.names().AbortUploads(t.Context(), "g", ids))
		require.Equal(t, 2, w.count("AbortUploads"))
		require.NoError(t, w.names().AbortUploads(t.Context(), "g", nil))
		require.Equal(t, 3, w.count("AbortUploads"), "all of them need one")
	})
}

func TestLeasesEndLaterWhenTheLogIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.begin("/dead", "dead", 1)
		w.refuse = errors.New("the disk is full")
		w.run(5 * time.Minute)
		require.True(t, w.store.View().Files(cluster).HasLease("dead"))
		w.refuse = nil
		w.run(5 * time.Second)
		require.False(t, w.store.View().Files(cluster).HasLease("dead"))
	})
}

func TestNodesGetOrders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "i-1", "i-2", "i-3")
		lost, kept := w.write("/lost", 2), w.write("/kept", 2)
		w.run(5 * time.Second)
		require.Empty(t, w.sent, "all is well")

		// A reader's word alone is none: the node looks.
		at := kept.Nodes[0].ID
		require.NoError(t, w.names().BadReplica(t.Context(), kept.Block, at, "checksum"))
		_, blocks, err := w.names().Locate(t.Context(), "/kept", 0, 0, -1)
		require.NoError(t, err)
		require.Equal(t, []string{kept.Nodes[1].ID, at}, ids(blocks[0].Nodes))
		w.run(5 * time.Second)
		require.Equal(t, []hdfs.Block{kept.Block}, blocksOf(w.orders(at).Verifies))
		require.EqualValues(t, 1, w.orders(at).Term)
		w.tell(at, &api.BlockReport{Verified: stored(kept.Block)})
		w.run(2 * time.Minute)
		require.Len(t, w.orders(at).Verifies, 1)

		// The node's own word is enough.
		w.tell(at, &api.BlockReport{Bad: []*api.BadBlock{{Block: stored(kept.Block)[0], Reason: "checksum"}}})
		_, blocks, err = w.names().Locate(t.Context(), "/kept", 0, 0, -1)
		require.NoError(t, err)
		require.Equal(t, []string{kept.Nodes[1].ID}, ids(blocks[0].Nodes))
		w.run(2 * time.Second)
		copies := w.orders(kept.Nodes[1].ID).Copies
		require.Len(t, copies, 1)
		require.Len(t, copies[0].Targets, 1)
		require.Positive(t, copies[0].BytesPerSecond)
		to := copies[0].Targets[0].Node
		require.NotContains(t, ids(kept.Nodes), to)

		// One that fails need not be waited for.
		w.tell(kept.Nodes[1].ID, &api.BlockReport{Failed: []*api.FailedCopy{{Block: stored(kept.Block)[0], Target: to, Reason: "disk full"}}})
		w.run(15 * time.Second)
		require.Len(t, w.orders(kept.Nodes[1].ID).Copies, 2)
		w.tell(to, &api.BlockReport{Stored: stored(kept.Block)})
		w.run(2 * time.Second)
		require.Contains(t, blocksOf(w.orders(at).Deletes), kept.Block, "the bad one goes when there are two good ones")

		// What no file has goes after a while.
		require.NoError(t, w.names().Remove(t.Context(), "/lost", false, true))
		w.run(3 * time.Minute)
		for _, n := range lost.Nodes {
			require.Contains(t, blocksOf(w.orders(n.ID).Deletes), hdfs.Block{ID: lost.ID, Stamp: lost.Stamp})
			w.tell(n.ID, &api.BlockReport{Gone: stored(lost.Block)})
		}
	})
}

func TestTheTrashIsEmptiedByAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "i-1")
		w.write("/a/old", 1)
		w.write("/a/young", 1)
		at, err := w.Discard(t.Context(), cluster, "/a/old", false, false)
		require.NoError(t, err)
		require.Regexp(t, `^/\.trash/[0-9T.Z-]+-[A-Z2-7]{6}/a/old$`, at)
		w.do(namespace.Mkdir{Cluster: cluster, Path: "/.trash/mine", At: time.Now()})
		time.Sleep(12 * time.Hour)
		young, err := w.Discard(t.Context(), cluster, "/a/young", false, false)
		require.NoError(t, err)
		w.run(2 * time.Minute)
		tree := func() *namespace.Tree { return w.store.View().Files(cluster) }
		_, err = tree().Stat(at)
		require.NoError(t, err, "not yet")
		time.Sleep(12 * time.Hour)
		w.run(2 * time.Minute)
		_, err = tree().Stat(at)
		require.ErrorIs(t, err, hdfs.ErrNotExist)
		_, err = tree().Stat(young)
		require.NoError(t, err)
		_, err = tree().Stat("/.trash/mine")
		require.NoError(t, err, "that is no trash")
	})
}

func TestWhatMayBeDiscarded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "i-1")
		for _, p := range []string{"/f", "/full/a", "/full/b", "/g"} {
			w.write(p, 1)
		}
		w.do(namespace.Mkdir{Cluster: cluster, Path: "/empty", At: time.Now()})
		for _, c := range []struct {
			path            string
			recursive, skip bool
			want            error
			gone            bool // not even in the trash
		}{
			{path: "none", want: hdfs.ErrInvalid},
			{path: "/none", want: hdfs.ErrNotExist},
			{path: "/none", skip: true, want: hdfs.ErrNotExist},
			{path: "/", recursive: true, want: hdfs.ErrInvalid},
			{path: "/full", want: hdfs.ErrNotEmpty},
			{path: "/full", skip: true, want: hdfs.ErrNotEmpty},
			{path: "/empty"},
			{path: "/full", recursive: true},
			{path: "/f", skip: true, gone: true},
			{path: "/g"},
			{path: "/.trash", recursive: true, gone: true},
		} {
			at, err := w.Discard(t.Context(), cluster, c.path, c.recursive, c.skip)
			if c.want != nil {
				require.ErrorIs(t, err, c.want, c.path)
				continue
			}
			require.NoError(t, err, c.path)
			_, err = w.names().Stat(t.Context(), c.path)
			require.ErrorIs(t, err, hdfs.ErrNotExist)
			require.Equal(t, c.gone, at == "", c.path)
			if at != "" {
				_, err = w.names().Stat(t.Context(), at)
				require.NoError(t, err)
			}
		}
		require.Empty(t, w.all())
	})
}

func TestNodesThatLeaveForGoodAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "i-1", "i-2", "i-3")
		b := w.write("/a", 2)
		w.run(2 * time.Second)
		gone, left := b.Nodes[0].ID, b.Nodes[1].ID
		w.do(state.RemoveNode{ID: gone})
		w.run(3 * time.Second)
		require.Len(t, w.orders(left).Copies, 1, "its replicas are made up at once")
		w.up(gone, b.Block)
		_, blocks, err := w.names().Locate(t.Context(), "/a", 0, 0, -1)
		require.NoError(t, err)
		require.Equal(t, []string{left}, ids(blocks[0].Nodes), "it does not count, whatever it says")
	})
}

// A new leader knows no replica; it waits for the nodes that the log has, and not for those that have left.
func TestANewLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "i-1", "i-2", "i-3")
		w.admit("i-task", state.RoleTask)
		b := w.write("/a", 2)
		one, two := b.Nodes[0].ID, b.Nodes[1].ID
		w.lead(2)
		w.Up("i-task", &api.WorkerHello{})
		w.tell("i-task", &api.BlockReport{Stored: stored(b.Block)})
		w.up(one, b.Block)
		w.run(30 * time.Second)
		require.Empty(t, w.sent, "the others may have it")
		check, err := w.Check(t.Context(), cluster, "")
		require.NoError(t, err)
		require.True(t, check.Learning)
		require.EqualValues(t, 1, check.Nodes)
		w.up(two, b.Block)
		for _, n := range []string{"i-1", "i-2", "i-3"} {
			if n != one && n != two {
				w.up(n)
			}
		}
		w.run(10 * time.Second)
		require.Empty(t, w.sent)
		check, err = w.Check(t.Context(), cluster, "/")
		require.NoError(t, err)
		require.False(t, check.Learning)
		require.EqualValues(t, 3, check.Nodes)
		require.EqualValues(t, 1, check.Blocks)

		w.Down(two, "")
		w.tell(two, &api.BlockReport{Gone: stored(b.Block)}) // of a session that is over
		w.run(time.Minute)
		require.Len(t, w.orders(one).Copies, 1)
		require.EqualValues(t, 2, w.orders(one).Term)
	})
}

func TestCheckLooksBelowAPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "i-1", "i-2")
		in, out := w.write("/in/a", 1), w.write("/in-not/b", 1)
		w.write("/in/c", 2)
		w.run(2 * time.Second)
		w.tell(in.Nodes[0].ID, &api.BlockReport{Gone: stored(in.Block)})
		w.tell(out.Nodes[0].ID, &api.BlockReport{Bad: []*api.BadBlock{{Block: stored(out.Block)[0], Reason: "rot"}}})
		w.run(2 * time.Second)
		require.Equal(t, []string{
			"no replica of 1 block is on any node that is up: millrace fs fsck names the files",
			"all replicas of 1 block are damaged: millrace fs fsck names the files",
		}, w.Problems(cluster))
		for _, c := range []struct {
			path             string
			files            int64
			missing, corrupt []string
		}{
			{"", 3, []string{"/in/a"}, []string{"/in-not/b"}},
			{"/", 3, []string{"/in/a"}, []string{"/in-not/b"}},
			{"/in", 2, []string{"/in/a"}, nil},
			{"/in/a", 1, []string{"/in/a"}, nil},
			{"/in/c", 1, nil, nil},
			{"/in-not/", 1, nil, []string{"/in-not/b"}},
		} {
			got, err := w.Check(t.Context(), cluster, c.path)
			require.NoError(t, err)
			require.Equal(t, c.files, got.Files, c.path)
			require.Equal(t, c.files*10, got.Bytes, c.path)
			require.Equal(t, c.files, got.Blocks, c.path)
			require.Equal(t, c.missing, paths(got.Missing), c.path)
			require.Equal(t, c.corrupt, paths(got.Corrupt), c.path)
			require.Empty(t, got.UnderReplicated)
		}
		for path, want := range map[string]error{"/none": hdfs.ErrNotExist, "in": hdfs.ErrInvalid} {
			_, err := w.Check(t.Context(), cluster, path)
			require.ErrorIs(t, err, want)
		}
	})
}

func paths(list []*api.BlockTrouble) (out []string) {
	for _, b := range list {
		out = append(out, b.Path)
	}
	return out
}

func TestErrorsOfTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "i-1")
		ctx := t.Context()
		w.refuse = errors.New("leadership was lost")
		require.ErrorIs(t, w.names().Mkdir(ctx, "/x"), hdfs.ErrUnavailable, "another leader may do it")
		require.ErrorContains(t, w.names().Mkdir(ctx, "/x"), "leadership was lost")
		w.refuse = nil
		require.ErrorIs(t, w.names().Mkdir(ctx, "x"), hdfs.ErrInvalid)
		require.NotErrorIs(t, w.names().Mkdir(ctx, "x"), hdfs.ErrUnavailable, "that is an answer")
		require.ErrorIs(t, w.Names("j-NONE", "", "").Mkdir(ctx, "/x"), state.ErrNotFound)
		require.NotErrorIs(t, w.Names("j-NONE", "", "").Mkdir(ctx, "/x"), hdfs.ErrUnavailable)
	})
}

// Blocks that shall lie on more nodes than there are count at once, those below the path alone.
func TestCheckCountsBlocksThatWantMoreNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "i-1", "i-2")
		for _, path := range []string{"/in/a", "/in/b", "/c"} {
			w.write(path, 3)
		}
		w.write("/in/d", 2)
		for path, want := range map[string]int64{"": 3, "/in": 2, "/c": 1, "/in/d": 0} {
			check, err := w.Check(t.Context(), cluster, path)
			require.NoError(t, err)
			require.Equal(t, want, check.FewNodes, path)
		}
	})
}
