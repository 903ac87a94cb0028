package master

import (
	"time"

	"millrace/master/files"
	"millrace/master/fleet"
	"millrace/master/fsm"
	"millrace/master/server"
	"millrace/master/state"
	"millrace/master/tracker"
	"millrace/pkg/userdata"
)

// newFleet makes what brings clusters to the size that they are to have, for one term.
func (m *Master) newFleet(l *leader, stored *files.Files, jobs *tracker.Tracker) (*fleet.Fleet, error) {
	return fleet.New(fleet.Config{
		View: m.store.View, Apply: m.entries.Apply, Known: func() bool { return fsm.MayHoldFleets(m.store.View().Protocol()) },
		Sessions: l.registry, Jobs: jobs, Blocks: stored, Settled: l.settled, Digest: bootstrapDigest,
		Providers: m.cfg.Providers, Default: m.cfg.DefaultProvider, Seal: m.id.seal, Masters: m.masterAddresses, NewID: server.NewID, Log: m.cfg.Log,
		UserData: m.userData,
	})
}

// userData is the script that makes a fresh machine the node that a provider is asked for.
func (m *Master) userData(r fleet.Request, site *state.Site) (string, error) {
	sums, err := m.server.BinarySums()
	if err != nil {
		return "", err
	}
	within := fleet.DefaultRules().JoinWithin
	return userdata.Script(userdata.Spec{
		Masters: r.Masters, Token: r.Token, CAPEM: site.CAPEM, Binaries: sums, What: "a " + r.Role + " node of cluster " + r.ClusterName,
		Expires: time.Now().Add(within), Patience: within, Dir: "/var/lib/millrace",
	})
}

// masterAddresses are where new nodes find the masters, this one first.
func (m *Master) masterAddresses() []string {
	list := []string{m.address}
	for _, n := range m.store.View().Nodes("") {
		if n.InSet() && n.Address != "" && n.Address != m.address {
			list = append(list, n.Address)
		}
	}
	return list
}
