package fsm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"millrace/master/state"
)

// Version is that of the entries this binary writes, and the newest it can read. It
// rises when a command gains a meaning that an older binary would miss.
const Version = 1

// ErrUnknownEntry is wrapped by every error that says an entry cannot be read by
// this binary: written by a newer one, or damaged.
var ErrUnknownEntry = errors.New("unreadable log entry")

// envelope is one log entry.
type envelope struct {
	Version int             `json:"v"`
	Type    string          `json:"type"`
	Body    json.RawMessage `json:"body"`
}

// Encode makes the log entry of a command.
func Encode(c state.Command) ([]byte, error) {
	body, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", c.CommandName(), err)
	}
	data, err := json.Marshal(envelope{Version, c.CommandName(), body})
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", c.CommandName(), err)
	}
	return data, nil
}

// Decode reads a log entry. A field that this binary does not know is an error too:
// to drop it would make this master's state differ from the others'.
func Decode(data []byte) (state.Command, error) {
	var e envelope
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnknownEntry, err)
	}
	if e.Version < 1 || e.Version > Version {
		return nil, fmt.Errorf("%w: %q of version %d, this binary reads up to %d", ErrUnknownEntry, e.Type, e.Version, Version)
	}
	read := reader(e.Type)
	if read == nil {
		return nil, fmt.Errorf("%w: type %q", ErrUnknownEntry, e.Type)
	}
	c, err := read(e.Body)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnknownEntry, e.Type, err)
	}
	return c, nil
}

// reader finds what reads the body of a type of entry; nil if the type is unknown.
func reader(name string) func([]byte) (state.Command, error) {
	switch name {
	case state.CreateSite{}.CommandName():
		return read[state.CreateSite]
	case state.PutStore{}.CommandName():
		return read[state.PutStore]
	case state.PutNode{}.CommandName():
		return read[state.PutNode]
	case state.AdmitNode{}.CommandName():
		return read[state.AdmitNode]
	case state.RemoveNode{}.CommandName():
		return read[state.RemoveNode]
	case state.CreateToken{}.CommandName():
		return read[state.CreateToken]
	case state.RevokeToken{}.CommandName():
		return read[state.RevokeToken]
	case state.SubmitJob{}.CommandName():
		return read[state.SubmitJob]
	case state.PlanJob{}.CommandName():
		return read[state.PlanJob]
	case state.AddUploads{}.CommandName():
		return read[state.AddUploads]
	case state.DropUploads{}.CommandName():
		return read[state.DropUploads]
	case state.EndTasks{}.CommandName():
		return read[state.EndTasks]
	case state.LoseMaps{}.CommandName():
		return read[state.LoseMaps]
	case state.BeginCommit{}.CommandName():
		return read[state.BeginCommit]
	case state.RedoParts{}.CommandName():
		return read[state.RedoParts]
	case state.CompleteJob{}.CommandName():
		return read[state.CompleteJob]
	case state.FailJob{}.CommandName():
		return read[state.FailJob]
	case state.CancelJob{}.CommandName():
		return read[state.CancelJob]
	case state.EndJob{}.CommandName():
		return read[state.EndJob]
	}
	return nil
}

func read[C state.Command](body []byte) (state.Command, error) {
	in := json.NewDecoder(bytes.NewReader(body))
	in.DisallowUnknownFields()
	var c C
	if err := in.Decode(&c); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("no body")
		}
		return nil, err
	}
	return c, nil
}
