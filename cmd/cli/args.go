package cli

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agnivade/levenshtein"
	"github.com/urfave/cli/v2"
)

// invocation is a command line sorted: which command, its flags, its arguments.
type invocation struct {
	path   []*cli.Command // from the first word to the leaf
	global []string       // flags of the whole program, as --name=value
	local  []string       // flags of the command
	args   []string
	after  []string // behind --
	wrong  []*fault // flags whose values will not do; they are not in global and local
	help   bool
}

func (v invocation) command() *cli.Command {
	if len(v.path) == 0 {
		return nil
	}
	return v.path[len(v.path)-1]
}

// name is the command as people type it.
func (v invocation) name() string {
	words := []string{"millrace"}
	for _, c := range v.path {
		words = append(words, c.Name)
	}
	return strings.Join(words, " ")
}

// argv is the same in the one order urfave/cli reads: flags before arguments.
func (v invocation) argv() []string {
	words := append([]string{"millrace"}, v.global...)
	for _, c := range v.path {
		words = append(words, c.Name)
	}
	return slices.Concat(words, v.local, []string{"--"}, v.args, v.after)
}

// wantsJSON says whether --json was given, however wrong the rest may be.
func wantsJSON(args []string) bool {
	if end := slices.Index(args, "--"); end >= 0 {
		args = args[:end]
	}
	return slices.Contains(args, "--json") || slices.Contains(args, "-json") || slices.Contains(args, "--json=true")
}

// parse sorts a command line. Flags may stand before and after arguments, -- ends
// them; what it does not know is an error that suggests the nearest known word. All unknown
// flags are named at once, with the values that will not do; these alone are left to the command.
func parse(commands []*cli.Command, globals []cli.Flag, words []string) (invocation, error) {
	p := parser{commands: commands, globals: globals, words: words}
	for len(p.words) > 0 {
		word := p.words[0]
		var err error
		switch {
		case word == "--":
			p.inv.after, p.words = p.words[1:], nil
			if p.leaf() == nil && len(p.inv.after) > 0 {
				err = p.unknownCommand(p.inv.after[0])
			}
		case len(word) > 1 && word[0] == '-':
			err = p.flag()
		default:
			err = p.word()
		}
		if err != nil { // from here on one would guess
			return p.inv, joinFaults(slices.Concat(p.unknown, p.inv.wrong), err)
		}
	}
	if len(p.unknown) > 0 {
		return p.inv, joinFaults(slices.Concat(p.unknown, p.inv.wrong))
	}
	return p.inv, nil
}

// joinFaults makes one error of all.
func joinFaults(all []*fault, last ...error) error {
	var m mistakes
	for _, f := range all {
		m.say(f.next, f.lines...)
	}
	for _, err := range last {
		if err := m.take(err); err != nil {
			return err
		}
	}
	return m.fault()
}

type parser struct {
	commands []*cli.Command
	globals  []cli.Flag
	words    []string
	inv      invocation
	unknown  []*fault // flags
}

// leaf is the command whose arguments are being read, nil while there are subcommands to choose from.
func (p *parser) leaf() *cli.Command {
	if c := p.inv.command(); c != nil && len(c.Subcommands) == 0 {
		return c
	}
	return nil
}

// choices are the commands that may come next.
func (p *parser) choices() []*cli.Command {
	if c := p.inv.command(); c != nil {
		return c.Subcommands
	}
	return p.commands
}

func (p *parser) word() error {
	word := p.words[0]
	p.words = p.words[1:]
	if p.leaf() != nil {
		p.inv.args = append(p.inv.args, word)
		return nil
	}
	if word == "help" {
		p.inv.help = true
		return nil
	}
	c := find(p.choices(), word)
	if c == nil {
		return p.unknownCommand(word)
	}
	p.inv.path = append(p.inv.path, c)
	return nil
}

func (p *parser) unknownCommand(word string) error {
	var names []string
	for _, c := range p.choices() {
		if !c.Hidden {
			names = append(names, c.Names()...)
		}
	}
	group := p.inv.name()
	if near := nearest(word, names); near != "" {
		return usagef(fmt.Sprintf("%s %s  (was that meant?)", group, near), "unknown command %q", strings.TrimPrefix(group+" "+word, "millrace "))
	}
	return usagef(group+" --help", "unknown command %q", strings.TrimPrefix(group+" "+word, "millrace "))
}

// flag reads the flag at the front: --name, --name=value, --name value, -n value,
// -nvalue, or short switches in a bundle.
func (p *parser) flag() error {
	word := p.words[0]
	name, value, given := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(word, "-"), "-"), "=")
	if word == "--version" && p.inv.command() == nil {
		p.inv.path, p.words = append(p.inv.path, find(p.commands, "version")), p.words[1:]
		return nil
	}
	if name == "help" || name == "h" {
		p.inv.help, p.words = true, p.words[1:]
		return nil
	}
	f, global := p.find(name)
	if f == nil && p.leaf() == nil && p.inv.command() != nil {
		// "master --dir D" is "master run --dir D".
		if run := find(p.choices(), "run"); run != nil {
			p.inv.path = append(p.inv.path, run)
			return nil
		}
	}
	if f == nil && !strings.HasPrefix(word, "--") {
		if ok, err := p.short(word); ok {
			return err
		}
	}
	if f == nil {
		p.unknown = append(p.unknown, p.unknownFlag(word, name))
		p.words = p.words[1:]
		if !given && p.leaf() == nil && len(p.words) > 1 && !strings.HasPrefix(p.words[0], "-") && find(p.choices(), p.words[0]) == nil {
			p.words = p.words[1:] // its value, not a command
		}
		return nil
	}
	p.words = p.words[1:]
	if !given && takesValue(f) {
		if len(p.words) == 0 || p.isFlag(p.words[0]) {
			p.wrong("flag %s needs a value", flagWord(name))
			return nil
		}
		value, given = p.words[0], true
		p.words = p.words[1:]
	}
	if given {
		if wrong := misfit(f, value); wrong != "" {
			p.wrong("%s %s: %s", flagWord(name), shown(value), wrong)
			return nil
		}
	}
	p.add(f, global, value, given)
	return nil
}

