package attempt

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protodelim"

	"millrace/pkg/api"
)

// TestMain makes the test binary its own child: what the lease's arguments say,
// it does.
func TestMain(m *testing.M) {
	if os.Getenv(EnvFD) != "" {
		fakeChild()
		os.Exit(0)
	}
	if mark := os.Getenv("FAKE_GRANDCHILD"); mark != "" {
		fakeGrandchild(mark)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type fake struct {
	conn net.Conn
	in   *bufio.Reader
}

func (f *fake) send(m *api.FromChild) {
	if _, err := protodelim.MarshalTo(f.conn, m); err != nil {
		os.Exit(9)
	}
}

func (f *fake) next() *api.ToChild {
	m := &api.ToChild{}
	if err := protodelim.UnmarshalFrom(f.in, m); err != nil {
		os.Exit(0) // the worker has gone, or needs us no more
	}
	return m
}

func fakeChild() {
	fd, _ := strconv.Atoi(os.Getenv(EnvFD))
	file := os.NewFile(uintptr(fd), "socket")
	conn, err := net.FileConn(file)
	file.Close()
	if err != nil {
		os.Exit(8)
	}
	f := &fake{conn: conn, in: bufio.NewReader(conn)}
	hello := &api.ChildHello{ProtocolMin: 1, ProtocolMax: 1, SdkVersion: "fake"}
	switch os.Getenv("FAKE_HELLO") {
	case "newer":
		hello.ProtocolMin, hello.ProtocolMax = 7, 9
	case "older":
		hello.ProtocolMin, hello.ProtocolMax = 0, 0
	case "mute":
		time.Sleep(time.Hour)
	case "crash":
		fmt.Fprintln(os.Stderr, "cannot even start")
		os.Exit(4)
	}
	f.send(&api.FromChild{Message: &api.FromChild_Hello{Hello: hello}})
	for n := 1; ; n++ {
		m := f.next()
		if m.GetWelcome() != nil {
			n--
			continue
		}
		if l := m.GetLease(); l != nil {
			f.run(l, n)
		}
	}
}

func (f *fake) run(l *api.ChildLease, n int) {
	result := &api.AttemptResult{OutputRecords: int64(n), OutputParts: int32(os.Getpid())}
	reusable := true
	for _, arg := range l.Program.Args {
		verb, rest, _ := strings.Cut(arg, "=")
		num, _ := strconv.Atoi(rest)
		switch verb {
		case "say":
			fmt.Fprint(os.Stderr, rest)
		case "flood":
			os.Stderr.WriteString(strings.Repeat("x", num))
		case "exit":
			os.Exit(num)
		case "signal":
			_ = syscall.Kill(os.Getpid(), syscall.Signal(num))
			time.Sleep(time.Hour)
		case "fail":
			result.Failure = &api.Failure{Kind: api.FailureKind_FAILURE_KIND_PROGRAM, Message: rest}
		case "once":
			reusable = false
		case "killed": // as the SDK says when somebody has sent SIGTERM
			result.Failure = &api.Failure{Kind: api.FailureKind_FAILURE_KIND_KILLED, Message: "killed"}
		case "frozen": // takes nothing more from the socket
			f.send(&api.FromChild{Message: &api.FromChild_Progress{Progress: &api.ChildProgress{Attempt: l.Attempt}}})
			time.Sleep(time.Hour)
		case "progress":
			f.send(&api.FromChild{Message: &api.FromChild_Progress{Progress: &api.ChildProgress{Attempt: l.Attempt, BytesDone: int64(num)}}})
		case "idle": // reports, and gets no further
			for {
				f.send(&api.FromChild{Message: &api.FromChild_Progress{Progress: &api.ChildProgress{Attempt: l.Attempt, BytesDone: 7}}})
				time.Sleep(5 * time.Millisecond)
			}
		case "close":
			f.conn.Close()
			time.Sleep(time.Hour)
		case "shell": // runs a command in a process group of its own, as streaming does
			cmd := exec.Command("sh", "-c", rest)
			cmd.Dir, cmd.Stderr, cmd.SysProcAttr = l.WorkDir, os.Stderr, &syscall.SysProcAttr{Setpgid: true}
			if err := cmd.Run(); err != nil {
				result.Failure = &api.Failure{Kind: api.FailureKind_FAILURE_KIND_PROGRAM, Message: err.Error()}
			}
		case "ptrace":
			if syscall.PtraceAttach(num) == nil {
				fmt.Fprintln(os.Stderr, "OPEN: ptrace of", num)
			}
		case "self": // says what it has been given
			env, _ := os.ReadFile("/proc/self/environ")
			line, _ := os.ReadFile("/proc/self/cmdline")
			fmt.Fprintf(os.Stderr, "environ %q\ncmdline %q\n", env, line)
			fds, _ := os.ReadDir("/proc/self/fd")
			for _, fd := range fds {
				to, _ := os.Readlink("/proc/self/fd/" + fd.Name())
				fmt.Fprintf(os.Stderr, "fd %s %s\n", fd.Name(), to)
			}
		case "polite": // ends the attempt when told to
			if f.next().GetCancel() != nil {
				result.Failure = &api.Failure{Kind: api.FailureKind_FAILURE_KIND_KILLED, Message: "as told"}
			}
		case "deaf": // ends at nothing but SIGKILL
			signal.Ignore(syscall.SIGTERM)
			os.Create(filepath.Join(l.WorkDir, "deaf"))
			time.Sleep(time.Hour)
		case "hang":
			time.Sleep(time.Hour)
		case "segments":
			for got := 0; got < num; {
				list := f.next().GetSegments().GetSegments()
				got += len(list)
				for _, s := range list {
					result.OutputBytes += s.Length
				}
			}
		case "grandchild": // in a session of its own; once it runs it makes the file
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "FAKE_GRANDCHILD="+filepath.Join(l.WorkDir, rest), EnvFD+"=")
			if strings.HasPrefix(rest, "bare") { // and without the token
				cmd.Env = []string{"FAKE_GRANDCHILD=" + filepath.Join(l.WorkDir, rest)}
			}
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			cmd.Stderr = os.Stderr
			if err := cmd.Start(); err != nil {
				os.Exit(7)
			}
			for waitFile(filepath.Join(l.WorkDir, rest)) == "" {
				time.Sleep(time.Millisecond)
			}
		}
	}
	f.send(&api.FromChild{Message: &api.FromChild_Result{Result: &api.ChildResult{Attempt: l.Attempt, Result: result, Reusable: reusable}}})
}

// fakeGrandchild outlives what it can.
func fakeGrandchild(mark string) {
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	tmp := mark + ".tmp"
	if os.WriteFile(tmp, []byte(strconv.Itoa(os.Getpid())), 0o600) != nil || os.Rename(tmp, mark) != nil {
		os.Exit(6)
	}
	for strings.HasPrefix(filepath.Base(mark), "chatty") { // never leaves the pipe empty
		os.Stderr.WriteString(strings.Repeat("chat ", 10_000))
	}
	time.Sleep(time.Hour)
}

func waitFile(path string) string {
	data, _ := os.ReadFile(path)
	return string(data)
}
