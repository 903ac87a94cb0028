package jobs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"millrace/pkg/api"
	"millrace/pkg/bytesize"
)

// ParseYAML reads a job file (JSON will do, too): the flags' names in
// lowerCamelCase, plus program and args; repeated flags are lists. Unknown fields
// are mistakes. The error joins all mistakes (errors.Join).
//
// The program's kind is guessed from its name: STREAMING if there is a mapper, GO if
// the name is a path, else BUILTIN. A shipped file stands in Program.Files with
// the name as typed, F or F#NAME, and no SHA-256: whoever submits the job ships
// it and puts that right, see SplitFile.
func ParseYAML(data []byte) (*api.JobSpec, error) {
	asJSON, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, fmt.Errorf("not valid YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(asJSON, &fields); err != nil {
		return nil, errors.New("a job file is a list of fields, such as \"program: wordcount\"")
	}
	r := &fileReader{spec: &api.JobSpec{Program: &api.Program{}}}
	setters := r.fields()
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		set, ok := setters[name]
		if !ok {
			r.wrong("unknown field %q%s", name, didYouMean(name, slices.Sorted(maps.Keys(setters))))
			continue
		}
		if string(fields[name]) == "null" {
			continue // a name with nothing after it
		}
		set(name, fields[name])
	}
	if len(r.mistakes) > 0 {
		return nil, errors.Join(r.mistakes...)
	}
	p := r.spec.Program
	switch {
	case p.Mapper != "":
		p.Kind = api.ProgramKind_PROGRAM_KIND_STREAMING
	case strings.ContainsRune(p.Name, '/'):
		p.Kind = api.ProgramKind_PROGRAM_KIND_GO
	case p.Name != "":
		p.Kind = api.ProgramKind_PROGRAM_KIND_BUILTIN
	}
	return r.spec, nil
}

// SplitFile takes F#NAME apart: a local path, and the file's name in the
// attempt's working directory, which is the path's last element without #NAME.
func SplitFile(s string) (path, name string) {
	if path, name, ok := strings.Cut(s, "#"); ok {
		return path, name
	}
	return s, s[strings.LastIndexByte(s, '/')+1:]
}

type setter func(field string, raw json.RawMessage)

type fileReader struct {
	spec     *api.JobSpec
	mistakes []error
}

func (r *fileReader) wrong(format string, args ...any) {
	r.mistakes = append(r.mistakes, fmt.Errorf(format, args...))
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
		"splitSize":   r.size(&s.SplitSize), "memory": r.size(&s.MemoryBytes),
		"timeout": r.duration(&s.TimeoutMs), "requestId": r.text(&s.RequestId),
	}
}

// scalar is a text, number or truth value as it was written.
func scalar(raw json.RawMessage) (string, bool) {
	if raw[0] == '[' || raw[0] == '{' || string(raw) == "null" {
		return "", false
	}
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s, true
	}
	return string(raw), true
}

func (r *fileReader) text(to *string) setter {
	return func(field string, raw json.RawMessage) {
		s, ok := scalar(raw)
		if !ok {
			r.wrong("%s: want a text, not %s", field, short(raw))
		}
		*to = s
	}
}

func (r *fileReader) list(to func([]string)) setter {
	return func(field string, raw json.RawMessage) {
		if s, ok := scalar(raw); ok {
			to([]string{s})
			return
		}
		var items []json.RawMessage
		if json.Unmarshal(raw, &items) != nil {
			r.wrong("%s: want a text or a list of texts, not %s", field, short(raw))
			return
		}
		var list []string
		for _, item := range items {
			s, ok := scalar(item)
			if !ok {
				r.wrong("%s: want a list of texts, one of them is %s", field, short(item))
			}
			list = append(list, s)
		}
		to(list)
	}
}

// pairs reads a map, or a list of NAME=VALUE as the flags have it.
func (r *fileReader) pairs(to *map[string]string) setter {
	return func(field string, raw json.RawMessage) {
		got := map[string]string{}
		*to = got
		var named map[string]json.RawMessage
		if json.Unmarshal(raw, &named) == nil {
			for _, name := range slices.Sorted(maps.Keys(named)) {
				s, ok := scalar(named[name])
				if name == "true" || name == "false" {
					r.wrong("%s: YAML takes a bare y, n, yes, no, on or off for true or false: put the name in quotes", field)
				}
				if !ok {
					r.wrong("%s: want a text for %s, not %s", field, name, short(named[name]))
				}
				got[name] = s
			}
			return
		}
		r.list(func(list []string) {
			for _, pair := range list {
				name, value, ok := strings.Cut(pair, "=")
				if !ok {
					r.wrong("%s: %q is not NAME=VALUE", field, pair)
				}
				got[name] = value
			}
		})(field, raw)
	}
}

func (r *fileReader) truth(to *bool) setter {
	return func(field string, raw json.RawMessage) {
		if json.Unmarshal(raw, to) != nil {
			r.wrong("%s: want true or false, not %s", field, short(raw))
		}
	}
}

func (r *fileReader) number(least int32, to func(int32)) setter {
	return func(field string, raw json.RawMessage) {
		var n int32
		if json.Unmarshal(raw, &n) != nil {
			r.wrong("%s: want a whole number, not %s", field, short(raw))
			return
		}
		if n < least {
			r.wrong("%s %d: want %d or more", field, n, least)
		}
		to(n)
	}
}

func (r *fileReader) size(to *int64) setter {
	return func(field string, raw json.RawMessage) {
		s, _ := scalar(raw)
		n, err := bytesize.Parse(s)
		switch {
		case err != nil:
			r.wrong("%s: %s is not a size: write it like 64MiB, 128MB, 1g or 65536", field, short(raw))
		case n < 1:
			r.wrong("%s %s: want 1 byte or more", field, s)
		}
		*to = n
	}
}

func (r *fileReader) duration(to *int64) setter {
	return func(field string, raw json.RawMessage) {
		s, _ := scalar(raw)
		d, err := time.ParseDuration(s)
		switch {
		case err != nil:
			r.wrong("%s: %s is not a duration: write it like 90s or 1h30m", field, short(raw))
		case d < time.Millisecond:
			r.wrong("%s %s: want 1ms or more", field, s)
		}
		*to = d.Milliseconds()
	}
}

// short is a value for a message.
func short(raw json.RawMessage) string {
	const most = 40
	if raw = bytes.TrimSpace(raw); len(raw) > most {
		return string(bytes.ToValidUTF8(raw[:most], nil)) + "…"
	}
	return string(raw)
}
