//go:build cluster

package clustertest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// lab is a network of hosts: each a network namespace with a root folder of its own, in which there is nothing but busybox and what a test puts there,
// behind a firewall of its own; and a hub between them that routes, and has an object store.
type lab struct {
	t     *testing.T
	id    string // of its namespaces
	hosts []*labHost
	store minio
}

// labHost is one of its machines.
type labHost struct {
	lab      *lab
	name, ns string
	root     string // "" = this machine's own files
	env      []string
	inside   func(ctx context.Context, line string) *exec.Cmd // of a machine that is entered in a way of its own
}

// The networks of a lab: the machines' own, and another one that some of them are in, too.
const (
	labNet    = "10.0.0."
	secondNet = "10.0.1."
)

func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("machines are network namespaces: this needs root")
	}
	for _, tool := range []string{"ip", "nft", "chroot", "unshare", "busybox"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("machines are network namespaces with roots of their own: %s is not here (apt-get install iproute2 nftables busybox-static)", tool)
		}
	}
	l := &lab{t: t, id: fmt.Sprintf("mr%d", os.Getpid())}
	if out, err := exec.Command("ip", "netns", "add", l.hub()).CombinedOutput(); err != nil {
		t.Skipf("no network namespaces here: %s", out)
	}
	t.Cleanup(l.close)
	l.sh(`ip -n HUB link set lo up
ip -n HUB link add br0 type bridge && ip -n HUB addr add 10.0.0.254/24 dev br0 && ip -n HUB link set br0 up
ip -n HUB link add br1 type bridge && ip -n HUB addr add 10.0.1.254/24 dev br1 && ip -n HUB link set br1 up
ip netns exec HUB sysctl -qw net.ipv4.ip_forward=1`)
	l.store = l.startStore()
	return l
}

func (l *lab) hub() string { return l.id + "hub" }

// sh runs lines of a shell, in which HUB is the hub's namespace.
func (l *lab) sh(script string) {
	l.t.Helper()
	out, err := exec.Command("sh", "-ec", strings.ReplaceAll(script, "HUB", l.hub())).CombinedOutput()
	require.NoError(l.t, err, "%s\n%s", script, out)
}

func (l *lab) close() {
	for _, h := range l.hosts {
		h.off()
		exec.Command("ip", "netns", "del", h.ns).Run()
	}
	exec.Command("ip", "netns", "del", l.hub()).Run()
}

// startStore starts MinIO at the hub.
func (l *lab) startStore() minio {
	l.t.Helper()
	bin := os.Getenv("MILLRACE_MINIO")
	if bin == "" {
		l.t.Fatal("MILLRACE_MINIO is not set: run these tests with `make test-cluster`")
	}
	m := minio{"http://10.0.0.254:9000", "millrace-test", "millrace-test-secret"}
	cmd := exec.Command("ip", "netns", "exec", l.hub(), bin, "server", "--quiet", "--address", "10.0.0.254:9000", l.t.TempDir())
	cmd.Env = append(os.Environ(), "MINIO_ROOT_USER="+m.key, "MINIO_ROOT_PASSWORD="+m.secret, "MINIO_BROWSER=off")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(l.t, cmd.Start())
	l.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	waitFor(l.t, "MinIO listens", func() (bool, string) {
		out, err := exec.Command("ip", "netns", "exec", l.hub(), "busybox", "nc", "-w", "1", "10.0.0.254", "9000", "-e", "true").CombinedOutput()
		return err == nil, string(out)
	})
	return m
}

// host adds a machine at 10.0.0.N, with a root of its own.
func (l *lab) host(name string, n int) *labHost {
	l.t.Helper()
	h := l.bareHost(name, n)
	root, err := os.MkdirTemp("", "millrace-root-")
	require.NoError(l.t, err)
	l.t.Cleanup(func() {
		h.off()
		syscall.Unmount(filepath.Join(root, "proc"), syscall.MNT_DETACH)
		require.NoError(l.t, os.RemoveAll(root))
	})
	h.root = root
	l.sh(fmt.Sprintf(`cd %s
chmod 755 .
mkdir -p bin dev etc proc root tmp usr/bin
cp "$(command -v busybox)" bin/busybox
chroot . /bin/busybox --install -s /bin
for d in null zero random urandom; do cp -a /dev/$d dev/; done
echo 'root:x:0:0:root:/root:/bin/sh' > etc/passwd
mount -t proc proc proc`, root))
	return h
}

// bareHost adds a machine that sees this one's files: only its network is its own.
func (l *lab) bareHost(name string, n int) *labHost {
	l.t.Helper()
	h := &labHost{lab: l, name: name, ns: l.id + name}
	l.hosts = append(l.hosts, h)
	l.sh(fmt.Sprintf(`ip netns add %[1]s
ip -n %[1]s link set lo up
ip link add eth0 netns %[1]s type veth peer name v0%[2]s netns HUB
ip -n HUB link set v0%[2]s master br0 up
ip -n %[1]s addr add %[3]s%[4]d/24 dev eth0
ip -n %[1]s link set eth0 up
ip -n %[1]s route add default via %[3]s254`, h.ns, name, labNet, n))
	return h
}

