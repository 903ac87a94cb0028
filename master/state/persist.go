package state

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/go-memdb"
)

// A snapshot is a stream of JSON lines: a header, each record with the name of its
// table, and a trailer that counts them, so that a cut stream is not taken for a whole one.
const snapshotVersion = 1

type snapshotHeader struct {
	Millrace string `json:"millrace"` // "snapshot"
	Version  int    `json:"version"`
	Index    uint64 `json:"index"`
}

type snapshotLine struct {
	Table  string          `json:"table,omitempty"`
	Record json.RawMessage `json:"record,omitempty"`
	End    bool            `json:"end,omitempty"`
	Count  int             `json:"count,omitempty"`
}

// stored is a table as a snapshot sees it.
type stored struct {
	name   string
	decode func(json.RawMessage) (any, error)
}

func storedTables() []stored {
	return []stored{
		{tableSite, decode[Site]}, {tableCluster, decode[Cluster]}, {tableNode, decode[Node]}, {tableToken, decode[Token]},
		{tableJob, decode[Job]}, {tableTask, decode[Task]}, {tableUpload, decode[Upload]},
	}
}

func decode[T any](raw json.RawMessage) (any, error) {
	r := new(T)
	return r, json.Unmarshal(raw, r)
}

// Persist writes the view as a snapshot. Equal states give equal bytes.
func (v *View) Persist(w io.Writer) error {
	b := bufio.NewWriterSize(w, 64<<10)
	out := json.NewEncoder(b)
	if err := out.Encode(snapshotHeader{"snapshot", snapshotVersion, v.index}); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	count := 0
	for _, table := range storedTables() {
		it, err := v.txn.Get(table.name, byID)
		if err != nil {
			return fmt.Errorf("write snapshot: %w", err)
		}
		for r := it.Next(); r != nil; r = it.Next() {
			line := struct {
				Table  string `json:"table"`
				Record any    `json:"record"`
			}{table.name, r}
			if err := out.Encode(line); err != nil {
				return fmt.Errorf("write snapshot: %s: %w", table.name, err)
			}
			count++
		}
	}
	if err := out.Encode(snapshotLine{End: true, Count: count}); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// Restore replaces everything by what Persist wrote; watches of older views close.
// On an error nothing has changed.
func (s *Store) Restore(r io.Reader) error {
	in := json.NewDecoder(bufio.NewReaderSize(r, 64<<10))
	var header snapshotHeader
	if err := in.Decode(&header); err != nil {
		return fmt.Errorf("read snapshot: header: %w", err)
	}
	if header.Millrace != "snapshot" || header.Version < 1 {
		return errors.New("read snapshot: this is not a snapshot of millrace")
	}
	if header.Version > snapshotVersion {
		return fmt.Errorf("read snapshot: version %d is newer than this binary's %d", header.Version, snapshotVersion)
	}
	t := s.db.Txn(true)
	defer t.Abort() // does nothing after Commit
	tables := map[string]stored{}
	for _, table := range storedTables() {
		tables[table.name] = table
		if _, err := t.DeleteAll(table.name, byID); err != nil {
			return fmt.Errorf("read snapshot: %w", err)
		}
	}
	for count := 0; ; count++ {
		var line snapshotLine
		if err := in.Decode(&line); err != nil {
			return fmt.Errorf("read snapshot: after %d records: %w", count, noEOF(err))
		}
		if line.End {
			if line.Count != count {
				return fmt.Errorf("read snapshot: %d records of %d", count, line.Count)
			}
			break
		}
		if err := restoreLine(t, tables, line); err != nil {
			return fmt.Errorf("read snapshot: record %d: %w", count+1, err)
		}
	}
	t.Commit()
	s.publish(header.Index)
	return nil
}

func restoreLine(t *memdb.Txn, tables map[string]stored, line snapshotLine) error {
	table, ok := tables[line.Table]
	if !ok {
		return fmt.Errorf("unknown table %q", line.Table)
	}
	r, err := table.decode(line.Record)
	if err != nil {
		return fmt.Errorf("%s: %w", line.Table, err)
	}
	if task, ok := r.(*Task); ok && task.Done != (task.Win != nil) {
		return fmt.Errorf("task %s %d of job %s is done without a winner, or the other way round", task.ID.Kind, task.ID.Index, task.Job)
	}
	return t.Insert(line.Table, r)
}

// noEOF: the end of the stream is no good end before the trailer.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
