package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// The shells ask the program itself (millrace __complete WORD…), so that a
// completion never differs from what is understood.
var completionScripts = map[string]string{
	"bash": `_millrace() {
  local IFS=$'\n'
  COMPREPLY=($("${COMP_WORDS[0]}" __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _millrace millrace
`,
	"zsh": `#compdef millrace
_millrace() {
  local -a found
  found=("${(@f)$("${words[1]}" __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -n "${found[1]}" ]]; then compadd -- "${found[@]}"; else _files; fi
}
compdef _millrace millrace
`,
	"fish": `function __millrace_complete
  set -l words (commandline -opc) (commandline -ct)
  millrace __complete -- $words[2..-1] 2>/dev/null
end
complete -c millrace -a '(__millrace_complete)'
`,
}

func (a *app) completionCommand() *cli.Command {
	return a.leaf(spec{name: "completion", usage: "completion for a shell: bash, zsh or fish", args: "SHELL", min: 1, max: 1,
		example: "source <(millrace completion bash)\nmillrace completion fish > ~/.config/fish/completions/millrace.fish",
		do: func(c *call) error {
			script, ok := completionScripts[c.args[0]]
			if !ok {
				return usagef("millrace completion bash", "there is no completion for %q: bash, zsh and fish have one", c.args[0])
			}
			return c.print(map[string]string{"shell": c.args[0], "script": script}, func(w io.Writer) { io.WriteString(w, script) })
		}})
}

func (a *app) completeCommand() *cli.Command {
	return a.leaf(spec{name: "__complete", usage: "what a shell's completion asks", args: "WORD…", max: -1, hidden: true, example: "millrace __complete -- job su",
		do: func(c *call) error {
			for _, s := range complete(c.commands, c.globals, c.args) {
				fmt.Fprintln(c.env.Stdout, s)
			}
			return nil
		}})
}

// complete says what the last of the words may become.
func complete(commands []*cli.Command, globals []cli.Flag, words []string) []string {
	if len(words) == 0 {
		words = []string{""}
	}
	last := words[len(words)-1]
	p := parser{commands: commands, globals: globals, words: words[:len(words)-1]}
	for len(p.words) > 0 {
		var err error
		if w := p.words[0]; len(w) > 1 && w[0] == '-' {
			err = p.flag()
		} else {
			err = p.word()
		}
		if err != nil {
			return nil
		}
	}
	var found []string
	switch {
	case strings.HasPrefix(last, "-"):
		flags := p.globals
		if c := p.inv.command(); c != nil {
			flags = slices.Concat(c.Flags, flags)
		}
		for _, f := range flags {
			for _, n := range f.Names() {
				found = append(found, flagWord(n))
			}
		}
		found = append(found, "--help")
	case p.leaf() == nil:
		for _, c := range p.choices() {
			if !c.Hidden {
				found = append(found, c.Name)
			}
		}
	}
	found = slices.DeleteFunc(found, func(s string) bool { return !strings.HasPrefix(s, last) })
	slices.Sort(found)
	return slices.Compact(found)
}