// second gives a machine a second interface, eth1, at 10.0.1.N.
func (h *labHost) second(n int) {
	h.lab.t.Helper()
	h.lab.sh(fmt.Sprintf(`ip link add eth1 netns %[1]s type veth peer name v1%[2]s netns HUB
ip -n HUB link set v1%[2]s master br1 up
ip -n %[1]s addr add %[3]s%[4]d/24 dev eth1
ip -n %[1]s link set eth1 up`, h.ns, h.name, secondNet, n))
}

// firewall lets in what is on the way already, and new connections to the given ports (7400/tcp): nothing else.
func (h *labHost) firewall(ports ...string) {
	h.lab.t.Helper()
	rules := "flush ruleset\ntable inet f {\n chain in {\n  type filter hook input priority 0; policy drop;\n  iif lo accept\n  ct state established,related accept\n  icmp type echo-request accept\n"
	for _, p := range ports {
		port, network, ok := strings.Cut(p, "/")
		require.True(h.lab.t, ok, p)
		rules += "  " + network + " dport " + port + " accept\n"
	}
	cmd := exec.Command("ip", "netns", "exec", h.ns, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules + " }\n}\n")
	out, err := cmd.CombinedOutput()
	require.NoError(h.lab.t, err, "%s", out)
}

// command is a shell's line on the machine, with nothing of this process's environment.
func (h *labHost) command(ctx context.Context, line string) *exec.Cmd {
	if h.inside != nil {
		return h.inside(ctx, line)
	}
	enter := `hostname "$1"; exec chroot "$2" /bin/sh -c "cd /root; $3"`
	if h.root == "" {
		enter = `hostname "$1"; exec /bin/sh -c "$3"`
	}
	cmd := exec.CommandContext(ctx, "ip", "netns", "exec", h.ns, "unshare", "--uts", "sh", "-c", enter, "sh", h.name, h.root, line)
	cmd.Env = append([]string{"HOME=/root", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, h.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second
	return cmd
}

// try runs a line there.
func (h *labHost) try(line string) result {
	h.lab.t.Helper()
	ctx, cancel := context.WithTimeout(h.lab.t.Context(), patience)
	defer cancel()
	cmd := h.command(ctx, line)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Run() // its exit code says it
	return result{out: out.String(), err: errs.String(), code: cmd.ProcessState.ExitCode()}
}

// do runs a line that is to succeed.
func (h *labHost) do(line string) string {
	h.lab.t.Helper()
	r := h.try(line)
	require.Zero(h.lab.t, r.code, "%s: %s\n%s%s", h.name, line, r.out, r.err)
	return r.out
}

// put writes a file there.
func (h *labHost) put(path, content string) {
	h.lab.t.Helper()
	full := filepath.Join(h.root, path)
	require.NoError(h.lab.t, os.MkdirAll(filepath.Dir(full), 0o755))
	require.NoError(h.lab.t, os.WriteFile(full, []byte(content), 0o600))
}

// bring copies a program of this machine there, with the libraries that it needs.
func (h *labHost) bring(program, to string) {
	h.lab.t.Helper()
	h.lab.sh(fmt.Sprintf(`mkdir -p "$(dirname %[2]s%[3]s)" && cp %[1]s %[2]s%[3]s && chmod 755 %[2]s%[3]s
{ ldd %[1]s 2>/dev/null || true; } | grep -o '/[^ ]*' | sort -u | while read -r lib; do mkdir -p "%[2]s$(dirname "$lib")"; cp "$lib" "%[2]s$lib"; done`, program, h.root, to))
}

// makesUsers brings the programs that make and remove users there.
func (h *labHost) makesUsers() {
	h.lab.t.Helper()
	for _, program := range []string{"useradd", "userdel", "groupdel"} {
		path, err := exec.LookPath(program)
		require.NoError(h.lab.t, err, "apt-get install passwd")
		h.bring(path, "/usr/sbin/"+program)
	}
}

// off is the machine's power: all that runs there ends at once. It is off when the last of it is gone.
func (h *labHost) off() {
	h.lab.t.Helper()
	waitFor(h.lab.t, h.name+" is off", func() (bool, string) {
		out, _ := exec.Command("ip", "netns", "pids", h.ns).Output()
		pids := strings.Fields(string(out))
		for _, pid := range pids {
			var n int
			if _, err := fmt.Sscan(pid, &n); err == nil {
				syscall.Kill(n, syscall.SIGKILL)
			}
		}
		return len(pids) == 0, string(out)
	})
}

// network takes the machine off the network, or back.
func (h *labHost) network(on bool) {
	h.lab.t.Helper()
	if !on {
		h.lab.sh("ip -n " + h.ns + " link set eth0 down")
		return
	}
	h.lab.sh("ip -n " + h.ns + " link set eth0 up && ip -n " + h.ns + " route add default via " + net.ParseIP(labNet+"254").String())
}
