//go:build cluster

package clustertest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// machinesPage is followed here: its commands are for machines, not for the one that runs the tests.
const machinesPage = "docs/machines.md"

var portsSaid = regexp.MustCompile(`\b74\d\d/(?:tcp|udp)\b`)

// pageFollower does what the page says, on the machine that it says.
type pageFollower struct {
	t     *testing.T
	hosts map[string]*labHost
	words map[string]string
	on    *labHost
}

var onMachine = regexp.MustCompile(`^# on (\w+)`)

func (f *pageFollower) run(c command) {
	f.t.Helper()
	if m := onMachine.FindStringSubmatch(c.text); m != nil {
		f.on = f.hosts[m[1]]
		require.NotNil(f.t, f.on, "%s: there is no such machine", c)
		return
	}
	require.NotNil(f.t, f.on, "%s: on which machine?", c)
	text := c.text
	for from, to := range f.words {
		text = strings.ReplaceAll(text, from, to)
	}
	r := f.on.try(text)
	require.Equal(f.t, c.exits, r.code, "%s (on %s)\n%s%s", c, f.on.name, r.out, r.err)
	switch {
	case strings.Contains(text, "millrace context show"): // as `login` will give the laptop one of its own
		data, err := os.ReadFile(filepath.Join(f.on.root, "root/.millrace/contexts/millrace.json"))
		require.NoError(f.t, err)
		home := strings.TrimPrefix(f.hosts["laptop"].env[0], "MILLRACE_HOME=")
		require.NoError(f.t, os.MkdirAll(filepath.Join(home, "contexts"), 0o700))
		require.NoError(f.t, os.WriteFile(filepath.Join(home, "contexts/millrace.json"), data, 0o600))
		require.NoError(f.t, os.WriteFile(filepath.Join(home, "current-context"), []byte("millrace\n"), 0o600))
	case strings.Contains(text, "millrace init"):
		// The firewalls open what it says, and nothing more.
		ports := portsSaid.FindAllString(r.out, -1)
		require.Len(f.t, ports, 7, r.out)
		require.Contains(f.t, r.out, "jobs' programs run as user millrace-task\n")
		for _, h := range f.hosts {
			if h.root != "" {
				h.firewall(append(ports, "22/tcp")...)
			}
		}
	case strings.Contains(text, "join-token create"):
		f.words["TOKEN"] = strings.TrimSpace(r.out)
	}
}

