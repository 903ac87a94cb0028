package files

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
	"millrace/hdfs/blockmanager"
	"millrace/hdfs/namespace"
	"millrace/master/state"
	"millrace/pkg/api"
)

// ledger is a log that is applied at once, and remembers what was logged.
type ledger struct {
	*testing.T
	state *state.Store
	now   time.Time
	said  []state.Command
}

func newLedger(t *testing.T) *ledger {
	l := &ledger{T: t, state: state.New(), now: time.Unix(1_800_000_000, 0)}
	l.do(state.CreateSite{Site: state.Site{ID: "site"}, Cluster: state.Cluster{ID: "j-1", Name: "default", Groups: []state.Group{{ID: "ig-c", Role: state.RoleCore}}}})
	l.do(state.PutNode{Node: state.Node{ID: "old", Cluster: "j-1", Group: "ig-c", Role: state.RoleCore}})
	l.do(state.PutNode{Node: state.Node{ID: "new", Cluster: "j-1", Group: "ig-c", Role: state.RoleCore}})
	return l
}

func (l *ledger) apply(_ context.Context, c state.Command) (any, error) {
	l.said = append(l.said, c)
	return l.state.Apply(uint64(len(l.said)), c)
}

func (l *ledger) do(c state.Command) {
	l.Helper()
	_, err := l.apply(l.Context(), c)
	require.NoError(l, err)
}

func (l *ledger) files() *Files {
	return New(Config{View: l.state.View, Apply: l.apply, Now: func() time.Time { return l.now }, TrashAge: time.Hour})
}

// TestACoreNodeOfBeforeTheBlockStoreIsNoPlaceForBlocks: it would refuse them, and nothing would be repaired while its report is
// waited for.
func TestACoreNodeOfBeforeTheBlockStoreIsNoPlaceForBlocks(t *testing.T) {
	f := newLedger(t).files()
	write := blockmanager.Write{Block: 1, Size: hdfs.DefaultBlockSize, Count: 2}
	f.Up("old", &api.WorkerHello{Address: "https://old", Protocol: storesSince - 1})
	_, err := f.manager("j-1").Targets(write)
	require.ErrorIs(t, err, hdfs.ErrNoNodes)
	f.Up("new", &api.WorkerHello{Address: "https://new", Protocol: storesSince})
	nodes, err := f.manager("j-1").Targets(write)
	require.NoError(t, err)
	require.Equal(t, []hdfs.Node{{ID: "new", Address: "https://new"}}, nodes)
}

// TestManyLeasesEndInSmallEntries, as do many uploads: the log takes no large ones.
func TestManyLeasesEndInSmallEntries(t *testing.T) {
	const many = 2*leasesPerEntry + 1
	l := newLedger(t)
	for i := range many {
		l.do(namespace.CreateFile{Cluster: "j-1", Path: fmt.Sprintf("/%d", i), Lease: rand.Text()})
	}
	f := l.files()
	for range 3 {
		f.expireLeases(t.Context(), "j-1", f.manager("j-1"))
		for range 6 { // renewals may come in between
			l.now = l.now.Add(10 * time.Second)
			f.expireLeases(t.Context(), "j-1", f.manager("j-1"))
		}
	}
	ended := 0
	for _, c := range l.said {
		if e, ok := c.(namespace.ExpireLeases); ok {
			require.LessOrEqual(t, len(e.Leases), leasesPerEntry)
			ended += len(e.Leases)
		}
	}
	require.Equal(t, many, ended)

	ids := make([]hdfs.FileID, idsPerEntry+1)
	l.said = nil
	require.NoError(t, f.Names("j-1", "", "").AbortUploads(t.Context(), "s-1", ids))
	require.Len(t, l.said, 2)
	l.said = nil
	require.NoError(t, f.Names("j-1", "", "").AbortUploads(t.Context(), "s-1", nil))
	require.Equal(t, []state.Command{namespace.AbortUploads{Cluster: "j-1", Group: "s-1"}}, l.said)
}

// TestTheTrashIsEmptiedByItsAge, and of what one cannot tell the age of is nobody's business.
func TestTheTrashIsEmptiedByItsAge(t *testing.T) {
	l := newLedger(t)
	f := l.files()
	names := f.Names("j-1", "", "")
	require.NoError(t, names.Mkdir(t.Context(), "/old"))
	require.NoError(t, names.Mkdir(t.Context(), "/young"))
	require.NoError(t, names.Mkdir(t.Context(), trash+"/kept by hand"))
	_, err := f.Discard(t.Context(), "j-1", "/old", false, false)
	require.NoError(t, err)
	l.now = l.now.Add(59 * time.Minute)
	young, err := f.Discard(t.Context(), "j-1", "/young", false, false)
	require.NoError(t, err)
	f.emptyTrash(t.Context())
	in, err := names.List(t.Context(), trash, "", 10)
	require.NoError(t, err)
	require.Len(t, in, 3)
	l.now = l.now.Add(time.Minute)
	f.emptyTrash(t.Context())
	in, err = names.List(t.Context(), trash, "", 10)
	require.NoError(t, err)
	require.Len(t, in, 2)
	_, err = names.Stat(t.Context(), young)
	require.NoError(t, err)
}

