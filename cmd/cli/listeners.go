package cli

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// listener names the process that has a port of this machine, as far as /proc shows it to this
// user: "pid 123, python3"; else "".
func listener(address string) string {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return ""
	}
	inodes := map[string]bool{}
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		socketsOn(table, uint16(n), inodes)
	}
	if len(inodes) == 0 {
		return ""
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is a good one
	for _, fd := range fds {
		to, err := os.Readlink(fd)
		if err != nil || !inodes[strings.TrimSuffix(strings.TrimPrefix(to, "socket:["), "]")] {
			continue
		}
		pid := strings.Split(fd, "/")[2]
		name, err := os.ReadFile(filepath.Join("/proc", pid, "comm"))
		if err != nil {
			continue
		}
		return fmt.Sprintf("pid %s, %s", pid, clean(strings.TrimSpace(string(name))))
	}
	return ""
}

// socketsOn adds the inodes of the sockets that are bound to a port without a peer.
func socketsOn(table string, port uint16, inodes map[string]bool) {
	f, err := os.Open("/proc/net/" + table)
	if err != nil {
		return
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		// sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode …
		field := strings.Fields(s.Text())
		if len(field) > 9 && strings.HasSuffix(field[1], fmt.Sprintf(":%04X", port)) && strings.HasSuffix(field[2], ":0000") {
			inodes[field[9]] = true
		}
	}
}
