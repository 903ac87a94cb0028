//go:build cluster && initsystems

package clustertest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// initSystem is what keeps services on a machine, for real.
type initSystem struct {
	kind     string // as millrace calls it
	packages string // of Debian, beside its base
	init     string // its first process
	booted   string // succeeds once services of the machine are started
	state    string // prints a word for a service's state, %s: its name
	running  string // that word of one that runs
	restart  string // ends a service and starts it, %s: its name
	ended    string // and of one that has ended and is not started again
	tells    string // succeeds if the end was told, %s: the service's name
	verify   string // says what is wrong with descriptions of services
}

var initSystems = []initSystem{
	{kind: "systemd", packages: "systemd systemd-sysv", init: "/lib/systemd/systemd",
		booted: "systemctl is-system-running | grep -E 'running|degraded'",
		state:  "systemctl show -P ActiveState %s", running: "active", ended: "failed",
		restart: "systemctl restart %s",
		tells:   "journalctl -u %s | grep 'status=4'", verify: "systemd-analyze verify /etc/systemd/system/millrace-*.service"},
	{kind: "OpenRC", packages: "openrc sysvinit-core", init: "/sbin/init",
		booted: "rc-status -r | grep default && ! pgrep -x openrc",
		state:  "rc-service %s status > /dev/null 2>&1 && echo up || echo down", running: "up", ended: "down",
		restart: "rc-service %s restart",
		tells:   "s=%s; grep 'ended with exit code 4, for good' /var/lib/millrace/${s#millrace-}.log"},
}

// debianRoot is a root of Debian with an init system in it, made once.
func debianRoot(t *testing.T, s initSystem) string {
	t.Helper()
	cache := os.Getenv("MILLRACE_ROOTS")
	if cache == "" {
		t.Fatal("MILLRACE_ROOTS is not set: run this with `make test-init-systems`")
	}
	root := filepath.Join(cache, strings.ToLower(s.kind))
	if _, err := os.Stat(root); err == nil {
		return root
	}
	if _, err := exec.LookPath("debootstrap"); err != nil {
		t.Skipf("%s is run in a root of Debian, and there is nothing to make one with (apt-get install debootstrap)", s.kind)
	}
	require.NoError(t, os.MkdirAll(cache, 0o755))
	making, err := os.MkdirTemp(cache, ".making-")
	require.NoError(t, err)
	defer os.RemoveAll(making)
	// The base has no init system; which package of alternatives completes one, only apt knows.
	out, err := exec.Command("sh", "-ec", `debootstrap --variant=minbase --include=iproute2,procps,ca-certificates bookworm "$1"
chroot "$1" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $2`, "sh", making, s.packages).CombinedOutput()
	if err != nil {
		t.Skipf("%s is run in a root of Debian, and it could not be made: %s\n%s", s.kind, err, out)
	}
	require.NoError(t, os.Chmod(making, 0o755))
	require.NoError(t, os.Rename(making, root))
	return root
}

// machine is a host of the lab that has been booted: it has a first process, and all that comes with one.
type machine struct {
	*labHost
	system initSystem
	layers string    // the folder with its root, and what that is made of
	first  *exec.Cmd // holds its first process
}

// machine adds one at 10.0.0.N. It writes onto a layer of its own above the root.
func (l *lab) machine(name string, n int, s initSystem) *machine {
	l.t.Helper()
	lower := debianRoot(l.t, s)
	layers, err := os.MkdirTemp("", "millrace-machine-")
	require.NoError(l.t, err)
	m := &machine{labHost: l.bareHost(name, n), system: s, layers: layers}
	m.root, m.inside = filepath.Join(layers, "root"), m.enter
	l.t.Cleanup(func() {
		if l.t.Failed() {
			m.lastWords()
		}
		m.powerCut()
		for _, mounted := range []string{m.root, filepath.Join(layers, "cgroups")} {
			require.NoError(l.t, syscall.Unmount(mounted, 0))
		}
		require.NoError(l.t, os.RemoveAll(layers))
	})
	l.sh(fmt.Sprintf(`cd %s
mkdir root upper work cgroups
mount -t cgroup2 cgroup2 cgroups
mount -t overlay overlay -o lowerdir=%s,upperdir=upper,workdir=work root
echo %s > root/etc/hostname
echo '127.0.0.1 localhost' > root/etc/hosts
: > root/etc/machine-id`, layers, lower, name))
	m.on()
	return m
}

