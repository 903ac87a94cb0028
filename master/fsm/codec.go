package fsm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"millrace/hdfs/namespace"
	"millrace/master/state"
	"millrace/pkg/protocol"
)

// ErrUnknownEntry is wrapped by every error that says an entry cannot be read by
// this binary: written by a newer one, or damaged.
var ErrUnknownEntry = errors.New("unreadable log entry")

// envelope is one log entry.
type envelope struct {
	Version int             `json:"v"` // the protocol that it takes to read it
	Type    string          `json:"type"`
	Body    json.RawMessage `json:"body"`
}

// Encode makes the log entry of a command.
func Encode(c state.Command) ([]byte, error) {
	body, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", c.CommandName(), err)
	}
	data, err := json.Marshal(envelope{needs(c), c.CommandName(), body})
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
	if e.Version < 1 {
		return nil, fmt.Errorf("%w: %q of version %d", ErrUnknownEntry, e.Type, e.Version)
	}
	if err := protocol.Readable(fmt.Sprintf("log entry %q", e.Type), e.Version); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnknownEntry, err)
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

// WrittenIn is the protocol that it takes to read an entry; 0 if it is none.
func WrittenIn(data []byte) int {
	var e envelope
	if err := json.Unmarshal(data, &e); err != nil {
		return 0
	}
	return e.Version
}

// reader finds what reads the body of a type of entry; nil if the type is unknown.
func reader(name string) func([]byte) (state.Command, error) {
	switch name {
	case state.CreateSite{}.CommandName():
		return read[state.CreateSite]
	case state.PutStore{}.CommandName():
		return read[state.PutStore]
	case state.RaiseSite{}.CommandName():
		return read[state.RaiseSite]
	case state.PutNode{}.CommandName():
		return read[state.PutNode]
	case state.AdmitNode{}.CommandName():
		return read[state.AdmitNode]
	case state.RemoveNode{}.CommandName():
		return read[state.RemoveNode]
	case state.DrainNode{}.CommandName():
		return read[state.DrainNode]
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
	case state.RetireJobs{}.CommandName():
		return read[state.RetireJobs]
	case state.ForgetJobs{}.CommandName():
		return read[state.ForgetJobs]
	}
	if read := fleetReader(name); read != nil {
		return read
	}
	return fileReader(name)
}

// fleetReader is reader for what clusters, their nodes and people come and go by.
func fleetReader(name string) func([]byte) (state.Command, error) {
	switch name {
	case state.CreateCluster{}.CommandName():
		return read[state.CreateCluster]
	case state.ResizeCluster{}.CommandName():
		return read[state.ResizeCluster]
	case state.SetTarget{}.CommandName():
		return read[state.SetTarget]
	case state.SetCluster{}.CommandName():
		return read[state.SetCluster]
	case state.TerminateCluster{}.CommandName():
		return read[state.TerminateCluster]
	case state.EndCluster{}.CommandName():
		return read[state.EndCluster]
	case state.SuspendGroup{}.CommandName():
		return read[state.SuspendGroup]
	case state.AddEvents{}.CommandName():
		return read[state.AddEvents]
	case state.AssignNode{}.CommandName():
		return read[state.AssignNode]
	case state.LeaveNode{}.CommandName():
		return read[state.LeaveNode]
	case state.FindNode{}.CommandName():
		return read[state.FindNode]
	case state.ReleaseNode{}.CommandName():
		return read[state.ReleaseNode]
	case state.NoteBootstrap{}.CommandName():
		return read[state.NoteBootstrap]
	case state.PutLaunch{}.CommandName():
		return read[state.PutLaunch]
	case state.DropLaunch{}.CommandName():
		return read[state.DropLaunch]
	case state.CreateUser{}.CommandName():
		return read[state.CreateUser]
	case state.PutLoginCode{}.CommandName():
		return read[state.PutLoginCode]
	case state.RemoveUser{}.CommandName():
		return read[state.RemoveUser]
	case state.LoginUser{}.CommandName():
		return read[state.LoginUser]
	case state.SetSite{}.CommandName():
		return read[state.SetSite]
	case state.PutCA{}.CommandName():
		return read[state.PutCA]
	}
	return nil
}

// fileReader is reader for the commands of package namespace.
func fileReader(name string) func([]byte) (state.Command, error) {
	switch name {
	case namespace.CreateFile{}.CommandName():
		return read[namespace.CreateFile]
	case namespace.AddBlock{}.CommandName():
		return read[namespace.AddBlock]
	case namespace.Restamp{}.CommandName():
		return read[namespace.Restamp]
	case namespace.CompleteFile{}.CommandName():
		return read[namespace.CompleteFile]
	case namespace.AbandonFile{}.CommandName():
		return read[namespace.AbandonFile]
	case namespace.ExpireLeases{}.CommandName():
		return read[namespace.ExpireLeases]
	case namespace.Mkdir{}.CommandName():
		return read[namespace.Mkdir]
	case namespace.Rename{}.CommandName():
		return read[namespace.Rename]
	case namespace.Remove{}.CommandName():
		return read[namespace.Remove]
	case namespace.SetReplication{}.CommandName():
		return read[namespace.SetReplication]
	case namespace.Publish{}.CommandName():
		return read[namespace.Publish]
	case namespace.AbortUploads{}.CommandName():
		return read[namespace.AbortUploads]
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