// The page "On real machines", word for word: on machines with nothing but busybox, whose firewalls let in what init says and nothing else.
func TestThePageOnRealMachines(t *testing.T) {
	l := newLab(t)
	f := &pageFollower{t: t, hosts: map[string]*labHost{}, words: map[string]string{
		"http://minio:9000": l.store.endpoint, "AWS_ACCESS_KEY_ID=…": "AWS_ACCESS_KEY_ID=" + l.store.key, "AWS_SECRET_ACCESS_KEY=…": "AWS_SECRET_ACCESS_KEY=" + l.store.secret,
	}}
	for i, name := range []string{"m1", "m2", "m3", "m4", "m5"} {
		h := l.host(name, i+1)
		h.bring(binary(t), "/root/millrace")
		h.makesUsers()
		h.firewall("22/tcp")
		f.hosts[name] = h
	}
	f.hosts["m3"].second(3)
	laptop := l.laptop(f.hosts["m4"])
	f.hosts["laptop"] = laptop
	_, noSSH := exec.LookPath("sshd")

	data, err := os.ReadFile("../../" + machinesPage)
	require.NoError(t, err)
	ran := 0
	for _, c := range commandsOf(t, machinesPage, string(data)) {
		if noSSH != nil && strings.Contains(c.text, "node add") {
			t.Logf("not run, as there is no sshd here (apt-get install openssh-server): %s", c)
			continue
		}
		f.run(c)
		ran++
	}
	t.Logf("%d commands", ran)

	// What the page promises of the whole.
	m1 := f.hosts["m1"]
	for name, n := range map[string][2]string{"m1": {"CORE", "10.0.0.1"}, "m2": {"CORE", "10.0.0.2"}, "m4": {"CORE", "10.0.0.4"}} {
		if name == "m4" && noSSH != nil {
			continue
		}
		found := m1.awaitNode(name)
		require.Equal(t, n[0], found.str("role"), name)
		require.Equal(t, "https://"+n[1]+":7410", found.str("address"), name)
	}
	m1.do("millrace fs mb s3://data && echo some words, some more > /root/text && millrace fs put /root/text s3://data/in")
	m1.do("millrace run wordcount s3://data/in s3://data/out")
	require.Equal(t, "some\t2\n", m1.do("millrace results last --top 1"))
	requireTaskUser(t, m1, "m1", "m2")
	passwd, err := os.ReadFile(filepath.Join(f.hosts["m3"].root, "etc/passwd"))
	require.NoError(t, err)
	require.Equal(t, "root:x:0:0:root:/root:/bin/sh\n", string(passwd), "the user is gone with what init and join have put there")
	require.NoDirExists(t, filepath.Join(f.hosts["m3"].root, "var/lib/millrace"))
	require.NoDirExists(t, filepath.Join(f.hosts["m3"].root, "etc/millrace"))

	// Every machine loses its power, and comes back.
	before := m1.do("millrace node list --json")
	for _, name := range []string{"m1", "m2", "m5"} {
		f.hosts[name].off()
	}
	for _, name := range []string{"m1", "m2", "m5"} {
		f.hosts[name].do("(setsid millrace supervise --all >/dev/null 2>&1 &)")
	}
	n := m1.awaitNode("m2")
	require.Contains(t, before, n.str("id"), "it is the same node")

	// One of two masters leaves by the door, or not at all.
	m5 := f.hosts["m5"]
	r := m5.try("millrace uninstall --data")
	require.Equal(t, 2, r.code, r.out+r.err)
	require.Contains(t, r.err, "is one of the 2 that vote")
	require.Contains(t, r.err, "next: on a machine with a context: millrace master remove m5; then repeat this")
	m5.do("millrace supervise --status millrace-master")
	m1.do("millrace master remove m5")
	require.Contains(t, m5.do("millrace uninstall --data"), "removed service millrace-master")
	m1.do("millrace node list")
	require.Contains(t, m1.do("millrace uninstall"), "mind: it was the only master of site ")
}

// requireTaskUser: programs of jobs run as the user that init and join have made, and get no further than they have to.
func requireTaskUser(t *testing.T, m1 *labHost, names ...string) {
	t.Helper()
	m1.put("/root/probe.sh", `#!/bin/sh
cat > /dev/null
for folder in /var/lib/millrace /var/lib/millrace/master /var/lib/millrace/worker /etc/millrace; do ls $folder/. > /dev/null 2>&1 && echo "open: $folder"; done
for file in worker.log worker/node.json master/node.json; do cat /var/lib/millrace/$file > /dev/null 2>&1 && echo "open: $file"; done
id -un
`)
	m1.do("chmod 755 probe.sh && millrace run --mapper ./probe.sh --file probe.sh --reducer 'sort -u' s3://data/in s3://data/who")
	require.Equal(t, "millrace-task", strings.TrimSpace(m1.do("millrace fs cat 's3://data/who/part-*'")))
	for _, h := range m1.lab.hosts {
		if !slices.Contains(names, h.name) {
			continue
		}
		require.Regexp(t, `"--task-user",\s+"millrace-task"`, h.do("cat /etc/millrace/services/millrace-worker.json"), h.name)
		for path, mode := range map[string]os.FileMode{"var/lib/millrace": 0o711, "var/lib/millrace/worker": 0o710, "var/lib/millrace/worker.log": 0o600, "usr/local/bin/millrace": 0o755} {
			info, err := os.Stat(filepath.Join(h.root, path))
			require.NoError(t, err)
			require.Equal(t, mode, info.Mode().Perm(), "%s: %s", h.name, path)
		}
	}
	attempts := m1.lab.attempts()
	require.NotEmpty(t, attempts, "each worker keeps one ready")
	for pid, uid := range attempts {
		require.NotZero(t, uid, "process %s of an attempt runs as root", pid)
	}
}

