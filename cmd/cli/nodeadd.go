package cli

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	"millrace/pkg/api"
	"millrace/pkg/security"
)

func (a *app) nodeAddCommand() *cli.Command {
	return a.leaf(spec{name: "add", usage: "make machines nodes, over this machine's ssh: each gets the program and joins", args: "USER@HOST…", min: 1, max: -1,
		example: "millrace node add --role core root@10.0.0.2 root@10.0.0.3\nmillrace node add --role task --ssh-option Port=2222 admin@build7   (admin needs sudo without a password)",
		flags: append([]cli.Flag{
			&cli.StringFlag{Name: "role", Usage: "`ROLE` of the machines: core, task, pool or master", Value: "core"},
			&cli.StringSliceFlag{Name: "ssh-option", Usage: "`NAME=VALUE` for ssh -o (repeatable); else what ~/.ssh/config says"},
			&cli.IntFlag{Name: "at-once", Usage: "machines at once, `N`", Value: 8},
			machineDirFlag(),
		}, workerFlags()...), do: nodeAdd})
}

// added is how it went with one machine.
type added struct {
	Host  string `json:"host"`
	OK    bool   `json:"ok"`
	Node  string `json:"id,omitempty"`
	Note  string `json:"note,omitempty"`
	Error string `json:"error,omitempty"`
}

