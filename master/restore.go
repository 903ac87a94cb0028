package master

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"millrace/master/fsm"
	"millrace/master/server"
	"millrace/master/state"
	"millrace/pkg/joining"
	"millrace/pkg/protocol"
	"millrace/pkg/security"
)

// aloneFile says that this master begins alone: from a backup, or as the one that is left. Other masters that the state
// names are ended.
const aloneFile = "alone"

// restoringFile says that a directory without node.json is no empty one.
const restoringFile = "restoring"

// termJump is added to the term of a backup: the site may have gone on after it, and no term is ever led twice.
const termJump = 1_000_000

var (
	// ErrNotEmpty says that a directory has a master already.
	ErrNotEmpty = errors.New("the directory is a node's already")
	// ErrUnfinished says that a directory holds what a restore has left that did not come to its end.
	ErrUnfinished = errors.New("a restore into this folder was not finished: repeat it")
	// ErrNoMaster says that a directory has no master.
	ErrNoMaster = errors.New("there is no master in the directory")
)

// Restored is what a backup held.
type Restored struct {
	Node, Site string
	Jobs       int
	CreatedAt  string // of the backup
	Checked    bool   // its SHA-256 is the one at its end; backups of earlier versions have none
}

// Restore makes a master of a backup, in a directory that is empty or not there: the only one of its site, under a new id. It
// starts nothing. A directory whose restore did not come to its end is taken again, and by nobody else: a master that starts on it makes no site.
func Restore(dir, name, version string, backup io.Reader) (r *Restored, err error) {
	b, err := readBackup(backup)
	if err != nil {
		return nil, err
	}
	h, store := b.header, b.store
	if err := fsm.GoOnAlone(store); err != nil {
		return nil, err
	}
	id, err := restoredIdentity(store.View(), h, name)
	if err != nil {
		return nil, err
	}
	d, err := openDirectory(dir, version)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if known, err := d.Read("node.json"); err != nil || known != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s", ErrNotEmpty, d.Path()), err)
	}
	if err := d.Write([]byte(h.CreatedAt+"\n"), restoringFile); err != nil {
		return nil, err
	}
	if err := d.restoreLog(id, store.View(), h.Term+termJump); err != nil {
		return nil, err
	}
	if err := errors.Join(d.keepSecrets(id), d.Write([]byte(h.CreatedAt+"\n"), aloneFile)); err != nil {
		return nil, err
	}
	if err := d.WriteJSON(id.nodeFile, "node.json"); err != nil {
		return nil, err
	}
	r = b.restored()
	r.Node = id.ID
	return r, d.Remove(restoringFile)
}

// restoredIdentity is a new master of the backup's site.
func restoredIdentity(v *state.View, h server.BackupHeader, name string) (*identity, error) {
	site, ok := v.Site()
	if !ok || site.ID != h.Site {
		return nil, fmt.Errorf("%w: its state is not that of site %s", ErrBackup, h.Site)
	}
	nodeID, err := joining.NewID()
	if err != nil {
		return nil, err
	}
	if name == "" {
		if name, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("host name: %w", err)
		}
	}
	now := time.Now().UTC()
	id := &identity{nodeFile: nodeFile{ID: nodeID, Name: name, Role: state.RoleMaster, Site: site.ID, JoinedAt: now}}
	copy(id.seal[:], h.SealKey)
	key, err := id.seal.Open(site.SealedCAKey)
	if err != nil {
		return nil, fmt.Errorf("%w: site's CA key: %w", ErrBackup, err)
	}
	ca, err := security.LoadCA([]byte(site.CAPEM), key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBackup, err)
	}
	if id.gossipKey, err = id.seal.Open(site.SealedGossip); err != nil {
		return nil, fmt.Errorf("%w: site's gossip key: %w", ErrBackup, err)
	}
	if _, err := id.seal.Open(site.SealedStore); err != nil {
		return nil, fmt.Errorf("%w: site's object store: %w", ErrBackup, err)
	}
	id.credential, err = issue(ca, security.RoleMaster, nodeID, now)
	return id, err
}