// attempts are the processes that attempts run in, on all machines, and the users that they run as.
func (l *lab) attempts() map[string]uint32 {
	l.t.Helper()
	found := map[string]uint32{}
	for _, h := range l.hosts {
		pids, err := exec.Command("ip", "netns", "pids", h.ns).Output()
		require.NoError(l.t, err)
		for pid := range strings.FieldsSeq(string(pids)) {
			line, _ := os.ReadFile("/proc/" + pid + "/cmdline") // it may have ended
			words := strings.Split(string(line), "\x00")
			var st syscall.Stat_t
			if len(words) > 1 && words[1] == "attempt" && syscall.Stat("/proc/"+pid, &st) == nil {
				found[pid] = st.Uid
			}
		}
	}
	return found
}

// laptop is a machine with ssh, at which one may log in to another one, into its root. nil where there is no sshd.
func (l *lab) laptop(to *labHost) *labHost {
	l.t.Helper()
	h := l.bareHost("laptop", 100)
	home := l.t.TempDir()
	h.env = []string{"MILLRACE_HOME=" + filepath.Join(home, "millrace"), "PATH=" + home + ":" + filepath.Dir(binary(l.t)) + ":/usr/bin:/bin"}
	sshd, err := exec.LookPath("sshd")
	if err != nil {
		return h
	}
	l.sh(fmt.Sprintf(`cd %[1]s; mkdir -p /run/sshd
ssh-keygen -q -t ed25519 -N '' -f key; ssh-keygen -q -t ed25519 -N '' -f host
cp key.pub authorized; chmod 600 authorized
cat > ssh.conf <<EOF
IdentityFile %[1]s/key
UserKnownHostsFile /dev/null
StrictHostKeyChecking no
LogLevel ERROR
EOF
printf '#!/bin/sh\nexec /usr/bin/ssh -F %[1]s/ssh.conf "$@"\n' > ssh; chmod 755 ssh
cat > enter <<'EOF'
#!/bin/sh
exec env -i HOME=/root PATH=/usr/local/bin:/usr/sbin:/usr/bin:/bin "$(command -v chroot || echo /usr/sbin/chroot)" %[2]s /bin/sh -c "$SSH_ORIGINAL_COMMAND"
EOF
chmod 755 enter`, home, to.root))
	cmd := exec.Command("ip", "netns", "exec", to.ns, "unshare", "--uts", "sh", "-c", `hostname "$1"; shift; exec "$@"`, "sh", to.name, sshd, "-D", "-e", "-f", "/dev/null", "-p", "22",
		"-o", "HostKey="+home+"/host", "-o", "AuthorizedKeysFile="+home+"/authorized", "-o", "StrictModes=no", "-o", "PermitRootLogin=yes", "-o", "PidFile=none", "-o", "ForceCommand="+home+"/enter")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(l.t, cmd.Start())
	l.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return h
}

// site makes a master and core node of a first machine, with an open network, and gives its administrator's commands.
func (l *lab) site() *labHost {
	l.t.Helper()
	m1 := l.host("m1", 1)
	m1.bring(binary(l.t), "/root/millrace")
	m1.do(fmt.Sprintf("AWS_ACCESS_KEY_ID=%s AWS_SECRET_ACCESS_KEY=%s ./millrace init --role master,core --s3 %s", l.store.key, l.store.secret, l.store.endpoint))
	return m1
}

