package site

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// network is what the machines are connected by.
type network interface {
	// machine makes a machine of that name and number; enter is the command that runs another on it.
	machine(name string, number int) (ip string, enter []string, err error)
	// host is the address of this process, and of the store.
	host() string
	// silence drops what one address sends to another, or ends that; calls may overlap.
	silence(from, to string, on bool) error
	// pids are the processes on a machine.
	pids(name string) ([]int, error)
}

// openNetwork makes a network of namespaces if this process has one of its own, or uses the loopback's many addresses.
func openNetwork(private bool) (network, error) {
	if !private {
		return &loopback{prefix: fmt.Sprintf("127.213.%d.", os.Getpid()%250)}, nil
	}
	// What `ip netns` keeps lies in this process's own mounts: nothing outlives it.
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return nil, fmt.Errorf("mount /run: %w", err)
	}
	b := &bridged{names: map[string]string{}, silent: map[[2]string]int{}}
	return b, all([]string{"link set lo up", "link add " + bridge + " type bridge", "addr add " + subnet + "1/24 dev " + bridge, "link set " + bridge + " up"})
}

const (
	bridge  = "br0"
	subnet  = "10.213.0."
	nowhere = "02:00:00:00:00:01" // an address that no card has
)

// bridged is a namespace per machine, and a bridge that joins them.
type bridged struct {
	mu     sync.Mutex
	names  map[string]string // by address
	silent map[[2]string]int // how many want it so
}

func (b *bridged) host() string { return subnet + "1" }

func (b *bridged) machine(name string, number int) (string, []string, error) {
	address := subnet + strconv.Itoa(number)
	b.names[address] = name
	outside := fmt.Sprintf("veth%d", number)
	return address, []string{"ip", "netns", "exec", name}, all([]string{
		"netns add " + name,
		"link add " + outside + " type veth peer name eth0 netns " + name,
		"link set " + outside + " master " + bridge + " up",
		"-n " + name + " addr add " + address + "/24 dev eth0",
		"-n " + name + " link set lo up",
		"-n " + name + " link set eth0 up",
	})
}

// silence sends what the one has for the other to a card that is not there: the sender hears nothing of it.
func (b *bridged) silence(from, to string, on bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	pair, was := [2]string{from, to}, b.silent[[2]string{from, to}]
	if on {
		b.silent[pair]++
	} else {
		b.silent[pair]--
	}
	where, dev := "-n "+b.names[from]+" ", "eth0"
	if from == b.host() {
		where, dev = "", bridge
	}
	switch {
	case was == 0:
		return all([]string{where + "neigh replace " + to + " lladdr " + nowhere + " nud permanent dev " + dev})
	case b.silent[pair] == 0:
		return all([]string{where + "neigh del " + to + " dev " + dev})
	}
	return nil
}

func (b *bridged) pids(name string) ([]int, error) {
	out, err := exec.Command("ip", "netns", "pids", name).Output()
	if err != nil {
		return nil, fmt.Errorf("processes of %s: %w", name, err)
	}
	var pids []int
	for _, f := range strings.Fields(string(out)) {
		if pid, err := strconv.Atoi(f); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// all runs commands of ip until one fails.
func all(commands []string) error {
	for _, c := range commands {
		if out, err := exec.Command("ip", strings.Fields(c)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", c, err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

// loopback is every machine on this one, with addresses of its own.
type loopback struct{ prefix string }

var errLoopback = errors.New("the machines have no network of their own")

func (l *loopback) host() string { return l.prefix + "1" }

func (l *loopback) machine(_ string, number int) (string, []string, error) {
	return l.prefix + strconv.Itoa(number), nil, nil
}

func (l *loopback) silence(string, string, bool) error { return errLoopback }
func (l *loopback) pids(string) ([]int, error)         { return nil, errLoopback }
