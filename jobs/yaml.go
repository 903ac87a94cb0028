package jobs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"millrace/pkg/api"
	"millrace/pkg/bytesize"
)

// ParseYAML reads a job file (JSON will do, too): the flags' names in
// lowerCamelCase, plus program and args; repeated flags are lists. Unknown fields
// are mistakes. The error joins all mistakes (errors.Join), each with its line; the spec is then
// what could be understood, or nil if the file cannot be read at all.
//
// The program's kind is guessed from its name: STREAMING if there is a mapper, GO if
// the name is a path, else BUILTIN. A shipped file stands in Program.Files with
// the name as typed, F or F#NAME, and no SHA-256: whoever submits the job ships
// it and puts that right, see SplitFile.
func ParseYAML(data []byte) (*api.JobSpec, error) {
	top, err := document(data)
	if err != nil {
		return nil, err
	}
	r := &fileReader{spec: &api.JobSpec{Program: &api.Program{}}}
	setters := r.fields()
	r.each(top, func(name, value *yaml.Node) {
		set, ok := setters[name.Value]
		switch {
		case !ok:
			r.wrong(name, "unknown field %q%s", name.Value, didYouMean(name.Value, slices.Sorted(maps.Keys(setters))))
		case value.ShortTag() != "!!null": // a name with nothing after it
			set(name.Value, value)
		}
	})
	p := r.spec.Program
	switch {
	case p.Mapper != "":
		p.Kind = api.ProgramKind_PROGRAM_KIND_STREAMING
	case strings.ContainsRune(p.Name, '/'):
		p.Kind = api.ProgramKind_PROGRAM_KIND_GO
	case p.Name != "":
		p.Kind = api.ProgramKind_PROGRAM_KIND_BUILTIN
	}
	return r.spec, errors.Join(r.mistakes...)
}

// document is the one document of a job file: named fields.
func document(data []byte) (*yaml.Node, error) {
	if at := invalidUTF8(data); at >= 0 {
		return nil, fmt.Errorf("line %d: it is no text in UTF-8", 1+bytes.Count(data[:at], []byte("\n")))
	}
	if json.Valid(data) { // which may be indented with tabs; in its texts there are none
		data = bytes.ReplaceAll(data, []byte("\t"), []byte(" "))
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	err := d.Decode(&doc)
	switch {
	case errors.Is(err, io.EOF):
		return nil, errors.New("there is nothing in it")
	case err != nil:
		return nil, badYAML(data, err)
	}
	switch err := d.Decode(&more); {
	case err == nil:
		return nil, fmt.Errorf("line %d: a second document begins, and a job file has one", more.Line)
	case !errors.Is(err, io.EOF):
		return nil, badYAML(data, err)
	}
	top := resolve(doc.Content[0])
	if top.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: a job file is a list of fields, such as \"program: wordcount\"", top.Line)
	}
	return top, nil
}

