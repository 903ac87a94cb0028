package attempt

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is one line of /proc.
type process struct {
	pid, ppid, pgid int
	state           byte   // 'Z': a zombie
	start           uint64 // ticks after boot
	cpu             time.Duration
	memory          int64 // bytes in RAM, with what it shares
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
	if err != nil || len(f) < 22 || len(f[0]) != 1 {
		return p, false
	}
	var n [22]int64
	for _, i := range []int{1, 2, 11, 12, 13, 14, 19, 21} {
		if n[i], err = strconv.ParseInt(f[i], 10, 64); err != nil {
			return p, false
		}
	}
	// utime, stime, and those of children waited for.
	ticks := n[11] + n[12] + n[13] + n[14]
	return process{pid: pid, state: f[0][0], ppid: int(n[1]), pgid: int(n[2]),
		start: uint64(n[19]), cpu: time.Duration(ticks) * clockTick, memory: n[21] * pageSize}, true
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
// started carries it, too. A copy of the directory gets one of its own: what the original has started is not its.
func tokenPrefix(path string) (string, error) {
	here, err := placeOf(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if s, place, _ := strings.Cut(strings.TrimSpace(string(data)), " "); len(s) == 32 && place == here {
		return s, nil
	}
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return "", err
	}
	s := hex.EncodeToString(b)
	return s, writeToken(path, s)
}

func writeToken(path, token string) error {
	here, err := placeOf(filepath.Dir(path))
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(token+" "+here+"\n"), 0o600)
}

// placeOf tells a folder from its copies: by the file system and the number that it has there.
func placeOf(dir string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return "", fmt.Errorf("folder %s: %w", dir, err)
	}
	return fmt.Sprintf("%x-%x", uint64(st.Dev), st.Ino), nil
}
