package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"syscall"

	"connectrpc.com/connect"

	"millrace/pkg/client"
	"millrace/pkg/objectstore"
)

// fault is an error in the form people get it: a line per mistake, what to do
// next, the exit code.
type fault struct {
	lines []string
	next  string
	code  int
}

func (f *fault) Error() string { return strings.Join(f.lines, "; ") }

func faultf(code int, next, format string, args ...any) *fault {
	return &fault{lines: []string{fmt.Sprintf(format, args...)}, next: next, code: code}
}

// usagef is a mistake on the command line; nothing was started.
func usagef(next, format string, args ...any) *fault {
	return faultf(exitUsage, next, format, args...)
}

// silent ends a command with an exit code after it has said everything itself.
type silent struct{ code int }

func (s silent) Error() string { return fmt.Sprintf("exit code %d", s.code) }

// errTimedOut is the cause of what --timeout ended.
var errTimedOut = errors.New("timed out")

// explain turns any error into a fault. Its next is empty if the error has no advice of its own.
func explain(ctx context.Context, err error) *fault {
	var f *fault
	if errors.As(err, &f) {
		out := *f
		return &out
	}
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || connect.CodeOf(err) == connect.CodeCanceled) {
		return faultf(exitInterrupted, "run it again when you are ready", "interrupted")
	}
	if code := storeCode(err); code != 0 {
		return faultf(code, storeNext(err, code), "%s%s", storeName(err), err)
	}
	p := client.Problems(err)
	out := &fault{lines: p.GetErrors(), next: p.GetNext(), code: int(p.GetExitCode())}
	if out.code == 0 {
		out.code = exitFailed
	}
	if errors.Is(err, errTimedOut) {
		out.code = exitTimeout
	}
	if out.next == "" && out.code == exitFailed {
		out.next = systemNext(err)
	}
	return out
}

// systemNext is what to do about an error of this machine, "" for others.
func systemNext(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "make room where it was to be written, then repeat the command"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return "check the permissions there, then repeat the command"
	}
	return ""
}

// storeCode is the exit code of an object store's error, 0 for others.
func storeCode(err error) int {
	switch {
	case errors.Is(err, objectstore.ErrUnreachable), errors.Is(err, objectstore.ErrDenied):
		return exitUnreachable
	case errors.Is(err, objectstore.ErrNoSuchBucket), errors.Is(err, objectstore.ErrNotExist), errors.Is(err, os.ErrNotExist):
		return exitNotFound
	case errors.Is(err, objectstore.ErrInvalid):
		return exitUsage // a name, a key: nothing that a repetition would change
	}
	return 0
}

// storeName says which store did not answer, or refused the credential.
func storeName(err error) string {
	var e *objectstore.Error
	if !errors.As(err, &e) || e.Endpoint == "" || e.Kind != objectstore.ErrUnreachable && e.Kind != objectstore.ErrDenied {
		return ""
	}
	return "object store " + e.Endpoint + ": "
}

func storeNext(err error, code int) string {
	if next := objectstore.Advice(err); next != "" {
		return next
	}
	if errors.Is(err, objectstore.ErrDenied) {
		return "check the key: millrace context show says which object store is used, and as whom"
	}
	if errors.Is(err, objectstore.ErrUnreachable) {
		return "check that the object store is up and its URL is right: millrace context show"
	}
	return ""
}

// advice is what to do about an error that says nothing of it itself: it is of the command that failed.
func (a *app) advice(code int) string {
	noun, verb := "", ""
	if len(a.inv.path) > 0 {
		noun, verb = a.inv.path[0].Name, a.inv.command().Name
	}
	switch code {
	case exitUsage:
		return a.inv.name() + " --help"
	case exitUnreachable:
		return "check that the cluster and the store are up (millrace status), then repeat the command; nothing was lost"
	case exitNotFound:
		switch noun {
		case "job", "results", "run":
			return "millrace job list"
		case "node", "cluster", "context", "join-token":
			return "millrace " + noun + " list"
		case "fs":
			return "millrace fs ls"
		}
		return "check the name: millrace job list, millrace node list, millrace fs ls"
	case exitTimeout:
		return "repeat with a longer --timeout"
	case exitInterrupted:
		return "run it again when you are ready"
	}
	switch {
	case noun == "job" && len(a.inv.args) == 1 && verb != "submit" && verb != "show":
		return "millrace job show " + a.inv.args[0]
	case noun == "join-token":
		return "millrace join-token list"
	case a.conn != nil:
		return "millrace status says how the cluster is"
	}
	return "mend that, then repeat the command"
}

// again is the command with its arguments, to be given flags, as far as they can be typed as they are. A secret among them is
// not said again.
func (a *app) again() string {
	words := []string{a.inv.name()}
	if usage := a.inv.command().ArgsUsage; strings.Contains(usage, "TOKEN") || strings.Contains(usage, "CODE") {
		return a.inv.name() + " " + usage
	}
	for _, arg := range a.inv.args {
		if !plainWord.MatchString(arg) {
			words = append(words, "…")
			break
		}
		words = append(words, arg)
	}
	return strings.Join(words, " ")
}

var plainWord = regexp.MustCompile(`^[\pL\pN@%+=:,./_-]+$`)

// errorView is an error as JSON.
type errorView struct {
	Error    string   `json:"error"`
	Errors   []string `json:"errors"`
	Next     string   `json:"next"`
	ExitCode int      `json:"exitCode"`
}

// report prints an error and returns the exit code.
func (a *app) report(ctx context.Context, err error) int {
	var s silent
	if errors.As(err, &s) {
		return s.code
	}
	f := explain(ctx, err)
	switch {
	case f.next == "":
		f.next = a.advice(f.code)
	case strings.HasPrefix(f.next, "--") && a.inv.command() != nil:
		f.next = a.again() + " " + f.next
	}
	var lines []string
	for _, l := range f.lines {
		for one := range strings.SplitSeq(strings.TrimSpace(l), "\n") {
			lines = append(lines, strings.TrimRight(one, "\r "))
		}
	}
	if a.json {
		e := json.NewEncoder(a.env.Stderr)
		e.SetEscapeHTML(false)
		e.Encode(errorView{strings.Join(lines, "; "), lines, f.next, f.code})
		return f.code
	}
	for _, l := range lines {
		fmt.Fprintf(a.env.Stderr, "millrace: %s\n", l)
	}
	fmt.Fprintf(a.env.Stderr, "next: %s\n", f.next)
	return f.code
}
