package cli

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"millrace/pkg/protocol"
)

const banner = `millrace runs MapReduce jobs over S3-compatible storage, on your own machines.

start here:
  millrace demo                                     a whole cluster, one real job, its result; nothing is left behind
  millrace dev                                      the same, to work with; then, in another terminal:
  millrace run wordcount s3://input/ s3://output/words/   a job
`

// printHelp prints the help of the command at the end of path.
func (a *app) printHelp(path []*cli.Command) {
	w := tabwriter.NewWriter(a.env.Stdout, 0, 8, 3, ' ', 0)
	defer w.Flush()
	if len(path) == 0 {
		fmt.Fprint(w, banner, "\ncommands:\n")
		a.listCommands(w, a.commands)
		fmt.Fprint(w, "\nflags of every command:\n")
		listFlags(w, a.globals)
		fmt.Fprint(w, "\nmillrace COMMAND --help says more, with an example.\n")
		return
	}
	c := path[len(path)-1]
	name := invocation{path: path}.name()
	fmt.Fprintf(w, "%s: %s\n\nusage: %s", name, c.Usage, name)
	if len(c.Subcommands) > 0 {
		fmt.Fprint(w, " COMMAND\n\ncommands:\n")
		a.listCommands(w, c.Subcommands)
	} else {
		if len(c.Flags) > 0 {
			fmt.Fprint(w, " [flags]")
		}
		fmt.Fprintf(w, " %s\n", c.ArgsUsage)
	}
	if len(c.Flags) > 0 {
		fmt.Fprint(w, "\nflags:\n")
		listFlags(w, c.Flags)
	}
	if len(path) == 1 && c.Name == "fs" || len(path) == 2 {
		fmt.Fprint(w, "\nmillrace --help lists the flags that every command has.\n")
	}
	fmt.Fprint(w, "\nexample:\n")
	for line := range strings.SplitSeq(strings.TrimSpace(c.UsageText), "\n") {
		fmt.Fprintf(w, "  %s\n", line)
	}
}

func (a *app) listCommands(w io.Writer, commands []*cli.Command) {
	for _, c := range commands {
		if !c.Hidden {
			fmt.Fprintf(w, "  %s\t%s\n", strings.TrimSpace(c.Name+" "+c.ArgsUsage), c.Usage)
		}
	}
}

func listFlags(w io.Writer, flags []cli.Flag) {
	for _, f := range flags {
		d, ok := f.(cli.DocGenerationFlag)
		if v, isVisible := f.(cli.VisibleFlag); !ok || isVisible && !v.IsVisible() {
			continue
		}
		usage, value := d.GetUsage(), ""
		if before, rest, ok := strings.Cut(usage, "`"); ok {
			if name, after, ok := strings.Cut(rest, "`"); ok {
				value, usage = " "+name, before+name+after
			}
		} else if d.TakesValue() {
			value = " VALUE"
		}
		var names []string
		for _, n := range f.Names() {
			names = append(names, flagWord(n))
		}
		if def := d.GetDefaultText(); d.TakesValue() && def != "" && def != "0" && def != `""` && def != "0s" && def != "[]" {
			usage += " (default " + strings.Trim(def, `"`) + ")"
		}
		fmt.Fprintf(w, "  %s%s\t%s\n", strings.Join(names, ", "), value, usage)
	}
}

// incomplete is what a command group alone, or nothing at all, is answered with.
func (a *app) incomplete(inv invocation) error {
	if len(inv.path) == 0 {
		a.printHelp(nil)
		return nil
	}
	var names []string
	for _, c := range inv.command().Subcommands {
		if !c.Hidden {
			names = append(names, c.Name)
		}
	}
	return usagef(inv.name()+" --help", "%s needs a command: %s", inv.name(), strings.Join(names, ", "))
}

// Version and Commit are set at build time (-ldflags "-X millrace/cmd/cli.Version=…").
var (
	Version = "dev"
	Commit  = ""
)

func commit() string {
	if Commit != "" {
		return Commit
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	revision, dirty := "unknown", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = " (modified)"
		}
	}
	return revision + dirty
}

func (a *app) versionCommand() *cli.Command {
	return a.leaf(spec{name: "version", usage: "version, commit and Go version", example: "millrace version --json",
		do: func(c *call) error {
			own := protocol.Own("")
			v := map[string]any{"version": Version, "protocol": own.Speaks, "oldestProtocol": own.Oldest, "commit": commit(), "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
			return c.print(v, func(w io.Writer) {
				fmt.Fprintf(w, "millrace %s\ncommit %s\n%s %s\nprotocol %d, serves from %d on\n", v["version"], v["commit"], v["go"], v["platform"], own.Speaks, own.Oldest)
			})
		}})
}
