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
	// bash breaks words at : and =. They are put together again, and of each answer what bash has broken off
	// is taken away.
	"bash": `_millrace() {
  local IFS=$'\n' word glue= broken i words=()
  for ((i = 1; i <= COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    if [[ $word == [:=] || $word == :: ]] && ((${#words[@]})); then
      words[-1]+=$word glue=1
    elif [[ $glue ]]; then
      words[-1]+=$word glue=
    else
      words+=("$word")
    fi
  done
  word=${words[-1]} broken=${word%"${word##*[:=]}"}
  COMPREPLY=($("${COMP_WORDS[0]}" __complete -- "${words[@]}" 2>/dev/null))
  for i in "${!COMPREPLY[@]}"; do
    [[ ${COMPREPLY[i]} == */ ]] && compopt -o nospace
    COMPREPLY[i]=${COMPREPLY[i]#"$broken"}
    [[ ${COMPREPLY[i]} == *[\ \'\"\\\$\&\(\)\;\<\>\|]* ]] && printf -v "COMPREPLY[i]" %q "${COMPREPLY[i]}"
  done
}
complete -o default -F _millrace millrace
`,
	"zsh": `#compdef millrace
_millrace() {
  local -a found folders
  found=("${(@f)$("${words[1]}" __complete -- "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -z "${found[1]}" ]]; then
    _files
    return
  fi
  folders=("${(@M)found:#*/}") found=("${(@)found:#*/}")
  (($#folders)) && compadd -S '' -- "${folders[@]}"
  (($#found)) && compadd -- "${found[@]}"
}
compdef _millrace millrace
`,
	"fish": `function __millrace_complete
  set -l words (commandline -opc) (commandline -ct)
  set -l found (millrace __complete -- $words[2..-1] 2>/dev/null)
  if set -q found[1]
    printf '%s\n' $found
  else
    __fish_complete_path (commandline -ct)
  end
end
complete -c millrace -f -a '(__millrace_complete)'
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
			found, p := complete(c.commands, c.globals, c.args)
			if p != nil {
				found = c.completeValue(p, c.args[len(c.args)-1])
			}
			for _, s := range found {
				fmt.Fprintln(c.env.Stdout, s)
			}
			return nil
		}})
}

// complete says what the last of the words may become. If that is no word of this program but a value, it returns
// the parser, which knows of what.
func complete(commands []*cli.Command, globals []cli.Flag, words []string) ([]string, *parser) {
	if len(words) == 0 {
		words = []string{""}
	}
	last := words[len(words)-1]
	p := &parser{commands: commands, globals: globals, words: words[:len(words)-1]}
	for len(p.words) > 0 {
		if p.words[0] == "--" {
			return nil, nil // the program's own
		}
		if len(p.words) == 1 && p.waiting() != nil {
			return nil, p
		}
		var err error
		if w := p.words[0]; len(w) > 1 && w[0] == '-' {
			err = p.flag()
		} else {
			err = p.word()
		}
		if err != nil {
			return nil, nil
		}
	}
	var found []string
	switch {
	case strings.HasPrefix(last, "-") && strings.Contains(last, "="):
		return nil, p
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
	case p.leaf() != nil:
		return nil, p
	default:
		for _, c := range p.choices() {
			if !c.Hidden {
				found = append(found, c.Name)
			}
		}
	}
	return starting(found, last), nil
}

// starting are the candidates that begin with a word, each once, in order.
func starting(candidates []string, word string) []string {
	found := slices.DeleteFunc(slices.Clone(candidates), func(s string) bool { return !strings.HasPrefix(s, word) })
	slices.Sort(found)
	return slices.Compact(found)
}

// waiting is the flag that the last word read needs a value for, nil if it is none.
func (p *parser) waiting() cli.Flag {
	w := p.words[0]
	if len(w) < 2 || w[0] != '-' || strings.Contains(w, "=") {
		return nil
	}
	if f, _ := p.find(strings.TrimLeft(w, "-")); f != nil && takesValue(f) {
		return f
	}
	return nil
}
