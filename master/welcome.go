package master

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"go.uber.org/zap"

	"millrace/master/session"
	"millrace/master/state"
	"millrace/pkg/api"
)

// welcome tells a worker where it is. What it needs for the work of a cluster, a free node of the pool does not get.
func (m *Master) welcome(term uint64, n *state.Node) *api.SessionWelcome {
	w := &api.SessionWelcome{Term: term, Cluster: n.Cluster, Role: n.Role, LeaseMs: session.DefaultLease.Milliseconds()}
	if n.Cluster == "" {
		return w
	}
	if c, ok := m.store.View().Cluster(n.Cluster); ok {
		w.ClusterName = c.Name
		if n.Bootstrap != state.BootstrapDone { // else they may be others by now
			w.BootstrapActions, w.BootstrapDigest = actionsOf(c), bootstrapDigest(c)
		}
	}
	settings, prefix, err := m.stores.site()
	if err != nil { // the seal key does not fit: nothing at all works then, and the log says so
		m.log.Error("site's object store cannot be read", zap.Error(err))
		return w
	}
	w.Store, w.SystemPrefix = settings, prefix
	return w
}

func actionsOf(c *state.Cluster) (list []*api.BootstrapAction) {
	for _, a := range c.Bootstrap {
		list = append(list, &api.BootstrapAction{Name: a.Name, Url: a.URL, Args: a.Args, Sha256: a.SHA256, TimeoutMs: a.TimeoutMs})
	}
	return list
}

// bootstrapDigest tells a cluster's bootstrap actions from all others; "" if there are none.
func bootstrapDigest(c *state.Cluster) string {
	if len(c.Bootstrap) == 0 {
		return ""
	}
	data, err := json.Marshal(c.Bootstrap)
	if err != nil {
		panic(err) // strings and numbers
	}
	sum := sha256.Sum256(fmt.Appendf(data, " %s", c.ID))
	return hex.EncodeToString(sum[:])
}
