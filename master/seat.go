package master

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"millrace/master/server"
	"millrace/pkg/client"
	"millrace/pkg/joining"
	"millrace/pkg/nodedir"
	"millrace/pkg/security"
)

// seatWithin bounds how long masters have to answer who votes: a site that is busy must not be taken for one that is gone.
const seatWithin = 10 * time.Second

// Seat is a master's place in the set, as its site has it.
type Seat struct {
	ID, Name, Site string
	Votes          bool
	Others         int // masters that vote beside it
}

// FindSeat finds the place of the master that a folder belongs to, whether it runs or not: it asks the site as that master, at the addresses
// that the folder knows and at those that are given; if nobody answers, what the folder's own log has counts, unless a process uses it. It changes nothing.
func FindSeat(ctx context.Context, dir, version string, also ...string) (*Seat, error) {
	who, err := joining.Who(dir)
	if err != nil {
		return nil, err
	}
	if who == nil {
		return nil, fmt.Errorf("%w %s", ErrNoMaster, dir)
	}
	voters, err := askVoters(ctx, seatWithin, dir, who, also)
	if err == nil && voters == nil {
		voters, err = votersOnDisk(dir, who.ID, version)
	}
	if err != nil {
		return nil, err
	}
	s := &Seat{ID: who.ID, Name: who.Name, Site: who.Site, Votes: slices.Contains(voters, who.ID), Others: len(voters)}
	if s.Votes {
		s.Others--
	}
	return s, nil
}

// opinion is what a master says of the set. The leader's counts most, then that of one who hears the leader: a master that was taken out
// of the set may not have heard of it.
type opinion struct {
	weight int      // leadersWeight: nobody knows better
	voters []string // never nil
}

const leadersWeight = 3

// askVoters gives the ids of the masters that vote; nil: nobody answers. Once the leader has, the others are not waited for.
func askVoters(ctx context.Context, within time.Duration, dir string, who *joining.Member, also []string) ([]string, error) {
	cl, err := asMaster(dir)
	if err != nil {
		return nil, err
	}
	defer cl.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	addresses := knownMasters(dir, who, also)
	said := make([]opinion, len(addresses))
	var all sync.WaitGroup
	for i, address := range addresses {
		all.Go(func() {
			if said[i] = askOne(ctx, cl, address); said[i].weight == leadersWeight {
				cancel()
			}
		})
	}
	all.Wait()
	if len(said) == 0 {
		return nil, nil
	}
	best := slices.MaxFunc(said, func(a, b opinion) int { return cmp.Compare(a.weight, b.weight) })
	return best.voters, nil
}

// knownMasters are addresses at which masters of the site may be, this one among them.
func knownMasters(dir string, who *joining.Member, also []string) []string {
	list := append(slices.Clone(also), who.Masters...)
	if admin, err := client.ReadContext(filepath.Join(dir, "admin.json")); err == nil {
		list = append(list, admin.Servers...)
	}
	var near peers
	if data, err := os.ReadFile(filepath.Join(dir, peersFile)); err == nil && json.Unmarshal(data, &near) == nil {
		list = append(list, near.Masters...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// asMaster is a client with the certificate that a master has in its folder.
func asMaster(dir string) (*http.Client, error) {
	var c security.Credential
	for name, into := range map[string]*[]byte{"cert.pem": &c.CertPEM, "key.pem": &c.KeyPEM, "ca.pem": &c.CAPEM} {
		data, err := os.ReadFile(filepath.Join(dir, "pki", name))
		if err != nil {
			return nil, err
		}
		*into = data
	}
	config, err := c.ClientTLS(security.MasterName)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, "pki"), err)
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config}}, nil
}

// askOne asks a master who votes. Its weight is 0 if it does not say.
func askOne(ctx context.Context, cl *http.Client, address string) (o opinion) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address+server.HealthPath, nil)
	if err != nil {
		return o
	}
	resp, err := cl.Do(req)
	if err != nil {
		return o
	}
	defer resp.Body.Close()
	if resp.Header.Get(client.RemovedHeader) != "" { // it has left the site for good
		return opinion{2, []string{}}
	}
	var h server.Health
	if resp.StatusCode != http.StatusOK || json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&h) != nil || len(h.Voters) == 0 {
		return o // of an earlier version, say
	}
	o = opinion{1, h.Voters}
	switch h.Raft {
	case server.RaftLeader:
		o.weight = leadersWeight
	case server.RaftFollower:
		o.weight = 2
	}
	return o
}

// votersOnDisk are the masters that vote by the log of one that does not run.
func votersOnDisk(dir, nodeID, version string) (ids []string, err error) {
	d, err := nodedir.Open(dir, version)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if _, err := os.Stat(d.Path("raft", logFile)); err != nil {
		return nil, err
	}
	bolt, err := openBolt(d.Path("raft", logFile))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, bolt.Close()) }()
	logger := newRaftLog(zap.NewNop())
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(d.Path("raft"), snapshotsKept, logger)
	if err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	config := baseConfig(raft.ServerID(nodeID))
	config.Logger = logger
	_, transport := raft.NewInmemTransport("127.0.0.1:1")
	present, err := raft.GetConfiguration(config, nopFSM{}, bolt, bolt, snapshots, transport)
	if err != nil {
		return nil, fmt.Errorf("read the set of masters: %w", err)
	}
	for _, s := range present.Servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, string(s.ID))
		}
	}
	return ids, nil
}
