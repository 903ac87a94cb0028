// Package cli is the command line: it turns words into calls of the API, and
// answers into tables, JSON and exit codes. A file per noun. It owns nothing
// that a program could not do through pkg/client; what nodes do is theirs.
package cli

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"
)

// Env is what a command sees of the process it runs in.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	Home           string // the user's home folder, "" if there is none
}

// Exit codes (CLI.md).
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitNotFound    = 4
	exitTimeout     = 124
	exitInterrupted = 130
)

// Run runs one command line (without the program's name) and returns the exit
// code. It ends in order when ctx is cancelled.
func Run(ctx context.Context, args []string, env Env) int {
	a := newApp(env)
	inv, err := parse(a.commands, a.globals, args)
	a.json = wantsJSON(args)
	if err == nil {
		switch {
		case inv.help:
			a.printHelp(inv.path)
			return exitOK
		case inv.command() == nil || inv.command().Action == nil:
			err = a.incomplete(inv)
		default:
			err = a.run(ctx, inv)
		}
	}
	if err == nil {
		return exitOK
	}
	return a.report(ctx, err)
}

// app is one run of the command line.
type app struct {
	env         Env
	commands    []*cli.Command
	globals     []cli.Flag
	json        bool
	inv         invocation
	conn        *connection            // to the cluster, once something has asked for it
	blockStores map[string]*blockStore // by bucket: those that were opened
}

func newApp(env Env) *app {
	a := &app{env: env, globals: globalFlags()}
	a.commands = []*cli.Command{
		a.demoCommand(), a.devCommand(), a.initCommand(), a.joinCommand(), a.uninstallCommand(),
		a.runCommand(), a.resultsCommand(), a.jobCommand(), a.fsCommand(),
		a.nodeCommand(), a.clusterCommand(), a.statusCommand(), a.joinTokenCommand(), a.userCommand(), a.loginCommand(), a.siteCommand(), a.caCommand(), a.contextCommand(),
		a.masterCommand(), a.workerCommand(), a.objectStoreCommand(), a.containerCommand(), a.superviseCommand(),
		a.completionCommand(), a.completeCommand(), a.versionCommand(),
	}
	return a
}

// run hands the sorted words to urfave/cli, which parses flag values and calls the action.
func (a *app) run(ctx context.Context, inv invocation) error {
	a.inv = inv
	defer a.close()
	u := &cli.App{
		Name:                      "millrace",
		HideHelp:                  true,
		HideHelpCommand:           true,
		HideVersion:               true,
		DisableSliceFlagSeparator: true, // s3://bkt/{x,y} is one input
		Flags:                     a.globals,
		Commands:                  a.commands,
		Writer:                    a.env.Stdout,
		ErrWriter:                 io.Discard,
		ExitErrHandler:            func(*cli.Context, error) {},
		OnUsageError:              func(_ *cli.Context, err error, _ bool) error { return usagef("", "%s", err) },
	}
	return u.RunContext(ctx, inv.argv())
}

func (a *app) close() {
	if a.conn != nil {
		a.conn.keepLogin()
		a.conn.close()
	}
}

// call is one command being carried out.
type call struct {
	*cli.Context
	*app
	args  []string   // positional arguments
	after []string   // those after --, for commands that hand them on
	life  []*os.File // of a role that ends with who started it: what nodes inherit that are to end with it, too
}

// spec describes a leaf of the command tree.
type spec struct {
	name, usage string
	aliases     []string
	args        string // as shown in help: "JOB [FILE…]"
	min, max    int    // number of arguments; max < 0: any
	handsOn     bool   // what comes after -- is kept apart
	gathers     bool   // do says what is wrong with flags' values, beside other mistakes
	example     string
	flags       []cli.Flag
	hidden      bool
	do          func(*call) error
}

