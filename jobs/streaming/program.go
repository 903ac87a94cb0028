// Package streaming runs any commands as mapper, combiner and reducer, by Hadoop's
// conventions: records are lines, "key TAB value", on standard input and output; lines on standard error
// that start with "reporter:" are counters and status; mapreduce_* variables tell of the task.
//
// On the way from map to reduce a record's value holds the line from its first TAB on, so that
// a reducer sees exactly the lines that mappers wrote, with a TAB or without one.
package streaming

import (
	"bytes"
	"errors"

	"millrace/jobs/engine"
	"millrace/jobs/task"
	"millrace/pkg/api"
)

// New makes the program of a spec's commands. Without a reducer command it is map-only, or, where
// the job has reduces, sorts: its reduces write what they get. Without a mapper command
// the maps take lines as they are.
func New(p *api.Program) (*task.Program, error) {
	if p.GetMapper() == "" && p.GetReducer() == "" {
		return nil, errors.New("a streaming program needs a mapper or a reducer")
	}
	name := p.GetName()
	if name == "" {
		name = "streaming"
	}
	return &task.Program{
		Name: name,
		NewMapper: func(t *task.Context) (task.Mapper, error) {
			return newMapper(t, p)
		},
		NewReducer: func(t *task.Context) (task.Reducer, error) {
			if p.GetReducer() == "" {
				return lines{t}, nil
			}
			return newReducer(t, p)
		},
	}, nil
}

// emitter is where the lines of a command go.
type emitter func(line []byte)

// splitLine takes a line apart before its first TAB: key and what follows, TAB included.
func splitLine(line []byte) (key, rest []byte) {
	if i := bytes.IndexByte(line, '\t'); i >= 0 {
		return line[:i], line[i:]
	}
	return line, nil
}

// toShuffle emits a line for the reduces.
func toShuffle(t *task.Context) emitter {
	return func(line []byte) {
		key, rest := splitLine(line)
		t.Emit(key, rest)
	}
}

// toOutput emits a line as a record of the output.
func toOutput(t *task.Context) emitter {
	return func(line []byte) { emitOutput(t, line) }
}

func emitOutput(t *task.Context, line []byte) {
	key, rest := splitLine(line)
	if key == nil {
		key = []byte{} // an empty key is not no key
	}
	if len(rest) > 0 {
		t.Emit(key, rest[1:])
		return
	}
	t.Emit(key, nil)
}

// lines is the reducer of a program without one: it writes the lines it gets.
type lines struct{ t *task.Context }

func (r lines) Reduce(_ []byte, values *engine.Values) error {
	for {
		rest, ok := values.Next()
		if !ok {
			return values.Err()
		}
		key := values.Key()
		if key == nil {
			key = []byte{}
		}
		if len(rest) > 0 {
			r.t.Emit(key, rest[1:])
		} else {
			r.t.Emit(key, nil)
		}
	}
}

func (lines) Close() error { return nil }
func (lines) Abort()       {}

// mapper feeds records to a command, or straight on if there is none.
type mapper struct {
	emit     emitter
	command  *command  // nil: no mapper command
	combiner *combiner // nil: no combiner command
}

func newMapper(t *task.Context, p *api.Program) (task.Mapper, error) {
	m := &mapper{emit: toOutput(t)}
	if t.Lease().Partitions > 0 {
		m.emit = toShuffle(t)
		if p.GetCombiner() != "" {
			m.combiner = newCombiner(t, p.GetCombiner())
			m.emit = m.combiner.add
		}
	}
	if p.GetMapper() == "" {
		return m, nil
	}
	c, err := start(t, "mapper", p.GetMapper(), m.emit)
	if err != nil {
		return nil, err
	}
	m.command = c
	return m, nil
}

// Map takes a line; a record of another format is key TAB value.
func (m *mapper) Map(key, value []byte) error {
	if m.command != nil {
		if key == nil {
			return m.command.write(value, newline)
		}
		return m.command.write(key, tab, value, newline)
	}
	m.emit(value)
	return nil
}

func (m *mapper) Close() error {
	if m.command != nil {
		if err := m.command.close(); err != nil {
			m.command = nil
			m.Abort()
			return err
		}
	}
	if m.combiner != nil {
		return m.combiner.close()
	}
	return nil
}

func (m *mapper) Abort() {
	if m.command != nil {
		m.command.abort()
	}
	if m.combiner != nil {
		m.combiner.abort()
	}
}

var (
	newline = []byte{'\n'}
	tab     = []byte{'\t'}
)

// reducer feeds the sorted lines of a partition to a command.
type reducer struct{ command *command }

func newReducer(t *task.Context, p *api.Program) (task.Reducer, error) {
	c, err := start(t, "reducer", p.GetReducer(), toOutput(t))
	if err != nil {
		return nil, err
	}
	return &reducer{c}, nil
}

func (r *reducer) Reduce(_ []byte, values *engine.Values) error {
	for {
		rest, ok := values.Next()
		if !ok {
			return values.Err()
		}
		if err := r.command.write(values.Key(), rest, newline); err != nil {
			return err
		}
	}
}

func (r *reducer) Close() error { return r.command.close() }
func (r *reducer) Abort()       { r.command.abort() }
