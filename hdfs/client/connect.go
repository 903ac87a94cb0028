package client

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	masters "millrace/pkg/client"
	"millrace/pkg/security"
)

// Cluster is the files of a cluster over a connection of their own, which has to be closed.
type Cluster struct {
	*Files
	close func() error
}

// Close drops the connections; what is being read or written fails.
func (c *Cluster) Close() error { return c.close() }

// Connect reaches a cluster's files with a context as `millrace dev` and `millrace context` keep it, in MILLRACE_HOME or
// ~/.millrace: its masters and its credential. An empty name is the current context; an empty cluster (name or id) the context's.
// It sends nothing yet.
func Connect(name, cluster string) (*Cluster, error) {
	home := os.Getenv("MILLRACE_HOME")
	if home == "" {
		user, err := os.UserHomeDir()
		if err != nil {
			return nil, fmt.Errorf("connect to a cluster: %w: set HOME or MILLRACE_HOME, where contexts are", err)
		}
		home = filepath.Join(user, ".millrace")
	}
	settings, err := masters.LoadContext(home, name)
	if err != nil {
		return nil, fmt.Errorf("connect to a cluster: %w", err)
	}
	if cluster == "" {
		cluster = settings.Cluster
	}
	calls, err := masters.New(masters.Config{Servers: settings.Servers, Credential: settings.Credential(), UserAgent: "millrace-files"})
	if err != nil {
		return nil, fmt.Errorf("connect to a cluster: context %s: %w", settings.Name, err)
	}
	credential, err := security.NewLive(settings.Credential())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect to a cluster: context %s: %w", settings.Name, err), calls.Close())
	}
	nodes := masters.NewNodes(credential)
	files, err := New(Config{Names: Remote(calls.Files(), cluster), Dialer: nodes})
	if err != nil {
		return nil, errors.Join(err, calls.Close())
	}
	return &Cluster{files, func() error {
		nodes.Close()
		return calls.Close()
	}}, nil
}
