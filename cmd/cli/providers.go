package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"millrace/cmd/cli/devcluster"
	"millrace/master/fleet"
	"millrace/pkg/bytesize"
)

// providerFlags say what a master has nodes from, beside the pool.
func providerFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "provider", Usage: "`NAME=PATH` of an executable that launches and terminates nodes (repeatable); the same for all masters: docs/providers.md"},
		&cli.StringFlag{Name: "process-dir", Usage: "`DIR` of nodes that are processes of this machine, one folder for each: groups get theirs from there if they name no provider"},
		&cli.IntFlag{Name: "process-slots", Usage: "attempts at once of such a node, `N`; default: one per CPU"},
		&cli.StringFlag{Name: "process-memory", Usage: "`SIZE` for such a node and its attempts; default: the machine's"},
	}
}

// providers are what the flags name, and the one of groups that name none.
func (c *call) providers() (all map[string]fleet.Provider, usual string, err error) {
	all = map[string]fleet.Provider{}
	for _, value := range c.StringSlice("provider") {
		name, path, ok := strings.Cut(value, "=")
		if !ok || path == "" {
			return nil, "", usagef("--provider NAME=/path/to/executable", "--provider %s: not of the form NAME=PATH", value)
		}
		if all[name] != nil {
			return nil, "", usagef("--provider NAME=/path/to/executable", "--provider %s: there are two of that name", name)
		}
		if all[name], err = fleet.NewCommand(name, path, withoutOwn(os.Environ(), "MILLRACE_")); err != nil {
			return nil, "", usagef("--provider NAME=/path/to/executable", "--provider: %s", err)
		}
	}
	if c.String("process-dir") == "" {
		return all, fleet.PoolProvider, nil
	}
	conf := fleet.ProcessConfig{Env: withoutOwn(os.Environ(), "MILLRACE_", "AWS_", "MINIO_"), Files: c.life}
	if conf.Dir, err = filepath.Abs(c.String("process-dir")); err != nil {
		return nil, "", usagef("--process-dir DIR", "--process-dir: %s", err)
	}
	if conf.Binary, err = os.Executable(); err != nil {
		return nil, "", fmt.Errorf("this program's own file: %w", err)
	}
	if len(c.life) > 0 {
		conf.Env = append(conf.Env, devcluster.LifelineEnv+"=3")
	}
	if c.IsSet("process-slots") {
		if c.Int("process-slots") < 1 {
			return nil, "", usagef("--process-slots 2", "--process-slots %d: at least 1", c.Int("process-slots"))
		}
		conf.Args = append(conf.Args, "--slots", strconv.Itoa(c.Int("process-slots")))
	}
	if s := c.String("process-memory"); s != "" {
		if _, err := bytesize.Parse(s); err != nil {
			return nil, "", usagef("--process-memory 2GiB", "--process-memory: %s", err)
		}
		conf.Args = append(conf.Args, "--memory", s)
	}
	if all[fleet.ProcessProvider], err = fleet.NewProcesses(conf); err != nil {
		return nil, "", usagef("--process-dir DIR", "--process-dir: %s", err)
	}
	return all, fleet.ProcessProvider, nil
}

// withoutOwn drops variables by the beginning of their names: those that are meant for this program alone.
func withoutOwn(environ []string, prefixes ...string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(v string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(v, p) })
	})
}

// keepLife makes duplicates of the lifeline and the lock that follows it, to hand on to nodes that are to end with who holds them.
func (c *call) keepLife(fd int) error {
	for i, name := range []string{"lifeline", "lock"} {
		copied, err := syscall.Dup(fd + i)
		if err != nil {
			return fmt.Errorf("%s of the cluster: %w", name, err)
		}
		syscall.CloseOnExec(copied)
		c.life = append(c.life, os.NewFile(uintptr(copied), name))
	}
	return nil
}