// nodesOf lists the running workers by name.
func (h *labHost) running() map[string]object {
	h.lab.t.Helper()
	var list []object
	r := h.try("millrace node list --json")
	if r.code != 0 || json.Unmarshal([]byte(r.out), &list) != nil {
		return nil
	}
	found := map[string]object{}
	for _, n := range list {
		if n.str("state") == "RUNNING" && n.str("role") != "MASTER" {
			found[n.str("name")] = n
		}
	}
	return found
}

func (h *labHost) awaitNode(name string) object {
	h.lab.t.Helper()
	var n object
	waitFor(h.lab.t, name+" is running", func() (bool, string) {
		all := h.running()
		n = all[name]
		return n != nil, fmt.Sprint(all)
	})
	return n
}

// An init whose object store does not take the key, or does not answer, changes nothing; once there is a site, another store is not
// taken for its own.
func TestAnInitTriesTheStoreFirst(t *testing.T) {
	l := newLab(t)
	m1 := l.host("m1", 1)
	m1.bring(binary(t), "/root/millrace")
	for store, says := range map[string]string{l.store.endpoint: "it does not know the access key nobody", "http://10.0.0.1:1": "connection refused"} {
		r := m1.try("AWS_ACCESS_KEY_ID=nobody AWS_SECRET_ACCESS_KEY=wrong ./millrace init --role master,core --s3 " + store)
		require.Equal(t, 3, r.code, r.err)
		require.Contains(t, r.err, "millrace: object store "+store+": ")
		require.Contains(t, r.err, says)
		require.Contains(t, r.err, "AWS_ACCESS_KEY_ID")
		for _, path := range []string{"var/lib/millrace", "etc/millrace", "usr/local/bin/millrace"} {
			require.NoFileExists(t, filepath.Join(m1.root, path))
			require.NoDirExists(t, filepath.Join(m1.root, path))
		}
	}
	init := "AWS_ACCESS_KEY_ID=%s AWS_SECRET_ACCESS_KEY=%s ./millrace init --role master --s3 %s"
	m1.do(fmt.Sprintf(init, l.store.key, l.store.secret, l.store.endpoint))
	require.NotContains(t, m1.do(fmt.Sprintf(init, l.store.key, l.store.secret, l.store.endpoint)), "next: ")
	again := m1.do(fmt.Sprintf(init, "nobody", l.store.secret, l.store.endpoint))
	require.Contains(t, again, "already; nothing was changed\nnext: the site still uses object store "+l.store.endpoint+" with key "+l.store.key)
	require.Contains(t, again, "/etc/millrace/master.env")
}

