package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"connectrpc.com/connect"

	"millrace/master"
	"millrace/pkg/client"
	"millrace/pkg/joining"
	"millrace/pkg/nodedir"
	"millrace/pkg/objectstore"
	"millrace/pkg/protocol"
	"millrace/pkg/security"
	"millrace/worker"
)

// roleFault turns the error that ended a role, or kept it from starting, into what people can
// do about it on this machine: there may be no cluster yet to ask.
func (c *call) roleFault(command, dir string, err error) error {
	var f *fault
	if err == nil || errors.As(err, &f) {
		return err
	}
	lines := strings.Split(err.Error(), "\n")
	with := func(code int, next string, args ...any) error {
		return &fault{lines: lines, next: fmt.Sprintf(next, args...), code: code}
	}
	var skew *protocol.Skew
	create := "millrace join-token create --role core (or task)"
	if strings.HasPrefix(command, "millrace master") {
		create = "millrace join-token create --role master"
	}
	switch {
	case errors.Is(err, joining.ErrNotJoined):
		return with(exitUsage, "on a machine with a context: %s; it prints the command for here, with --join and --token", create)
	case errors.Is(err, worker.ErrRemoved), errors.Is(err, master.ErrRemoved):
		return with(exitNotFound, "to have the machine join again: %s, and an empty folder", create)
	case errors.Is(err, joining.ErrOtherNode):
		return with(exitUsage, "name another folder: %s --dir DIR", command)
	case errors.Is(err, master.ErrUnfinished):
		return with(exitUsage, "millrace master restore FILE --dir %s; for anything else name an empty folder", dir)
	case errors.Is(err, nodedir.ErrInUse):
		return with(exitUsage, "end the process that uses it, or name another folder: %s --dir DIR", command)
	case errors.As(err, &skew) && connect.CodeOf(err) == connect.CodeUnknown: // of a folder; a master's word needs nothing more
		return with(exitUsage, "%s", skew.Next())
	case errors.Is(err, nodedir.ErrNewer), errors.Is(err, protocol.ErrNewer):
		return with(exitUsage, "use the version that wrote it, or a later one; or name another folder: %s --dir DIR", command)
	case errors.Is(err, syscall.EADDRINUSE):
		flag, line := c.portInUse(err)
		return usagef(fmt.Sprintf("end what has the port, or choose another: %s --%s HOST:PORT", command, flag), "%s", line)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return with(exitUsage, "name an address of this machine (ip addr lists them), or none: --listen :PORT")
	case errors.Is(err, syscall.EACCES) && strings.Contains(err.Error(), "listen "):
		return with(exitUsage, "choose a port above 1023: --listen HOST:PORT")
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return with(exitFailed, "make room on the disk of %s (df -h %s), then start it again; nothing was lost", dir, dir)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ENOTDIR), notMade(err):
		return with(exitUsage, "name a folder that this user can write to: %s --dir DIR", command)
	case errors.Is(err, objectstore.ErrDenied), errors.Is(err, objectstore.ErrUnreachable):
		lines[0] = storeName(err) + lines[0]
		return with(exitUnreachable, "%s", cmp.Or(objectstore.Advice(err), "check --s3, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"))
	case errors.Is(err, security.ErrMalformedToken):
		return with(exitUsage, "copy the token whole, or make one: %s", create)
	case errors.Is(err, security.ErrUntrusted):
		return with(exitUnreachable, "copy the token whole, and check that --join is the site that it is of: millrace join-token create prints both")
	case errors.Is(err, client.ErrRaftPort):
		lines = client.Problems(err).GetErrors()
		return with(exitUsage, "name the HTTPS port of a master: %s --join https://HOST:7400", command)
	case connect.CodeOf(err) == connect.CodeUnauthenticated, connect.CodeOf(err) == connect.CodePermissionDenied:
		lines = strings.Split(strings.TrimPrefix(err.Error(), "join: "+connect.CodeOf(err).String()+": join: "), "\n")
		return with(exitUnreachable, "the token may have expired or been used up; make another: %s", create)
	}
	if p := client.Problems(err); p.GetNext() == "" && p.GetExitCode() == 0 && storeCode(err) == 0 {
		return with(exitFailed, "what it logged above may say more; %s --help", command)
	}
	return err
}

// portInUse says which flag's port is taken, and by whom.
func (c *call) portInUse(err error) (flag, line string) {
	flag = "listen"
	address := c.String(flag)
	for _, f := range []string{"listen", "raft-listen", "gossip-listen"} {
		if v := c.String(f); v != "" && strings.Contains(err.Error(), v) {
			flag, address = f, v
			break
		}
	}
	line = fmt.Sprintf("--%s %s: the port is in use by another process", flag, address)
	if who := listener(address); who != "" {
		line += " (" + who + ")"
	}
	return flag, line
}

// notMade says that a folder could not be made.
func notMade(err error) bool {
	var p *fs.PathError
	return errors.As(err, &p) && p.Op == "mkdir"
}