// wrong notes a value that will not do.
func (p *parser) wrong(format string, args ...any) {
	p.inv.wrong = append(p.inv.wrong, usagef(p.inv.name()+" --help", format, args...))
}

// misfit says what is wrong with a flag's value, "" if nothing.
func misfit(f cli.Flag, value string) string {
	switch f.(type) {
	case *cli.BoolFlag:
		if _, err := strconv.ParseBool(value); err != nil {
			return "it takes no value, or true or false"
		}
	case *cli.IntFlag:
		if _, err := strconv.ParseInt(value, 0, 64); errors.Is(err, strconv.ErrRange) {
			return "out of range"
		} else if err != nil {
			return "not a whole number"
		}
	case *cli.DurationFlag:
		if _, err := time.ParseDuration(value); err != nil {
			return "write it like 90s or 5m"
		}
	}
	return ""
}

// shown is a value in a message: quoted if it would not be seen otherwise.
func shown(value string) string {
	if value == "" || value != strings.TrimSpace(clean(value)) {
		return strconv.Quote(value)
	}
	return value
}

func (p *parser) add(f cli.Flag, global bool, value string, given bool) {
	word := "--" + f.Names()[0]
	if given {
		word += "=" + value
	}
	if global {
		p.inv.global = append(p.inv.global, word)
	} else {
		p.inv.local = append(p.inv.local, word)
	}
}

// short reads -Dkey=value and -rf: a letter with its value, or a bundle of switches.
func (p *parser) short(word string) (bool, error) {
	letters := strings.TrimPrefix(word, "-")
	if first, global := p.find(letters[:1]); first != nil && takesValue(first) {
		p.words = p.words[1:]
		if wrong := misfit(first, letters[1:]); wrong != "" {
			p.wrong("-%s %s: %s", letters[:1], shown(letters[1:]), wrong)
			return true, nil
		}
		p.add(first, global, letters[1:], true)
		return true, nil
	}
	for i := range letters {
		if f, _ := p.find(letters[i : i+1]); f == nil || takesValue(f) {
			return false, nil
		}
	}
	p.words = p.words[1:]
	for i := range letters {
		f, global := p.find(letters[i : i+1])
		p.add(f, global, "", false)
	}
	return true, nil
}

// isFlag says whether a word is surely a flag of this command and no value.
func (p *parser) isFlag(word string) bool {
	if !strings.HasPrefix(word, "--") {
		return false
	}
	name, _, _ := strings.Cut(word[2:], "=")
	f, _ := p.find(name)
	return word == "--" || f != nil
}

func (p *parser) find(name string) (f cli.Flag, global bool) {
	if c := p.inv.command(); c != nil {
		for _, f := range c.Flags {
			if slices.Contains(f.Names(), name) {
				return f, false
			}
		}
	}
	for _, f := range p.globals {
		if slices.Contains(f.Names(), name) {
			return f, true
		}
	}
	return nil, false
}

func (p *parser) unknownFlag(word, name string) *fault {
	flags := p.globals
	if c := p.inv.command(); c != nil {
		flags = slices.Concat(flags, c.Flags)
	}
	var names []string
	for _, f := range flags {
		names = append(names, f.Names()...)
	}
	_, value, given := strings.Cut(word, "=")
	if !given && len(p.words) > 1 && !strings.HasPrefix(p.words[1], "-") {
		value, given = p.words[1], true
	}
	// Of flags that are equally near, one that takes just such a value was meant: --reduce 2 is --reduces.
	fits := func(name string) bool {
		f, _ := p.find(name)
		switch f.(type) {
		case *cli.IntFlag, *cli.DurationFlag:
			return given && misfit(f, value) == ""
		}
		return false
	}
	what := p.inv.name()
	if near := nearestFitting(name, names, fits); near != "" {
		return usagef(fmt.Sprintf("%s %s  (was that meant?)", what, flagWord(near)), "%s has no flag %s", what, word)
	}
	return usagef(what+" --help", "%s has no flag %s", what, word)
}

func flagWord(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}

func find(commands []*cli.Command, name string) *cli.Command {
	for _, c := range commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

// nearest is the known word that was probably meant, or "".
func nearest(word string, known []string) string {
	return nearestFitting(word, known, func(string) bool { return false })
}

// nearestFitting is nearest, where of equally near words one that fits is taken, then the shorter one.
func nearestFitting(word string, known []string, fits func(string) bool) string {
	best, bestDistance := "", max(2, len(word)/3)+1
	for _, k := range known {
		d := levenshtein.ComputeDistance(word, k)
		if d >= min(len(k), len(word)) {
			continue // nothing in common
		}
		if len(word) >= 3 && strings.HasPrefix(k, word) {
			d = 1
		}
		better := d < bestDistance
		if d == bestDistance && best != "" {
			better = fits(k) && !fits(best) || fits(k) == fits(best) && len(k) < len(best)
		}
		if better {
			best, bestDistance = k, d
		}
	}
	return best
}
