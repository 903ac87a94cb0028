package cli

import (
	"cmp"
	"context"
	"fmt"

	"millrace/master"
)

// maySpareMaster refuses, before anything is changed, to take away a master on whose vote others count: of two masters the one that is left could
// acknowledge nothing, and take nobody out of the set.
func (m *machine) maySpareMaster(ctx context.Context, out *uninstalled) error {
	dir := m.nodeDir("master")
	if n, err := m.node("master"); err != nil || n == nil || m.c.Bool("force") {
		return nil // a folder that says nothing is uninstall's matter
	}
	seat, err := master.FindSeat(ctx, dir, Version, "https://127.0.0.1"+masterListen)
	mind, err := spareMaster(seat, err, dir, m.c.Bool("data"))
	if mind != "" {
		out.Mind = append(out.Mind, mind)
	}
	return err
}

// spareMaster says what it means for a site that one of its masters is taken away, or why it must not be. unknown: its seat could not be found.
func spareMaster(s *master.Seat, unknown error, dir string, data bool) (mind string, err error) {
	switch {
	case unknown != nil:
		return fmt.Sprintf("it could not be told whether the site's other masters, if there are any, count on this one (%s); if they do, they need: millrace master remove", unknown), nil
	case !s.Votes:
		return "", nil
	case s.Others > 0:
		name := cmp.Or(s.Name, s.ID)
		return "", usagef(fmt.Sprintf("on a machine with a context: millrace master remove %s; then repeat this (where no leader can be elected, start the other masters first; if the site is gone for good: millrace uninstall --force)", name),
			"this machine's master %s (%s) is one of the %d that vote in site %s: the others count on it", name, s.ID, s.Others+1, s.Site)
	case data:
		return fmt.Sprintf("it was the only master of site %s, which is gone: its users, its clusters, what it knew of jobs, the names of all files in hdfs://; what is in the object store stays", s.Site), nil
	}
	return fmt.Sprintf("it was the only master of site %s: nobody answers its nodes and people until it runs again; all that the site knows is in %s", s.Site, dir), nil
}
