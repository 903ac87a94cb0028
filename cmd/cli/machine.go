package cli

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"millrace/pkg/joining"
	"millrace/pkg/service"
)

// Where a machine has what init and join put there. Below the folder of --dir each node has one of its own.
const (
	programPath   = "/usr/local/bin/millrace"
	settingsDir   = "/etc/millrace"
	masterEnv     = settingsDir + "/master.env"
	machineDir    = "/var/lib/millrace"
	masterService = "millrace-master"
	workerService = "millrace-worker"
)

// The master's ports; a worker's are workerListen and workerGossip.
const (
	masterListen = ":7400"
	masterRaft   = ":7401"
	masterGossip = ":7402"
)

// removedExit is how a node ends that the site has removed: to start it again would change nothing.
const removedExit = exitNotFound

func machineDirFlag() cli.Flag {
	return &cli.StringFlag{Name: "dir", Usage: "`DIR` where the machine keeps everything", Value: machineDir}
}

// workerFlags are settings of a worker that init and join hand on to its service.
func workerFlags() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "slots", Usage: "attempts at once, `N`; default: one per CPU"},
		&cli.StringFlag{Name: "memory", Usage: "`SIZE` for the node and its attempts; default: the machine's"},
		&cli.StringSliceFlag{Name: "data-dir", Usage: "`DIR` where a core node keeps blocks, one for each disk (repeatable)"},
		&cli.StringFlag{Name: "rack", Usage: "`NAME` of what fails as a whole, a rack or a zone"},
		taskUserFlag(),
	}
}

// machine is this machine as init, join and uninstall see it.
type machine struct {
	c   *call
	dir string
	mgr service.Manager

	masterPorts, workerPorts nodePorts

	core     bool       // init makes a core node beside the master
	attempts attemptsAs // once prepareTaskUser has found it out
}

// machineOf is for root only: it is about services, and files that nobody else may read.
func (c *call) machineOf() (*machine, error) {
	if os.Geteuid() != 0 {
		return nil, usagef("sudo "+c.inv.name()+" …", "%s installs and removes services: it has to run as root", c.inv.name())
	}
	if err := c.checkTaskUser(); err != nil {
		return nil, usagef("--task-user "+usualTaskUser, "--task-user: %s", err)
	}
	dir, err := filepath.Abs(c.String("dir"))
	if err != nil {
		return nil, err
	}
	return &machine{c: c, dir: dir, mgr: service.Of(service.Host{}),
		masterPorts: nodePorts{masterListen, masterRaft, masterGossip}, workerPorts: nodePorts{api: workerListen, gossip: workerGossip}}, nil
}

func (m *machine) nodeDir(role string) string { return filepath.Join(m.dir, role) }

// node is the master or the worker that this machine is; nil if it is none.
func (m *machine) node(role string) (*joining.Member, error) { return joining.Who(m.nodeDir(role)) }

// installProgram puts this program where services find it, unless it is there.
func (m *machine) installProgram() error {
	own, err := os.Open("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("install the program: %w", err)
	}
	defer own.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, own); err != nil {
		return fmt.Errorf("install the program: %w", err)
	}
	if there, err := fileSum(programPath); err == nil && string(there) == string(sum.Sum(nil)) {
		return nil
	}
	if _, err := own.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("install the program: %w", err)
	}
	if err := makeFolder(filepath.Dir(programPath), 0o755); err != nil {
		return fmt.Errorf("install the program: %w", err)
	}
	// Beside its place, then into it: what runs from there goes on with the file that it has.
	temp, err := os.CreateTemp(filepath.Dir(programPath), ".millrace-*")
	if err != nil {
		return fmt.Errorf("install the program: %w", err)
	}
	_, err = io.Copy(temp, own)
	if err = errors.Join(err, temp.Chmod(0o755), temp.Sync(), temp.Close()); err == nil {
		err = os.Rename(temp.Name(), programPath)
	}
	if err != nil {
		return fmt.Errorf("install the program: %w", errors.Join(err, os.Remove(temp.Name())))
	}
	return nil
}

func fileSum(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, f)
	return sum.Sum(nil), err
}

// serve installs a node's service and starts it.
func (m *machine) serve(ctx context.Context, s service.Service) error {
	if err := os.MkdirAll(settingsDir, 0o700); err != nil {
		return err
	}
	s.LogFile, s.Final = filepath.Join(m.dir, strings.TrimPrefix(s.Name, "millrace-")+".log"), removedExit
	return m.mgr.Install(ctx, s)
}

// masterServiceOf is a master's service. Who it is, and all that is secret, is in its folder by then.
func (m *machine) masterServiceOf(host netip.Addr) service.Service {
	p := m.masterPorts
	return service.Service{
		Name: masterService, Description: "Millrace master", EnvFile: masterEnv,
		Exec: []string{programPath, "master", "run", "--dir", m.nodeDir("master"), "--listen", p.api, "--raft-listen", p.raft, "--gossip-listen", p.gossip, "--advertise", host.String()},
	}
}

// workerServiceOf is a worker's. Whom its attempts run as has been found out by then.
func (m *machine) workerServiceOf(host netip.Addr) service.Service {
	p := m.workerPorts
	argv := []string{programPath, "worker", "run", "--dir", m.nodeDir("worker"), "--listen", p.api, "--gossip-listen", p.gossip, "--advertise", host.String()}
	for _, name := range []string{"slots", "memory", "rack"} {
		if m.c.IsSet(name) {
			argv = append(argv, "--"+name, m.c.String(name))
		}
	}
	if m.attempts.User != "" {
		argv = append(argv, "--task-user", m.attempts.User)
	}
	for _, dir := range m.c.StringSlice("data-dir") {
		if whole, err := filepath.Abs(dir); err == nil { // a service is started elsewhere
			dir = whole
		}
		argv = append(argv, "--data-dir", dir)
	}
	return service.Service{Name: workerService, Description: "Millrace worker", EnvFile: settingsDir + "/worker.env", Exec: argv}
}

// runs says in one line what keeps a service running, and what is missing.
func (m *machine) runs(name string) string {
	line := fmt.Sprintf("service %s (%s); its log: %s", name, m.mgr.Kind(), m.mgr.Logs(name))
	if missing := m.mgr.Boot(name); missing != "" {
		line += "\n" + missing
	}
	return line
}

// emptied removes a folder if nothing is in it.
func emptied(dir string) error {
	err := os.Remove(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if entries, readErr := os.ReadDir(dir); readErr == nil && len(entries) > 0 {
		return nil
	}
	return err
}
