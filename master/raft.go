package master

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	"go.uber.org/zap"

	"millrace/pkg/protocol"
	"millrace/pkg/security"
)

const (
	logFile           = "log.db"
	snapshotsKept     = 2
	snapshotThreshold = 8192     // entries
	snapshotBytes     = 64 << 20 // of entries: a snapshot is made when the log has grown by so much, however few they are
	trailingLogs      = 1024     // kept after a snapshot, so that a follower that is a little behind needs no snapshot
	snapshotInterval  = 30 * time.Second
	raftTimeout       = 5 * time.Second

	// electionTimeout: a leader is missed after it. Heartbeats go ten times as often.
	electionTimeout = 500 * time.Millisecond
)

type raftConfig struct {
	id         raft.ServerID
	dir        string
	listen     string
	advertise  string
	dial       dialer
	credential *security.Live
	first      bool // the first start of the site: bootstrap
	joining    bool // the first start of a further master: the leader gives it the log
	fsm        raft.FSM
	binary     protocol.Speaker // this one
	log        *zap.Logger
	faults     faults

	snapshotBytes int64 // 0: the constant
}

// faults are put under what Raft writes to, in tests.
type faults struct {
	log       func(logFiles) logFiles
	snapshots func(raft.SnapshotStore) raft.SnapshotStore
}

// raftNode is Raft with what it stands on.
type raftNode struct {
	*raft.Raft
	id        raft.ServerID
	address   raft.ServerAddress
	files     logFiles
	disk      *disk // files, as Raft writes them
	logs      *sizedLogs
	transport *raft.NetworkTransport
}

// openRaft opens log, snapshots and transport, bootstraps a new site, and starts Raft.
func openRaft(ctx context.Context, c raftConfig) (node *raftNode, err error) {
	layer, err := openLayer(ctx, c.listen, c.advertise, c.dial, c.credential, c.log)
	if err != nil {
		return nil, err
	}
	n := &raftNode{id: c.id, address: raft.ServerAddress(layer.advertise)}
	logger := newRaftLog(c.log.Named("raft"))
	n.transport = newTransport(layer, logger)
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	snapshots, err := n.openFiles(c, logger)
	if err != nil {
		return nil, err
	}
	n.logs = newSizedLogs(n.disk, cmp.Or(c.snapshotBytes, snapshotBytes))
	logs, err := raft.NewLogCache(512, n.logs)
	if err != nil {
		return nil, fmt.Errorf("open log cache: %w", err)
	}
	config := baseConfig(c.id)
	config.Logger = logger
	known, err := raft.HasExistingState(n.files, n.files, snapshots)
	if err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	switch {
	case known || c.joining:
	case !c.first:
		// It may have voted, and promised to remember what it cannot any more.
		return nil, fmt.Errorf("the log in %s is gone, but the node is not new: where other masters have it, take this one out of the set (millrace master remove) and join with an empty folder; else restore it from a backup", c.dir)
	default:
		only := raft.Configuration{Servers: []raft.Server{{ID: c.id, Address: n.address}}}
		if err := raft.BootstrapCluster(config, n.files, n.files, snapshots, n.transport, only); err != nil {
			return nil, fmt.Errorf("start log: %w", err)
		}
	}
	alone, err := isAlone(config, c, n, snapshots)
	if err != nil {
		return nil, err
	}
	if n.Raft, err = raft.NewRaft(config, c.fsm, logs, n.disk, snapshots, n.transport); err != nil {
		return nil, fmt.Errorf("start raft: %w", err)
	}
	if alone {
		n.stand(config, c.log)
	}
	return n, nil
}

// openFiles opens what Raft writes to, if this binary can read what is there.
func (n *raftNode) openFiles(c raftConfig, logger hclog.Logger) (raft.SnapshotStore, error) {
	bolt, err := openBolt(filepath.Join(c.dir, logFile))
	if err != nil {
		return nil, err
	}
	n.files = bolt
	var store raft.SnapshotStore
	if store, err = raft.NewFileSnapshotStoreWithLogger(c.dir, snapshotsKept, logger); err != nil {
		return nil, fmt.Errorf("open snapshots in %s: %w", c.dir, err)
	}
	if err := readable(c.dir, c.binary, n.files, store); err != nil {
		return nil, err
	}
	if c.faults.log != nil {
		n.files = c.faults.log(n.files)
	}
	if c.faults.snapshots != nil {
		store = c.faults.snapshots(store)
	}
	n.disk = newDisk(n.files, c.log)
	snapshots, err := openSnapshots(c.dir, n.disk, store)
	if err != nil {
		return nil, fmt.Errorf("open snapshots in %s: %w", c.dir, err)
	}
	return snapshots, nil
}

