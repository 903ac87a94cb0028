package master

import (
	"context"
	"time"

	"go.uber.org/zap"

	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/protocol"
)

// believedFor is how long what a master said of itself counts for a decision that cannot be taken back.
const believedFor = 3 * reannounce

// fits refuses a master that could not read the log, or would write into it what the others cannot read.
func (c *masters) fits(a *api.AnnounceRequest) error {
	them := protocol.Speaker{Name: "millrace-master/" + a.Version, Speaks: max(1, int(a.Protocol)), Oldest: max(1, int(a.OldestProtocol))}
	return them.Joins("the site of "+c.m.cfg.binary.Name, c.m.store.View().Protocol())
}

// rise makes the site use the latest protocol that everybody reads who gets the log, once each has said just now, to this
// leader, which one that is. From then on there is no way back to an older version. m.changes is held: nobody joins meanwhile.
func (m *Master) rise(ctx context.Context) error {
	servers, err := m.raft.servers()
	if err != nil {
		return err
	}
	uses, least := m.store.View().Protocol(), m.cfg.binary.Speaks
	for _, s := range servers {
		h := (&masters{m}).LastHeard(string(s.ID))
		if time.Since(h.At) > believedFor {
			return nil
		}
		least = min(least, h.Protocol)
	}
	if least <= uses {
		return nil
	}
	if err := m.entries.Raise(ctx, least); err != nil {
		return err
	}
	m.log.Info("every master reads a later protocol: the site uses it from now on", zap.Int("protocol", least), zap.Int("before", uses))
	return m.settleSelf(ctx)
}

// noteProtocol puts what a master speaks into its record, as soon as every master can read that.
func (m *Master) noteProtocol(n *state.Node, speaks int) {
	if m.store.View().Protocol() > 1 {
		n.Protocol = speaks
	}
}
