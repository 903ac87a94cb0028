package blockmanager

import (
	"slices"
	"time"
)

// lease is the right to write a file, as long as its writer renews it.
type lease struct {
	until moment
	over  bool // the caller was told to end it: renewals come too late
	who   string
	heard moment // when it was renewed; 0: not since this term began
}

// Renew keeps leases for another term, and gives back those that are over. Who has them is for people alone.
func (m *Manager) Renew(who string, leases []string) (over []string) {
	defer m.lock()()
	for _, name := range leases {
		l, known := m.leases[name]
		if known && l.over || !m.cfg.Names.HasLease(name) {
			over = append(over, name)
			continue
		}
		m.leases[name] = lease{until: m.now + m.cfg.LeaseTerm, who: who, heard: m.now}
	}
	return over
}

// Writer is who has a lease.
type Writer struct {
	Who   string        // "" if it has not been heard of since this term began
	Heard time.Duration // since then; since this term began if Who is ""
	Left  time.Duration // until its lease is over, unless it is heard of
}

// Writer tells who has a lease, as far as this leader knows.
func (m *Manager) Writer(name string) Writer {
	defer m.lock()()
	l, known := m.leases[name]
	if !known {
		l.until = m.now + m.cfg.LeaseTerm
	}
	return Writer{Who: l.who, Heard: m.now - l.heard, Left: max(0, l.until-m.now)}
}

// ExpiredLeases lists the leases in the log that are over, for the caller to log it; those whose end was not logged are
// listed again. To be called every few seconds: a lease that is seen for the first time, and any after a pause in which
// renewals may have waited, has a full term before it.
func (m *Manager) ExpiredLeases() []string {
	defer m.lock()()
	paused := m.now-m.renewing > m.cfg.LeaseTerm/4
	m.renewing = m.now
	kept := map[string]lease{}
	var out []string
	for name := range m.cfg.Names.Leases() {
		l, known := m.leases[name]
		switch {
		case l.over:
		case !known:
			l.until = m.now + m.cfg.LeaseTerm
		case paused:
			l.until = max(l.until, m.now+m.cfg.LeaseTerm)
		case m.now >= l.until:
			l.over = true
		}
		if l.over {
			out = append(out, name)
		}
		kept[name] = l
	}
	m.leases = kept
	slices.Sort(out)
	return out
}
