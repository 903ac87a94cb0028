package attempt

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// process is one line of /proc.
type process struct {
	pid, ppid, pgid int
	state           byte   // 'Z': a zombie
	start           uint64 // ticks after boot
	cpu             time.Duration
}

// clockTick is what /proc counts CPU time in: USER_HZ, 100 on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// processes lists all processes. One that ends meanwhile is left out.
func processes() []process {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil
	}
	var out []process
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil {
			continue
		}
		if p, ok := readStat(pid); ok {
			out = append(out, p)
		}
	}
	return out
}

func readStat(pid int) (process, bool) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, false
	}
	return parseStat(data)
}

// parseStat reads proc_pid_stat(5). The name, in parentheses, may hold anything.
func parseStat(data []byte) (p process, ok bool) {
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 0 || end < open {
		return p, false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data[:open])))
	f := strings.Fields(string(data[end+1:]))
	if err != nil || len(f) < 20 || len(f[0]) != 1 {
		return p, false
	}
	var n [20]int64
	for _, i := range []int{1, 2, 11, 12, 13, 14, 19} {
		if n[i], err = strconv.ParseInt(f[i], 10, 64); err != nil {
			return p, false
		}
	}
	// utime, stime, and those of children waited for.
	ticks := n[11] + n[12] + n[13] + n[14]
	return process{pid: pid, state: f[0][0], ppid: int(n[1]), pgid: int(n[2]),
		start: uint64(n[19]), cpu: time.Duration(ticks) * clockTick}, true
}

// cpuTime is the CPU time of a process and the children it has waited for; 0 if it is gone.
func cpuTime(pid int) time.Duration {
	p, _ := readStat(pid)
	return p.cpu
}

// carries says whether a process was started with the token, or one that begins so.
func carries(pid int, token string, prefix bool) bool {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return false // gone, a zombie, or somebody else's
	}
	return hasToken(env, token, prefix)
}

func hasToken(env []byte, token string, prefix bool) bool {
	want := []byte(EnvToken + "=" + token)
	for len(env) > 0 {
		var one []byte
		one, env, _ = bytes.Cut(env, []byte{0})
		if bytes.Equal(one, want) || prefix && bytes.HasPrefix(one, want) {
			return true
		}
	}
	return false
}

// tokenPrefix reads the node directory's own, or makes it: what a former life
// started carries it, too.
func tokenPrefix(path string) (string, error) {
	data, err := os.ReadFile(path)
	if s := strings.TrimSpace(string(data)); err == nil && len(s) == 32 {
		return s, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return "", err
	}
	s := hex.EncodeToString(b)
	return s, os.WriteFile(path, []byte(s+"\n"), 0o600)
}