// keepSecrets writes all of an identity but node.json, which makes it so.
func (d *directory) keepSecrets(id *identity) error {
	return errors.Join(
		d.Write([]byte(hex.EncodeToString(id.seal[:])+"\n"), "seal.key"),
		d.Write([]byte(hex.EncodeToString(id.gossipKey)+"\n"), "gossip.key"),
		d.Write(id.credential.CAPEM, "pki", "ca.pem"),
		d.Write(id.credential.KeyPEM, "pki", "key.pem"),
		d.Write(id.credential.CertPEM, "pki", "cert.pem"),
	)
}

// restoreLog writes the state as the snapshot that the log begins with.
func (d *directory) restoreLog(id *identity, v *state.View, term uint64) error {
	folder := d.Path("raft")
	if err := errors.Join(os.RemoveAll(folder), os.MkdirAll(folder, 0o700)); err != nil { // of a restore that was cut short
		return fmt.Errorf("restore log: %w", err)
	}
	logger := newRaftLog(zap.NewNop())
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(folder, snapshotsKept, logger)
	if err != nil {
		return fmt.Errorf("restore log: %w", err)
	}
	self := onlyMaster(raft.ServerID(id.ID), "127.0.0.1:1") // its address is taken up when it starts
	_, transport := raft.NewInmemTransport(self.Servers[0].Address)
	sink, err := snapshots.Create(raft.SnapshotVersionMax, max(v.Index(), 1), term, self, max(v.Index(), 1), transport)
	if err != nil {
		return fmt.Errorf("restore log: %w", err)
	}
	if err := v.Persist(sink); err != nil {
		return errors.Join(fmt.Errorf("restore log: %w", err), sink.Cancel())
	}
	if err := sink.Close(); err != nil {
		return fmt.Errorf("restore log: %w", err)
	}
	bolt, err := openBolt(filepath.Join(folder, logFile))
	if err != nil {
		return err
	}
	// As raft writes it: the next election is for a later term.
	return errors.Join(bolt.SetUint64([]byte("CurrentTerm"), term), bolt.Close())
}

func onlyMaster(id raft.ServerID, address raft.ServerAddress) raft.Configuration {
	return raft.Configuration{Servers: []raft.Server{{ID: id, Address: address}}}
}

// Recover makes a stopped master the only one of its site, with all that its log holds, whether a majority had it or not: for
// when the majority is lost for good. The others must never be started again. It gives the node's id.
func Recover(dir, version string, log *zap.Logger) (nodeID string, err error) {
	if _, err := os.Stat(filepath.Join(dir, "node.json")); err != nil {
		return "", fmt.Errorf("%w %s", ErrNoMaster, dir)
	}
	d, err := openDirectory(dir, version)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	var node nodeFile
	if _, err := d.ReadJSON(&node, "node.json"); err != nil {
		return "", err
	}
	if node.Role != state.RoleMaster {
		return "", fmt.Errorf("%w %s: it is a worker's", ErrNoMaster, d.Path())
	}
	if _, err := os.Stat(d.Path("raft", logFile)); err != nil {
		return "", fmt.Errorf("%w %s that has a log: %w", ErrNoMaster, d.Path(), err)
	}
	logger := newRaftLog(log)
	bolt, err := openBolt(d.Path("raft", logFile))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, bolt.Close()) }()
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(d.Path("raft"), snapshotsKept, logger)
	if err != nil {
		return "", fmt.Errorf("open snapshots: %w", err)
	}
	config := baseConfig(raft.ServerID(node.ID))
	config.Logger = logger
	self := onlyMaster(config.LocalID, "127.0.0.1:1")
	_, transport := raft.NewInmemTransport(self.Servers[0].Address)
	if err := readable(d.Path("raft"), protocol.Own("millrace-master/"+version), bolt, snapshots); err != nil {
		return "", err
	}
	if err := d.Write([]byte("recovered\n"), aloneFile); err != nil {
		return "", err
	}
	if err := raft.RecoverCluster(config, fsm.Alone(fsm.New(state.New(), log, func(error) {})), bolt, bolt, snapshots, transport, self); err != nil {
		return "", fmt.Errorf("recover the log: %w", err)
	}
	return node.ID, nil
}
