package master

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"millrace/pkg/client"
	"millrace/pkg/objectstore"
)

func due(s *sizedLogs) bool {
	select {
	case <-s.full:
		return true
	default:
		return false
	}
}

func entryOf(index uint64, bytes int) *raft.Log {
	return &raft.Log{Index: index, Data: make([]byte, bytes)}
}

func TestALongLogIsNoticed(t *testing.T) {
	s := newSizedLogs(raft.NewInmemStore(), 100)
	require.NoError(t, s.StoreLog(entryOf(1, 99)))
	require.False(t, due(s))
	require.NoError(t, s.StoreLogs([]*raft.Log{entryOf(2, 1), entryOf(3, 0)}))
	require.True(t, due(s))
	require.NoError(t, s.StoreLogs([]*raft.Log{entryOf(4, 50), entryOf(5, 49)}))
	require.False(t, due(s), "it counts anew")
	require.NoError(t, s.StoreLogs([]*raft.Log{entryOf(6, 1)}))
	require.NoError(t, s.StoreLogs([]*raft.Log{entryOf(7, 1000)}))
	require.True(t, due(s))
	require.False(t, due(s), "one snapshot is enough for both")

	broken := newSizedLogs(brokenLogs{}, 1)
	require.Error(t, broken.StoreLog(entryOf(1, 10)))
	require.False(t, due(broken), "what was not stored does not count")
}

type brokenLogs struct{ raft.LogStore }

func (brokenLogs) StoreLogs([]*raft.Log) error { return errors.New("disk full") }

// Few entries that are long make a snapshot, as many short ones do, on every master.
func TestSnapshotsAreMadeByTheSizeOfTheLog(t *testing.T) {
	c := testConfig(t, t.TempDir(), objectstore.NewMemory())
	c.snapshotBytes = 4 << 10
	s := &site{t: t, store: objectstore.NewMemory()}
	m := openMaster(t, c)
	s.masters = []*Master{m}
	var err error
	s.admin, err = client.ReadContext(m.dir.Path("admin.json"))
	require.NoError(t, err)
	snapshotted := func() bool { return m.raft.Stats()["last_snapshot_index"] != "0" }
	for n := 0; n < 100 && !snapshotted(); n++ {
		s.token("core")
	}
	s.eventually("there is a snapshot", snapshotted)
	require.Less(t, m.raft.LastIndex(), uint64(snapshotThreshold), "there are not enough entries to make one by their number")
	require.NoError(t, m.Close())

	c.Store = nil
	again := openMaster(t, c)
	require.NotEmpty(t, again.store.View().Tokens(), "it goes on from the snapshot")
}
