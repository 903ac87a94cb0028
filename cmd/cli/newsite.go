package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"millrace/cmd/cli/devcluster"
	"millrace/master"
	"millrace/pkg/client"
)

// checkNewSite refuses to make a site where a context has a master of one already: its disk may not be mounted, and nodes and people would find
// another site at its address. It is for masters that people run: what dev starts has no folder but dev's, whose context is of the cluster before.
func (c *call) checkNewSite() error {
	dir, err := c.roleDir()
	if err != nil {
		return err
	}
	if len(c.StringSlice("join")) > 0 || c.String("token") != "" || c.env.Getenv(devcluster.LifelineEnv) != "" {
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, "node.json")); !errors.Is(err, fs.ErrNotExist) {
		return nil // it is somebody; what else is wrong with the folder the master says itself
	}
	address := master.AddressOf(c.String("listen"), c.String("advertise"))
	name, site := c.masterAt(address)
	if site == "" {
		return nil
	}
	return usagef("mount it and repeat this; if the folder is lost, with another master left: millrace master run --join URL --token TOKEN, with none left: millrace master restore; for a new site: millrace context remove "+name,
		"%s holds no master yet, and the context %s has %s as a master of site %s: is the folder's disk mounted?", dir, name, address, site)
}

// masterAt finds a context of a site with a master at an address. What cannot be read names none.
func (c *call) masterAt(address string) (name, site string) {
	home, err := c.home()
	if err != nil || address == "" {
		return "", ""
	}
	names, err := client.ListContexts(home)
	if err != nil {
		return "", ""
	}
	for _, name := range names {
		ctx, err := client.LoadContext(home, name)
		if err != nil || !slices.Contains(ctx.Servers, address) {
			continue
		}
		if id, err := ctx.Credential().Identity(); err == nil {
			return name, id.Site
		}
	}
	return "", ""
}