// invalidUTF8 is where text is no UTF-8, -1 if it is.
func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n <= 1 {
			return i
		}
		i += n
	}
	return -1
}

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): `)

// badYAML says in which line reading ended. Tabs are what it mostly is, and what the parser says worst.
func badYAML(data []byte, err error) error {
	for i, line := range bytes.Split(data, []byte("\n")) {
		if indent := line[:len(line)-len(bytes.TrimLeft(line, " \t"))]; bytes.ContainsRune(indent, '\t') && len(indent) < len(line) {
			return fmt.Errorf("line %d: a tab is used to indent, and YAML wants spaces", i+1)
		}
	}
	text := yamlLine.ReplaceAllStringFunc(err.Error(), func(found string) string {
		line, _ := strconv.Atoi(yamlLine.FindStringSubmatch(found)[1]) // digits
		if strings.HasPrefix(err.Error()[len(found):], "did not find expected") {
			line++ // the parser counts from 0, the scanner from 1
		}
		return fmt.Sprintf("line %d: not valid YAML: ", line)
	})
	return errors.New(strings.Replace(text, "yaml: ", "not valid YAML: ", 1))
}

// resolve follows an alias to what it stands for.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// SplitFile takes F#NAME apart: a local path, and the file's name in the
// attempt's working directory, which is the path's last element without #NAME.
func SplitFile(s string) (path, name string) {
	if path, name, ok := strings.Cut(s, "#"); ok {
		return path, name
	}
	return s, s[strings.LastIndexByte(s, '/')+1:]
}

type setter func(field string, value *yaml.Node)

type fileReader struct {
	spec     *api.JobSpec
	mistakes []error
}

func (r *fileReader) wrong(at *yaml.Node, format string, args ...any) {
	r.mistakes = append(r.mistakes, fmt.Errorf("line %d: "+format, append([]any{at.Line}, args...)...))
}

// each goes through named values. A name stands once.
func (r *fileReader) each(m *yaml.Node, f func(name, value *yaml.Node)) {
	seen := map[string]int{} // line
	for i := 0; i+1 < len(m.Content); i += 2 {
		name, value := resolve(m.Content[i]), resolve(m.Content[i+1])
		switch first, twice := seen[name.Value]; {
		case name.Kind != yaml.ScalarNode:
			r.wrong(name, "want a name, not %s", short(name))
		case twice:
			r.wrong(m.Content[i], "%s stands here again, it is in line %d already", name.Value, first)
		default:
			seen[name.Value] = m.Content[i].Line
			f(name, value)
		}
	}
}

func (r *fileReader) fields() map[string]setter {
	s, p := r.spec, r.spec.Program
	files := r.list(func(list []string) {
		for _, f := range list {
			p.Files = append(p.Files, &api.ShippedFile{Name: f})
		}
	})
	return map[string]setter{
		"name": r.text(&s.Name), "cluster": r.text(&s.Cluster),
		"program": r.text(&p.Name), "args": r.list(func(l []string) { p.Args = l }),
		"mapper": r.text(&p.Mapper), "combiner": r.text(&p.Combiner), "reducer": r.text(&p.Reducer),
		"file": files, "files": files, "env": r.pairs(&p.Env), "properties": r.pairs(&p.Properties),
		"input": r.list(func(l []string) { s.Input = l }), "output": r.text(&s.Output), "overwrite": r.truth(&s.Overwrite),
		"inputFormat": r.text(&s.InputFormat), "outputFormat": r.text(&s.OutputFormat), "compress": r.text(&s.Compress),
		"reduces":     r.number(0, func(n int32) { s.Reduces = &n }),
		"maxAttempts": r.number(1, func(n int32) { s.MaxAttempts = n }),
		"priority":    r.number(math.MinInt32, func(n int32) { s.Priority = n }),
		"splitSize":   r.size(&s.SplitSize), "memory": r.size(&s.MemoryBytes), "maxRecord": r.size(&s.MaxRecordBytes),
		"timeout": r.duration(&s.TimeoutMs), "requestId": r.text(&s.RequestId),
	}
}

// scalar is a text, number or truth value as it was written.
func scalar(n *yaml.Node) (string, bool) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" {
		return "", false
	}
	return n.Value, true
}

func (r *fileReader) text(to *string) setter {
	return func(field string, value *yaml.Node) {
		s, ok := scalar(value)
		if !ok {
			r.wrong(value, "%s: want a text, not %s", field, short(value))
		}
		*to = s
	}
}

func (r *fileReader) list(to func([]string)) setter {
	return func(field string, value *yaml.Node) {
		if s, ok := scalar(value); ok {
			to([]string{s})
			return
		}
		if value.Kind != yaml.SequenceNode {
			r.wrong(value, "%s: want a text or a list of texts, not %s", field, short(value))
			return
		}
		var list []string
		for _, item := range value.Content {
			s, ok := scalar(resolve(item))
			if !ok {
				r.wrong(item, "%s: want a list of texts, one of them is %s", field, short(resolve(item)))
				continue
			}
			list = append(list, s)
		}
		to(list)
	}
}

// pairs reads a map, or a list of NAME=VALUE as the flags have it.
func (r *fileReader) pairs(to *map[string]string) setter {
	return func(field string, value *yaml.Node) {
		got := map[string]string{}
		*to = got
		if value.Kind == yaml.MappingNode {
			r.each(value, func(name, value *yaml.Node) {
				s, ok := scalar(value)
				if !ok {
					r.wrong(value, "%s: want a text for %s, not %s", field, name.Value, short(value))
				}
				got[name.Value] = s
			})
			return
		}
		r.list(func(list []string) {
			for _, pair := range list {
				name, text, ok := strings.Cut(pair, "=")
				if !ok {
					r.wrong(value, "%s: %q is not NAME=VALUE", field, pair)
				}
				got[name] = text
			}
		})(field, value)
	}
}

func (r *fileReader) truth(to *bool) setter {
	return func(field string, value *yaml.Node) {
		if value.Kind != yaml.ScalarNode || value.Decode(to) != nil {
			r.wrong(value, "%s: want true or false, not %s", field, short(value))
		}
	}
}

func (r *fileReader) number(least int32, to func(int32)) setter {
	return func(field string, value *yaml.Node) {
		var n int32
		switch {
		case value.ShortTag() != "!!int" || value.Decode(&n) != nil:
			r.wrong(value, "%s: want a whole number, not %s", field, short(value))
		case n < least:
			r.wrong(value, "%s %d: want %d or more", field, n, least)
		default:
			to(n)
		}
	}
}

func (r *fileReader) size(to *int64) setter {
	return func(field string, value *yaml.Node) {
		s, _ := scalar(value)
		n, err := bytesize.Parse(s)
		switch {
		case err != nil:
			r.wrong(value, "%s: %s is not a size: write it like 64MiB, 128MB, 1g or 65536", field, short(value))
		case n < 1:
			r.wrong(value, "%s %s: want 1 byte or more", field, s)
		default:
			*to = n
		}
	}
}

func (r *fileReader) duration(to *int64) setter {
	return func(field string, value *yaml.Node) {
		s, _ := scalar(value)
		d, err := time.ParseDuration(s)
		switch {
		case err != nil:
			r.wrong(value, "%s: %s is not a duration: write it like 90s or 1h30m", field, short(value))
		case d < time.Millisecond:
			r.wrong(value, "%s %s: want 1ms or more", field, s)
		default:
			*to = d.Milliseconds()
		}
	}
}

// short is a value for a message.
func short(n *yaml.Node) string {
	const most = 40 // bytes
	switch n.Kind {
	case yaml.MappingNode:
		return "named fields"
	case yaml.SequenceNode:
		return "a list"
	}
	if n.ShortTag() == "!!null" {
		return "nothing"
	}
	s := n.Value
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	if n.ShortTag() == "!!str" {
		return fmt.Sprintf("%q", s)
	}
	return s
}