// TestWhatTheLogTakesNotYetIsNotAskedForAgain: it would be, for as long as a client has patience, of a leader that is not available.
func TestWhatTheLogTakesNotYetIsNotAskedForAgain(t *testing.T) {
	l := newLedger(t)
	for err, unavailable := range map[error]bool{errors.New("no leader"): true, fmt.Errorf("%w: upgrade the masters", ErrTooSoon): false} {
		f := New(Config{View: l.state.View, Apply: func(context.Context, state.Command) (any, error) { return nil, err }})
		got := f.Names("j-1", "", "").Mkdir(t.Context(), "/x")
		require.ErrorIs(t, got, err)
		require.Equal(t, unavailable, errors.Is(got, hdfs.ErrUnavailable))
	}
}

// TestOneFileAloneIsRemoved, whether the log takes the condition, or not yet.
func TestOneFileAloneIsRemoved(t *testing.T) {
	for _, early := range []bool{false, true} {
		l := newLedger(t)
		f := New(Config{View: l.state.View, Now: func() time.Time { return l.now }, Apply: func(ctx context.Context, c state.Command) (any, error) {
			if r, ok := c.(namespace.Remove); ok && r.File != 0 && early {
				return nil, fmt.Errorf("%w: upgrade the masters", ErrTooSoon)
			}
			return l.apply(ctx, c)
		}})
		names := f.Names("j-1", "", "")
		put := func() hdfs.FileID {
			id, err := names.Create(t.Context(), hdfs.Create{Path: "/a", Lease: "mine", Overwrite: true})
			require.NoError(t, err)
			_, err = names.Complete(t.Context(), id, "mine", nil)
			require.NoError(t, err)
			return id
		}
		old, newer := put(), put()
		err := names.RemoveIf(t.Context(), "/a", old)
		require.ErrorIs(t, err, hdfs.ErrChanged)
		require.EqualError(t, err, "remove hdfs:///a: is another file by now")
		_, err = names.Stat(t.Context(), "/a")
		require.NoError(t, err)
		require.NoError(t, names.RemoveIf(t.Context(), "/a", newer))
		require.ErrorIs(t, names.RemoveIf(t.Context(), "/a", newer), hdfs.ErrNotExist)
		require.ErrorIs(t, names.RemoveIf(t.Context(), "/../a", newer), hdfs.ErrInvalid)
		_, err = names.Stat(t.Context(), trash)
		require.ErrorIs(t, err, hdfs.ErrNotExist, "it is gone for good")
	}
}

// TestAPipelineWhoseNodesAreNotUpYetIsAskedForAgain: a leader that has just begun knows none, and the writer waits for ErrNoNodes alone.
func TestAPipelineWhoseNodesAreNotUpYetIsAskedForAgain(t *testing.T) {
	l := newLedger(t)
	f := l.files()
	f.Up("new", &api.WorkerHello{Address: "https://new", Protocol: storesSince})
	names := f.Names("j-1", "", "")
	id, err := names.Create(t.Context(), hdfs.Create{Path: "/x", Lease: "mine"})
	require.NoError(t, err)
	first, err := names.AddBlock(t.Context(), id, "mine", nil, nil)
	require.NoError(t, err)

	f = l.files() // another leader
	names = f.Names("j-1", "", "")
	_, err = names.Restamp(t.Context(), id, "mine", first.Block, []string{"new"})
	require.ErrorIs(t, err, hdfs.ErrNoNodes)
	require.ErrorContains(t, err, "none of new is up")
	f.Up("new", &api.WorkerHello{Address: "https://new", Protocol: storesSince})
	again, err := names.Restamp(t.Context(), id, "mine", first.Block, []string{"new"})
	require.NoError(t, err)
	require.Equal(t, []hdfs.Node{{ID: "new", Address: "https://new"}}, again.Nodes)
	require.Equal(t, first.Stamp+1, again.Stamp, "the stamp of the first try")
}

// TestABlockForWhichNoNodeIsUpYetIsAskedForAgain: a leader that has just begun says so, and not that there is none.
func TestABlockForWhichNoNodeIsUpYetIsAskedForAgain(t *testing.T) {
	f := newLedger(t).files()
	names := f.Names("j-1", "", "")
	id, err := names.Create(t.Context(), hdfs.Create{Path: "/x", Lease: "mine"})
	require.NoError(t, err)
	_, err = names.AddBlock(t.Context(), id, "mine", nil, nil)
	require.ErrorIs(t, err, hdfs.ErrUnavailable)
	require.ErrorContains(t, err, "not all core nodes have come to this leader yet")
	f.Up("new", &api.WorkerHello{Address: "https://new", Protocol: storesSince})
	at, err := names.AddBlock(t.Context(), id, "mine", nil, nil)
	require.NoError(t, err)
	require.Len(t, at.Nodes, 1)
}
