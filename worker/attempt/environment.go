package attempt

import (
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// passedOn are the variables of the worker that its children get: where things are, the language, how the network is reached, and
// what a language's own runtime reads. All others may be somebody's secret. What a job needs further it says itself.
var passedOn = []string{
	"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TERM", "LANG", "LANGUAGE", "TZ", "TZDIR",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR",
	"LD_LIBRARY_PATH", "JAVA_HOME", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PERL5LIB", "RUBYLIB", "GEM_PATH", "NODE_PATH",
	"GODEBUG", "GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GOTRACEBACK", "GORACE", "GOCOVERDIR",
}

// ofTheUser are those that say who somebody is: as another user a child has others.
var ofTheUser = []string{"HOME", "USER", "LOGNAME", "SHELL", "TMPDIR"}

// childEnv is a child's environment, of this process's.
func childEnv(env []string, u *User) (out []string) {
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		switch {
		case u != nil && slices.Contains(ofTheUser, name):
		case slices.Contains(passedOn, name), strings.HasPrefix(name, "LC_"):
			out = append(out, e)
		}
	}
	if u != nil {
		out = append(out, "HOME="+u.home, "USER="+u.name, "LOGNAME="+u.name)
	}
	return out
}

// closeOnExec has no child inherit a descriptor that this process was itself left by whoever started it. What Go opens is never inherited.
func closeOnExec() {
	if unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return
	}
	fds, err := os.ReadDir("/proc/self/fd") // kernels before 5.11
	if err != nil {
		return
	}
	for _, e := range fds {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
}