// newTransport makes Raft's transport. It sends a follower one request after the other: with several under way, Raft 1.7 can
// come to wait for itself when one of them is refused (a disk that was full for a moment), and goes on to send heartbeats and never
// again an entry to that follower. Entries that wait share a request, so that little is lost.
func newTransport(stream raft.StreamLayer, logger hclog.Logger) *raft.NetworkTransport {
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: stream, MaxPool: 3, Timeout: raftTimeout, Logger: logger, MaxRPCsInFlight: 1,
	})
}

// stand has a master that is alone elect itself at once: there is nobody's heartbeat to wait for.
func (n *raftNode) stand(config *raft.Config, log *zap.Logger) {
	now := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: config.ProtocolVersion, ID: []byte(n.id), Addr: []byte(n.address)}}
	if err := n.transport.TimeoutNow(n.id, n.address, now, &raft.TimeoutNowResponse{}); err != nil {
		log.Info("the election waits for its time-out", zap.Error(err)) // half a second, no more
	}
}

func baseConfig(id raft.ServerID) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = id
	c.HeartbeatTimeout = electionTimeout
	c.ElectionTimeout = electionTimeout
	c.LeaderLeaseTimeout = electionTimeout
	c.CommitTimeout = 10 * time.Millisecond
	c.SnapshotThreshold = snapshotThreshold
	c.SnapshotInterval = snapshotInterval
	c.TrailingLogs = trailingLogs
	c.ShutdownOnRemove = false // it can be taken back
	c.BatchApplyCh = true      // entries that come together share one fsync
	return c
}

// isAlone says whether this node is the only master, by its own log.
func isAlone(config *raft.Config, c raftConfig, n *raftNode, snapshots raft.SnapshotStore) (bool, error) {
	reading := *config // GetConfiguration marks it as not to be started with
	present, err := raft.GetConfiguration(&reading, nopFSM{}, n.files, n.files, snapshots, n.transport)
	if err != nil {
		return false, fmt.Errorf("read the set of masters: %w", err)
	}
	return len(present.Servers) == 1 && present.Servers[0].ID == c.id, nil
}

// openBolt opens the log's file. Every entry is fsynced; the list of free pages is not
// written with it but found again at the start, which halves what an entry writes.
func openBolt(path string) (*raftboltdb.BoltStore, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	store, err := raftboltdb.New(raftboltdb.Options{
		Path: path,
		BoltOptions: &bbolt.Options{
			Timeout:        2 * time.Second, // the directory's lock has been taken: nobody should have it
			NoFreelistSync: true,
			FreelistType:   bbolt.FreelistMapType,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("open log %s: %w", path, err)
	}
	return store, nil
}

// close stops Raft and closes what it stood on.
func (n *raftNode) close() error {
	var errs []error
	if n.disk != nil {
		n.disk.abandon()
	}
	if n.Raft != nil {
		errs = append(errs, n.Raft.Shutdown().Error())
	}
	if n.transport != nil {
		errs = append(errs, ignoreClosed(n.transport.Close()))
	}
	if n.files != nil {
		errs = append(errs, n.files.Close())
	}
	return errors.Join(errs...)
}

// claimAddress brings the set of masters up to date after a restart on another port. On the leader only.
func (n *raftNode) claimAddress() error {
	self, known, err := n.member(n.id)
	if err != nil || known && self.Address == n.address {
		return err
	}
	return n.vote(n.id, n.address)
}

// servers is the set of masters as the log has it.
func (n *raftNode) servers() ([]raft.Server, error) {
	future := n.GetConfiguration()
	if err := future.Error(); err != nil {
		return nil, fmt.Errorf("read the set of masters: %w", err)
	}
	return future.Configuration().Servers, nil
}

func (n *raftNode) member(id raft.ServerID) (raft.Server, bool, error) {
	servers, err := n.servers()
	if err != nil {
		return raft.Server{}, false, err
	}
	i := slices.IndexFunc(servers, func(s raft.Server) bool { return s.ID == id })
	if i < 0 {
		return raft.Server{}, false, nil
	}
	return servers[i], true, nil
}

// learn has a master given the log, without a vote.
func (n *raftNode) learn(id raft.ServerID, address raft.ServerAddress) error {
	return changed("add", id, n.AddNonvoter(id, address, 0, raftTimeout))
}

// vote gives a master a vote, or its vote another address.
func (n *raftNode) vote(id raft.ServerID, address raft.ServerAddress) error {
	return changed("add", id, n.AddVoter(id, address, 0, raftTimeout))
}

func (n *raftNode) expel(id raft.ServerID) error {
	return changed("remove", id, n.RemoveServer(id, 0, raftTimeout))
}

func changed(what string, id raft.ServerID, f raft.IndexFuture) error {
	if err := f.Error(); err != nil {
		return fmt.Errorf("%s master %s: %w", what, id, err)
	}
	return nil
}