// booting makes of this process the first one of a machine: with processes, mounts, a name and control groups of its own.
const booting = `set -e
mount --make-rprivate /
mkdir -p "$3"
echo $$ > "$3/cgroup.procs"
exec unshare --fork --pid --mount --uts --ipc --cgroup --kill-child sh -ec '
cd "$1"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
for d in null zero full random urandom tty; do cp -a "/dev/$d" dev/; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs tmpfs dev/shm
touch dev/console; mount --bind "$4" dev/console
hostname "$2"
mkdir -p mnt
pivot_root . mnt
exec chroot . sh -c "umount -l /mnt; exec $5 < /dev/null > /dev/console 2>&1"' sh "$@"
`

// on switches the machine on.
func (m *machine) on() {
	m.lab.t.Helper()
	log, err := os.OpenFile(m.console(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	require.NoError(m.lab.t, err)
	defer log.Close()
	m.first = exec.Command("ip", "netns", "exec", m.ns, "unshare", "--mount", "sh", "-c", booting, "sh", m.root, m.name, m.cgroup(), m.console(), m.system.init)
	m.first.Stdout, m.first.Stderr = log, log
	m.first.Env = []string{"container=lab", "TERM=dumb", "PATH=" + os.Getenv("PATH")}
	m.first.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(m.lab.t, m.first.Start())
}

// awaitServices waits until it has started what it starts at boot.
func (m *machine) awaitServices() {
	m.lab.t.Helper()
	waitFor(m.lab.t, m.name+" has booted", func() (bool, string) {
		r := m.try(m.system.booted)
		return r.code == 0, r.out + r.err
	})
}

// powerCut ends all that runs on the machine at once.
func (m *machine) powerCut() {
	m.lab.t.Helper()
	m.off()
	m.first.Wait() // it was killed
	waitFor(m.lab.t, "nothing of "+m.name+" is left", func() (bool, string) {
		out, err := exec.Command("find", m.cgroup(), "-depth", "-type", "d", "-exec", "rmdir", "{}", ";").CombinedOutput()
		_, there := os.Stat(m.cgroup())
		return errors.Is(there, fs.ErrNotExist), fmt.Sprintf("%s%v", out, err)
	})
}

func (m *machine) console() string { return filepath.Join(m.layers, "console") }
func (m *machine) cgroup() string  { return filepath.Join(m.layers, "cgroups", m.ns) }

// enter is a shell's line beside its first process.
func (m *machine) enter(ctx context.Context, line string) *exec.Cmd {
	pid := m.first.Process.Pid
	child, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)) // none: it is off, and nsenter says so
	cmd := exec.CommandContext(ctx, "nsenter", "-t", strings.TrimSpace(string(child)), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup",
		"/bin/sh", "-c", "cd /root || exit; "+line)
	cmd.Env = []string{"HOME=/root", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.WaitDelay = time.Second
	return cmd
}

// await waits until a line prints a word.
func (m *machine) await(line, word string) {
	m.lab.t.Helper()
	waitFor(m.lab.t, fmt.Sprintf("%s: %s: %s", m.name, line, word), func() (bool, string) {
		r := m.try(line)
		return strings.TrimSpace(r.out) == word, r.out + r.err
	})
}

// lastWords is what there is to see when something went wrong.
func (m *machine) lastWords() {
	console, _ := os.ReadFile(m.console())
	m.lab.t.Logf("%s: console:\n%s", m.name, console)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := m.enter(ctx, "ps axf; tail -n 30 /var/lib/millrace/*.log; journalctl --no-pager -n 100 -u 'millrace-*'").CombinedOutput()
	m.lab.t.Logf("%s:\n%s%v", m.name, out, err)
}

// What init and join install is kept by the machine's own init system: it comes again when it is killed and after a loss of power, as the same
// node, stays down once the node has been removed, and leaves nothing.
func TestInitSystems(t *testing.T) {
	for _, s := range initSystems {
		t.Run(s.kind, func(t *testing.T) {
			l := newLab(t)
			m1, m2 := l.machine("m1", 1, s), l.machine("m2", 2, s)
			for _, m := range []*machine{m1, m2} {
				m.awaitServices()
				m.bring(binary(t), "/root/millrace")
			}
			out := m1.do("AWS_ACCESS_KEY_ID=" + l.store.key + " AWS_SECRET_ACCESS_KEY=" + l.store.secret + " ./millrace init --role master,core --s3 " + l.store.endpoint +
				" --data-dir /srv/disk1 --data-dir '/srv/disk 2'")
			require.Contains(t, out, "service millrace-master ("+s.kind+")")
			for _, name := range []string{"millrace-master", "millrace-worker"} {
				m1.await(fmt.Sprintf(s.state, name), s.running)
			}
			if s.verify != "" {
				require.Equal(t, result{}, m1.try(s.verify), "it finds nothing to say")
			}
			m1.do("millrace join-token create --role task > token")
			token := m1.do("cat token")
			require.Contains(t, m2.do("./millrace join 10.0.0.1 "+strings.TrimSpace(token)), "joined: this machine is ")
			ids := [2]string{m1.awaitNode("m1").str("id"), m1.awaitNode("m2").str("id")}
			m1.do("millrace fs mb s3://data && echo some words, some more > text && millrace fs put text s3://data/in && millrace fs put text hdfs:///in")
			m1.do("millrace run wordcount s3://data/in s3://data/out")
			require.Equal(t, "some\t2\n", m1.do("millrace results last --top 1"))

			before := m1.do("pgrep -f '^/usr/local/bin/millrace worker run'")
			m1.do("kill -9 " + strings.TrimSpace(before))
			waitFor(t, "another process of the worker", func() (bool, string) {
				r := m1.try("pgrep -f '^/usr/local/bin/millrace worker run'")
				return r.code == 0 && r.out != before, r.out
			})
			m1.await(fmt.Sprintf(s.state, "millrace-worker"), s.running)

			// Another file in the program's place, and a restart in order, as in an upgrade.
			before = m1.do("pgrep -f '^/usr/local/bin/millrace master run'")
			m1.do("cp millrace /usr/local/bin/new && mv /usr/local/bin/new /usr/local/bin/millrace && " + fmt.Sprintf(s.restart, "millrace-master"))
			waitFor(t, "another process of the master", func() (bool, string) {
				r := m1.try("pgrep -f '^/usr/local/bin/millrace master run'")
				return r.code == 0 && r.out != before, r.out
			})
			m1.await(fmt.Sprintf(s.state, "millrace-master"), s.running)

			m1.powerCut()
			m2.powerCut()
			m1.on()
			m2.on()
			m1.awaitServices()
			m2.awaitServices()
			require.Equal(t, ids, [2]string{m1.awaitNode("m1").str("id"), m1.awaitNode("m2").str("id")}, "they are the same nodes")
			require.Equal(t, "some words, some more\n", m1.do("millrace fs cat hdfs:///in"))

			m1.do("millrace node drain m2 --wait && millrace node remove m2")
			m2.await(fmt.Sprintf(s.state, "millrace-worker"), s.ended)
			m2.do(fmt.Sprintf(s.tells, "millrace-worker"))
			require.NotZero(t, m2.try("pgrep -f '^/usr/local/bin/millrace'").code, "nothing tries to start it again")

			// A machine that somebody has files on, also below --data-dir.
			m1.do("echo photo > '/srv/disk 2/photo.jpg'")
			out = m1.do("millrace uninstall")
			for _, line := range []string{"removed service millrace-master", "removed service millrace-worker", "kept    /srv/disk1: blocks of the node; --data deletes them",
				"kept    /srv/disk 2: blocks of the node; --data deletes them", "kept    /var/lib/millrace: who the node is"} {
				require.Contains(t, out, line)
			}
			require.NotZero(t, m1.try("pgrep -f '^/usr/local/bin/millrace'").code, "nothing of it runs")
			out = m1.do("./millrace uninstall --data")
			for _, line := range []string{"removed blocks in /srv/disk1", "removed blocks in /srv/disk 2", "kept    /srv/disk 2: there are files in it that are not millrace's"} {
				require.Contains(t, out, line)
			}
			require.Contains(t, m2.do("millrace uninstall --data"), "removed service millrace-worker")
			for _, m := range []*machine{m1, m2} {
				left := m.do("find / -xdev -name '*millrace*' ! -path '/root/*'; ls /srv")
				want := ""
				if m == m1 {
					want = "disk 2\n"
					require.Equal(t, "photo.jpg\n", m.do("ls '/srv/disk 2'"))
				}
				require.Equal(t, want, left, m.name)
			}
		})
	}
}