// A join that cannot succeed says why, and changes nothing; once that is mended, the same command does it.
func TestAJoinThatFailsNamesItsCause(t *testing.T) {
	l := newLab(t)
	m1 := l.site()
	token := strings.TrimSpace(m1.do("millrace join-token create --role task"))
	m2 := l.host("m2", 2)
	m2.bring(binary(t), "/root/millrace")
	m2.put("/root/token", token+"\n")
	join := "./millrace join https://10.0.0.1:7400 @token"
	fails := func(code int, says ...string) {
		t.Helper()
		r := m2.try(join)
		require.Equal(t, code, r.code, r.err)
		for _, s := range says {
			require.Contains(t, r.err, s)
		}
		require.Regexp(t, `(?m)^next: `, r.err)
		require.NotContains(t, r.err, token)
		require.NoFileExists(t, filepath.Join(m2.root, "var/lib/millrace/worker/node.json"))
		require.NoFileExists(t, filepath.Join(m2.root, "usr/local/bin/millrace"))
	}

	m1.firewall("7401/tcp", "7402/tcp", "7402/udp")
	fails(3, "millrace: cannot reach 10.0.0.1:7400/tcp: open the port, or --advertise (no answer within 5s)\n")
	m1.firewall("7400/tcp", "7402/tcp")
	fails(3, "millrace: cannot reach 10.0.0.1:7402/udp: open the port, or --advertise (no answer within 5s)\n")
	m1.firewall("7400/tcp", "7402/tcp", "7402/udp")
	m2.firewall("7410/tcp")
	fails(3, "millrace: master m1 cannot reach 10.0.0.2:7412/tcp: open the port, or --advertise (no answer within 4s)\n",
		"millrace: master m1 cannot reach 10.0.0.2:7412/udp: open the port, or --advertise (no answer within 4s)\n")
	m2.firewall("7410/tcp", "7412/tcp", "7412/udp")

	good := join
	join = good + " --advertise 10.0.0.77"
	fails(3, "cannot reach 10.0.0.77")
	join = good + " --advertise wlan7"
	fails(2, "--advertise wlan7: wlan7 is neither an address, nor an interface")
	join = "./millrace join https://10.0.0.1:7399 @token"
	fails(3, "cannot reach 10.0.0.1:7399/tcp")
	join = "./millrace join https://10.0.0.1:7401 @token"
	m1.firewall("7400/tcp", "7401/tcp", "7402/tcp", "7402/udp")
	fails(2, "https://10.0.0.1:7401: this is the port for masters among themselves (Raft), not the HTTPS port of a master")
	join = "./millrace join 10.0.0.1 " + token[:len(token)-4]
	fails(2, "not a join token")
	id := strings.Split(token, ".")[1]
	m1.do("millrace join-token revoke " + id)
	join = good
	fails(3, "join token refused")

	m2.put("/root/token", m1.do("millrace join-token create --role task --uses 1"))
	r := m2.try(good + " --task-user jobs")
	require.Equal(t, 2, r.code, r.err)
	require.Contains(t, r.err, "--task-user jobs: make user jobs: this machine has neither useradd nor an adduser of busybox")
	require.Contains(t, r.err, "next: mend that, or --task-user none")
	require.NoFileExists(t, filepath.Join(m2.root, "var/lib/millrace/worker/node.json"))
	out := m2.do(good)
	require.Contains(t, out, "mind: jobs' programs run as root here")
	require.Contains(t, out, "joined: this machine is i-")
	require.Contains(t, m2.do(good), "had joined already", "the token is used up, and not needed")
	n := m1.awaitNode("m2")
	require.Equal(t, "https://10.0.0.2:7410", n.str("address"))

	// Another machine takes the same address: two nodes cannot have it.
	m2.off()
	thief := l.host("m3", 3)
	thief.bring(binary(t), "/root/millrace")
	thief.put("/root/token", m1.do("millrace join-token create --role task"))
	l.sh("ip -n " + thief.ns + " addr add 10.0.0.9/24 dev eth0")
	require.NotContains(t, thief.do("./millrace join 10.0.0.1 @token --advertise 10.0.0.9 --task-user none"), "jobs' programs")
	other := l.host("m4", 4)
	other.bring(binary(t), "/root/millrace")
	other.put("/root/token", m1.do("millrace join-token create --role task"))
	r = other.try("./millrace join 10.0.0.1 @token --advertise 10.0.0.9")
	require.NotZero(t, r.code)
	require.Contains(t, r.err, "https://10.0.0.9:7410 is the address of node m3 (i-")

	// A machine of one site is not taken by another.
	foreign := l.host("m5", 5)
	foreign.bring(binary(t), "/root/millrace")
	foreign.do(fmt.Sprintf("AWS_ACCESS_KEY_ID=%s AWS_SECRET_ACCESS_KEY=%s ./millrace init --s3 %s --system s3://other/", l.store.key, l.store.secret, l.store.endpoint))
	thief.put("/root/other", foreign.do("millrace join-token create --role task"))
	r = thief.try("millrace join 10.0.0.5 @other")
	require.Equal(t, 2, r.code, r.err)
	require.Regexp(t, `this machine is node i-\w+ of site site-\w+, and the token is of another site\nnext: leave it first: millrace node drain`, r.err)
}
