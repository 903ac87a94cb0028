package master

import (
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// plain is a raft.StreamLayer without TLS.
type plain struct{ net.Listener }

func (plain) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", string(address), timeout)
}

// sulking is a log that refuses entries now and then, as on a disk that is full for a moment.
type sulking struct {
	*raft.InmemStore
	calls atomic.Int64
	over  atomic.Bool
}

func (s *sulking) StoreLogs(logs []*raft.Log) error {
	if s.calls.Add(1)%3 == 0 && !s.over.Load() {
		return errors.New("no space left on device")
	}
	return s.InmemStore.StoreLogs(logs)
}

// TestAFollowerThatRefusedEntriesIsSentThemAgain, by the same leader: else it would look well, and miss all that comes after.
func TestAFollowerThatRefusedEntriesIsSentThemAgain(t *testing.T) {
	open := func(id string, logs raft.LogStore, stable raft.StableStore, others ...raft.Server) (*raft.Raft, raft.ServerAddress) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		transport := newTransport(plain{l}, hclog.NewNullLogger())
		config := baseConfig(raft.ServerID(id))
		config.Logger = hclog.NewNullLogger()
		snapshots := raft.NewInmemSnapshotStore()
		if others != nil {
			set := raft.Configuration{Servers: append(others, raft.Server{ID: raft.ServerID(id), Address: transport.LocalAddr()})}
			require.NoError(t, raft.BootstrapCluster(config, logs, stable, snapshots, transport, set))
		}
		r, err := raft.NewRaft(config, nopFSM{}, logs, stable, snapshots, transport)
		require.NoError(t, err)
		t.Cleanup(func() {
			ended := make(chan error, 1)
			go func() { ended <- r.Shutdown().Error() }() // a sender that waits for itself never ends
			select {
			case err := <-ended:
				require.NoError(t, err)
			case <-time.After(time.Minute):
				t.Error(id + " does not shut down")
			}
			require.NoError(t, transport.Close())
		})
		return r, transport.LocalAddr()
	}
	log := &sulking{InmemStore: raft.NewInmemStore()}
	follower, address := open("follower", log, log)
	own := raft.NewInmemStore()
	leader, _ := open("leader", own, own, raft.Server{ID: "follower", Address: address, Suffrage: raft.Nonvoter})
	require.True(t, <-leader.LeaderCh())
	until := time.Now().Add(20 * time.Second)
	for log.calls.Load() < 90 && time.Now().Before(until) { // so that it refuses thirty times
		for range 30 { // some requests are under way when one is refused
			leader.Apply([]byte("entry"), time.Minute)
		}
		require.NoError(t, leader.Apply([]byte("entry"), time.Minute).Error())
	}
	log.over.Store(true)
	require.NoError(t, leader.Apply([]byte("the last"), time.Minute).Error())
	require.Eventually(t, func() bool { return follower.LastIndex() == leader.LastIndex() }, time.Minute, 10*time.Millisecond)
}