func (a *app) leaf(s spec) *cli.Command {
	return &cli.Command{
		Name: s.name, Aliases: s.aliases, Usage: s.usage, ArgsUsage: s.args, UsageText: s.example,
		Flags: s.flags, Hidden: s.hidden, HideHelp: true, HideHelpCommand: true,
		OnUsageError: func(_ *cli.Context, err error, _ bool) error { return usagef(a.inv.name()+" --help", "%s", err) },
		Action: func(c *cli.Context) error {
			k := &call{Context: c, app: a, args: a.inv.args, after: a.inv.after}
			if !s.handsOn {
				k.args, k.after = slices.Concat(k.args, k.after), nil
			}
			if len(a.inv.wrong) > 0 && !s.gathers {
				return joinFaults(a.inv.wrong)
			}
			switch {
			case len(k.args) < s.min:
				return usagef(a.inv.name()+" --help", "%s needs %s", a.inv.name(), s.args)
			case s.max >= 0 && len(k.args) > s.max && s.max == 0:
				return usagef(a.inv.name()+" --help", "%s takes no argument, and %q was given", a.inv.name(), k.args[0])
			case s.max >= 0 && len(k.args) > s.max:
				return usagef(a.inv.name()+" --help", "%s takes %s, and %q is one too many", a.inv.name(), s.args, k.args[s.max])
			case s.args == clusterArg && len(k.args) == 1 && k.IsSet("cluster") && k.String("cluster") != k.args[0]:
				return usagef(a.inv.name()+" "+k.args[0], "two clusters are named: %s, and --cluster %s", k.args[0], shown(k.String("cluster")))
			}
			return s.do(k)
		},
	}
}

func group(name, usage, example string, aliases []string, sub ...*cli.Command) *cli.Command {
	return &cli.Command{Name: name, Aliases: aliases, Usage: usage, UsageText: example, Subcommands: sub, HideHelp: true, HideHelpCommand: true}
}

func globalFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "json", Usage: "print one JSON document"},
		&cli.StringSliceFlag{Name: "server", Usage: "`URL` of a master (repeatable; or MILLRACE_SERVER)"},
		&cli.StringFlag{Name: "cluster", Usage: "cluster by `NAME` or id (or MILLRACE_CLUSTER)"},
		&cli.StringFlag{Name: "context", Usage: "use the context `NAME` instead of the current one"},
		&cli.StringFlag{Name: "s3", Usage: "object store's `URL`"},
		&cli.StringFlag{Name: "s3-access-key", Usage: "object store's access `KEY`"},
		&cli.StringFlag{Name: "s3-secret-key", Usage: "object store's secret `KEY`"},
		&cli.StringFlag{Name: "s3-session-token", Usage: "object store's session `TOKEN`"},
		&cli.StringFlag{Name: "s3-region", Usage: "object store's `REGION`"},
		&cli.StringFlag{Name: "s3-ca", Usage: "`FILE` with further root certificates for the object store"},
	}
}

// home is where contexts and the local cluster lie.
func (a *app) home() (string, error) {
	if h := a.env.Getenv("MILLRACE_HOME"); h != "" {
		return h, nil
	}
	if a.env.Home == "" {
		return "", usagef("export HOME=… or MILLRACE_HOME=…, a folder of yours", "neither HOME nor MILLRACE_HOME is set: there is no place for contexts")
	}
	return filepath.Join(a.env.Home, ".millrace"), nil
}

// print writes v as the one JSON document with --json, else what human says. A
// reader that has gone away is no error; what cannot be written otherwise is.
func (a *app) print(v any, human func(w io.Writer)) error {
	out := &checked{w: a.env.Stdout}
	if a.json {
		e := json.NewEncoder(out)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		if err := e.Encode(v); err != nil && out.err == nil {
			return err
		}
	} else {
		human(out)
	}
	if gone(out.err) {
		return nil
	}
	return out.err
}

// checked keeps the first error of writing, for writers whose callers do not look.
type checked struct {
	w   io.Writer
	err error
}

func (c *checked) Write(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.w.Write(p)
	c.err = err
	return n, err
}

// isTerminal says whether w is one that understands control codes.
func (a *app) isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if term := a.env.Getenv("TERM"); !ok || term == "dumb" || term == "" {
		return false
	}
	if ci := a.env.Getenv("CI"); ci != "" && ci != "false" && ci != "0" { // its terminal is a log file
		return false
	}
	st, err := f.Stat()
	if err != nil || st.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(st, null)
}