// hostForm keeps a host from being an option of ssh.
var hostForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@:%\[\]-]*$`)

// adder adds machines.
type adder struct {
	c       *call
	conn    *connection
	masters []string
	role    string
	mu      sync.Mutex
	fetched map[string][]byte // programs from a master, by architecture
}

func nodeAdd(c *call) error {
	role := strings.ToLower(c.String("role"))
	var m mistakes
	if role != "core" && role != "task" && role != "pool" && role != "master" {
		m.wrong("millrace node add --role core", "--role %s is not one of core, task, pool, master", c.String("role"))
	}
	for _, host := range c.args {
		if !hostForm.MatchString(host) {
			m.wrong("millrace node add USER@HOST", "%q is no host for ssh", host)
		}
	}
	if c.Int("at-once") < 1 {
		m.wrong("--at-once 8", "--at-once %d: at least 1", c.Int("at-once"))
	}
	if err := m.fault(); err != nil {
		return err
	}
	if _, err := exec.LookPath("ssh"); err != nil {
		return usagef("install an ssh client, or on each machine: millrace join URL TOKEN", "there is no ssh on this machine")
	}
	conn, err := c.connect()
	if err != nil {
		return err
	}
	a := &adder{c: c, conn: conn, role: role, fetched: map[string][]byte{}}
	if a.masters, err = conn.masterURLs(c.Context.Context); err != nil {
		return err
	}
	results := a.all(c.Context.Context, c.args)
	failed := 0
	for _, r := range results {
		if !r.OK {
			failed++
		}
	}
	if err := c.print(results, func(w io.Writer) {
		for _, r := range results {
			if r.OK {
				fmt.Fprintf(w, "%s: %s, %s\n", r.Host, r.Node, r.Note)
			} else {
				fmt.Fprintf(w, "%s: failed: %s\n", r.Host, strings.ReplaceAll(r.Error, "\n", "\n"+r.Host+":   "))
			}
		}
	}); err != nil || failed == 0 {
		return err
	}
	return faultf(exitFailed, "mend what is said of each, then repeat the command: machines that have joined stay as they are", "%d of %d machines were not added", failed, len(results))
}

// all adds machines, several at once.
func (a *adder) all(ctx context.Context, hosts []string) []added {
	results := make([]added, len(hosts))
	slots := make(chan struct{}, a.c.Int("at-once"))
	var group sync.WaitGroup
	for i, host := range hosts {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			results[i] = added{Host: host}
			err := a.one(ctx, &results[i])
			if results[i].OK = err == nil; err != nil {
				results[i].Error = err.Error()
			}
			if !a.c.json && err == nil {
				a.c.sayer()("%s is done", host)
			}
		})
	}
	group.Wait()
	return results
}

// one adds a machine: looks what it is, brings the program, and has it join with a token of its own, on standard input.
func (a *adder) one(ctx context.Context, r *added) error {
	out, err := a.ssh(ctx, r.Host, nil, "uname -s && uname -m && id -u")
	if err != nil {
		return err
	}
	words := strings.Fields(string(out))
	if len(words) != 3 || words[0] != "Linux" {
		return fmt.Errorf("it is no Linux machine: %s", strings.TrimSpace(string(out)))
	}
	token, err := a.conn.api().CreateJoinToken(ctx, connect.NewRequest(&api.CreateJoinTokenRequest{
		Cluster: a.clusterOf(), Role: a.role, TtlMs: time.Hour.Milliseconds(), Uses: 1}))
	if err != nil {
		return errors.New(strings.Join(explain(ctx, err).lines, "; "))
	}
	program, err := a.program(ctx, archOf(words[1]), token.Msg.GetToken())
	if err != nil {
		return err
	}
	name := make([]byte, 8)
	if _, err := rand.Read(name); err != nil {
		return err
	}
	brought := "/tmp/millrace-" + hex.EncodeToString(name)
	defer a.ssh(context.WithoutCancel(ctx), r.Host, nil, "rm -f "+brought)
	if _, err := a.ssh(ctx, r.Host, program, "umask 077 && cat > "+brought+" && chmod 700 "+brought); err != nil {
		return err
	}
	sudo := ""
	if words[2] != "0" {
		sudo = "sudo -n "
	}
	out, err = a.ssh(ctx, r.Host, []byte(token.Msg.GetToken()+"\n"), sudo+brought+" join --json "+strings.Join(a.joinFlags(), " ")+" "+strings.Join(a.masters, " ")+" -")
	if err != nil {
		return err
	}
	var j joined
	if err := json.Unmarshal(out, &j); err != nil {
		return fmt.Errorf("its join said: %s", strings.TrimSpace(string(out)))
	}
	r.Node, r.Note = j.Node, "joined as "+strings.ToLower(j.Role)
	if j.Already {
		r.Note = "had joined already, as " + strings.ToLower(j.Role)
		// Its token was not needed: nobody else shall use it.
		_, err = a.conn.api().RevokeJoinToken(ctx, connect.NewRequest(&api.RevokeJoinTokenRequest{Id: token.Msg.GetId()}))
	}
	if j.AsRoot != "" {
		r.Note += "; mind: jobs' programs run as root there: " + j.AsRoot
	}
	return err
}

func (a *adder) clusterOf() string {
	if a.role == "pool" || a.role == "master" {
		return ""
	}
	return a.conn.cluster
}

// joinFlags are the flags that join gets there, for a shell.
func (a *adder) joinFlags() (words []string) {
	for _, name := range []string{"dir", "slots", "memory", "rack", "task-user"} {
		if a.c.IsSet(name) {
			words = append(words, "--"+name, shellQuoted(a.c.String(name)))
		}
	}
	for _, dir := range a.c.StringSlice("data-dir") {
		words = append(words, "--data-dir", shellQuoted(dir))
	}
	return words
}

func shellQuoted(w string) string { return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'" }

// archOf is Go's name for what uname -m says.
func archOf(machine string) string {
	return cmp.Or(map[string]string{"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm"}[machine], machine)
}

// program is millrace for an architecture: this one's own, or a master's.
func (a *adder) program(ctx context.Context, arch, token string) ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p := a.fetched[arch]; p != nil {
		return p, nil
	}
	var p []byte
	var err error
	if runtime.GOOS == "linux" && arch == runtime.GOARCH {
		p, err = os.ReadFile("/proc/self/exe")
	} else {
		p, err = a.fetch(ctx, arch, token)
	}
	if err == nil {
		a.fetched[arch] = p
	}
	return p, err
}

// fetch gets a program from the first master that has one.
func (a *adder) fetch(ctx context.Context, arch, token string) ([]byte, error) {
	t, err := security.ParseToken(token)
	if err != nil {
		return nil, err
	}
	var failed error
	for _, master := range a.masters {
		p, err := fetchProgram(ctx, master, "linux-"+arch, t)
		if err == nil {
			return p, nil
		}
		failed = errors.Join(failed, err)
	}
	return nil, fmt.Errorf("no program for its architecture, %s: %w", arch, failed)
}

// mostProgram bounds what is taken for a program.
const mostProgram = 1 << 30

func fetchProgram(ctx context.Context, master, name string, t security.Token) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, master+"/v1/binaries/"+name, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+hex.EncodeToString(t.SecretHash()))
	transport := &http.Transport{TLSClientConfig: security.JoinTLS(t), ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, mostProgram))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", master, strings.TrimSpace(string(data)))
	}
	return data, err
}

// ssh runs a command line on a host and gives what it prints. It asks nobody anything: BatchMode.
func (a *adder) ssh(ctx context.Context, host string, stdin []byte, command string) ([]byte, error) {
	argv := []string{"-o", "BatchMode=yes", "-o", "ConnectTimeout=10"}
	for _, o := range a.c.StringSlice("ssh-option") {
		argv = append(argv, "-o", o)
	}
	cmd := exec.CommandContext(ctx, "ssh", append(argv, "--", host, command)...)
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.WaitDelay = time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, errors.New(cmp.Or(sshSaid(errs.String()), err.Error()))
	}
	return out.Bytes(), nil
}

// sshSaid is what went wrong there: our own program's error as JSON, or the last lines of what was said.
func sshSaid(text string) string {
	text = strings.TrimSpace(text)
	if i := strings.LastIndex(text, `{"error":`); i >= 0 {
		var e errorView
		if json.Unmarshal([]byte(text[i:]), &e) == nil && len(e.Errors) > 0 {
			return strings.Join(e.Errors, "\n")
		}
	}
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}
