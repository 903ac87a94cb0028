package state

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"

	"github.com/hashicorp/go-memdb"

	"millrace/hdfs/namespace"
)

// A snapshot is a stream of JSON lines: a header, each record with the name of its
// table, the clusters' name spaces in pieces, and a trailer that counts them, so that a cut stream is not taken for a whole one. Its version is the protocol
// that the site uses: who reads the log's entries reads their snapshot, and nobody else must.

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

// tableFiles is what pieces of name spaces are called in a snapshot: those of a cluster follow on one another.
const tableFiles = "files"

type filesPiece struct {
	Cluster string `json:"cluster"`
	Piece   []byte `json:"piece"`
}

// stored is a table as a snapshot sees it.
type stored struct {
	name   string
	decode func(json.RawMessage) (any, error)
}

func storedTables() []stored {
	return []stored{
		{tableSite, decode[Site]}, {tableCluster, decode[Cluster]}, {tableNode, decode[Node]}, {tableToken, decode[Token]},
		{tableJob, decode[Job]}, {tableTask, decode[Task]}, {tableUpload, decode[Upload]}, {tablePast, decode[PastJob]},
		{tableLaunch, decode[Launch]}, {tableUser, decode[User]},
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
	if err := out.Encode(snapshotHeader{"snapshot", v.Protocol(), v.index}); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	count := 0
	for line, err := range v.lines() {
		if err == nil {
			err = out.Encode(line)
		}
		if err != nil {
			return fmt.Errorf("write snapshot: %s: %w", line.Table, err)
		}
		count++
	}
	if err := out.Encode(snapshotLine{End: true, Count: count}); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// line is a record as it is written.
type line struct {
	Table  string `json:"table"`
	Record any    `json:"record"`
}

// lines goes through all records in the order in which a snapshot holds them.
func (v *View) lines() iter.Seq2[line, error] {
	return func(yield func(line, error) bool) {
		for _, table := range storedTables() {
			it, err := v.txn.Get(table.name, byID)
			if err != nil {
				yield(line{Table: table.name}, err)
				return
			}
			for r := it.Next(); r != nil; r = it.Next() {
				if !yield(line{table.name, r}, nil) {
					return
				}
			}
		}
		for _, cluster := range slices.Sorted(maps.Keys(v.files)) {
			for piece := range v.files[cluster].Pieces() {
				if !yield(line{tableFiles, filesPiece{cluster, piece}}, nil) {
					return
				}
			}
		}
	}
}

// Restore replaces everything by what Persist wrote; watches of older views close.
// On an error nothing has changed. readable says whether what is written in a protocol can be read.
func (s *Store) Restore(r io.Reader, readable func(protocol int) error) error {
	in := json.NewDecoder(bufio.NewReaderSize(r, 64<<10))
	header, err := readHeader(in)
	if err != nil {
		return err
	}
	if err := readable(header.Version); err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	into, err := s.newRestore()
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	defer into.Abort() // does nothing after Commit
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
		if err := into.line(line); err != nil {
			return fmt.Errorf("read snapshot: record %d: %w", count+1, err)
		}
	}
	files, err := into.trees()
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	into.Commit()
	s.files = files
	s.publish(header.Index)
	return nil
}

// restore is the state while a snapshot is read.
type restore struct {
	*memdb.Txn
	tables map[string]stored
	files  map[string]*namespace.Loader // by cluster
}

func (s *Store) newRestore() (*restore, error) {
	r := &restore{s.db.Txn(true), map[string]stored{}, map[string]*namespace.Loader{}}
	for _, table := range storedTables() {
		r.tables[table.name] = table
		if _, err := r.DeleteAll(table.name, byID); err != nil {
			r.Abort()
			return nil, err
		}
	}
	return r, nil
}

func readHeader(in *json.Decoder) (h snapshotHeader, err error) {
	if err := in.Decode(&h); err != nil {
		return h, fmt.Errorf("read snapshot: header: %w", err)
	}
	if h.Millrace != "snapshot" || h.Version < 1 {
		return h, errors.New("read snapshot: this is not a snapshot of millrace")
	}
	return h, nil
}

// SnapshotProtocol reads from the beginning of a snapshot which protocol it takes to read it.
func SnapshotProtocol(r io.Reader) (int, error) {
	h, err := readHeader(json.NewDecoder(r))
	return h.Version, err
}

func (r *restore) line(line snapshotLine) error {
	if line.Table == tableFiles {
		return r.piece(line.Record)
	}
	table, ok := r.tables[line.Table]
	if !ok {
		return fmt.Errorf("unknown table %q", line.Table)
	}
	record, err := table.decode(line.Record)
	if err != nil {
		return fmt.Errorf("%s: %w", line.Table, err)
	}
	if task, ok := record.(*Task); ok && task.Done != (task.Win != nil) {
		return fmt.Errorf("task %s %d of job %s is done without a winner, or the other way round", task.ID.Kind, task.ID.Index, task.Job)
	}
	return r.Insert(line.Table, record)
}

// piece reads a piece of a cluster's name space. The clusters come before.
func (r *restore) piece(raw json.RawMessage) error {
	var p filesPiece
	if err := json.Unmarshal(raw, &p); err != nil {
		return fmt.Errorf("%s: %w", tableFiles, err)
	}
	if r.files[p.Cluster] == nil {
		if _, ok := first[Cluster](r.Txn, tableCluster, byID, p.Cluster); !ok {
			return fmt.Errorf("%s of cluster %q, which is not there", tableFiles, p.Cluster)
		}
		r.files[p.Cluster] = &namespace.Loader{}
	}
	if err := r.files[p.Cluster].Add(p.Piece); err != nil {
		return fmt.Errorf("%s of cluster %s: %w", tableFiles, p.Cluster, err)
	}
	return nil
}

// trees are the name spaces of which all pieces are read.
func (r *restore) trees() (map[string]*namespace.Tree, error) {
	trees := map[string]*namespace.Tree{}
	for cluster, l := range r.files {
		tree, err := l.Tree()
		if err != nil {
			return nil, fmt.Errorf("%s of cluster %s: %w", tableFiles, cluster, err)
		}
		trees[cluster] = tree
	}
	return trees, nil
}

// noEOF: the end of the stream is no good end before the trailer.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
