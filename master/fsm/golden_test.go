package fsm

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"millrace/hdfs/namespace"
	"millrace/master/state"
	"millrace/pkg/protocol"
)

// Golden files are a log, a snapshot and the state that both hold, as one revision of this program wrote the first two: v1-2 is
// the second of those of protocol 1. They are never changed: sites have such files on their disks.
const goldens = "testdata/golden"

var update = flag.Bool("update", false, "write what today's code writes as a new golden file")

// unread is told of entries that cannot be read, of which there are none.
func unread(t *testing.T) func(error) { return func(err error) { t.Error(err) } }

// replay applies entries to a store, as Raft would, from an index on.
func replay(f *FSM, entries [][]byte, from int) {
	for i, data := range entries[from:] {
		f.Apply(&raft.Log{Index: uint64(from + i + 1), Data: data})
	}
}

// dump is a state in a form in which a field that has nothing in it is not there: one that is added later does not change it.
func dump(t *testing.T, v *state.View) string {
	t.Helper()
	var w bytes.Buffer
	if err := v.Persist(&w); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(w.String()), "\n")
	out := []string{fmt.Sprint("index ", v.Index())}
	for _, line := range lines[1 : len(lines)-1] {
		var record struct {
			Table  string
			Record json.RawMessage
		}
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatal(err)
		}
		if record.Table != "files" { // which are binary
			out = append(out, record.Table+" "+plain(t, record.Record))
		}
	}
	for _, c := range v.Clusters() {
		out = append(out, dumpFiles(t, v.Files(c.ID))...)
	}
	return strings.Join(out, "\n") + "\n"
}

// dumpFiles is what the views of a name space say; nothing of one that is empty.
func dumpFiles(t *testing.T, tree *namespace.Tree) (out []string) {
	t.Helper()
	all, err := tree.Walk("/")
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		out = append(out, fmt.Sprint("file ", plain(t, i), " of blocks ", tree.FileBlocks(i.ID)))
	}
	for h := range tree.HiddenFiles() {
		out = append(out, fmt.Sprint("hidden file ", plain(t, h), " of blocks ", tree.FileBlocks(h.ID)))
	}
	for b := range tree.Blocks(0) {
		out = append(out, "block "+plain(t, b))
	}
	if len(out) == 1 && tree.Totals() == (namespace.Totals{}) {
		return nil
	}
	return append(out, "files "+plain(t, tree.Totals()))
}

// plain is JSON without what says nothing, keys in order.
func plain(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	in := json.NewDecoder(bytes.NewReader(text))
	in.UseNumber() // digests have 64 bits
	var loose any
	if err := in.Decode(&loose); err != nil {
		t.Fatal(err)
	}
	if text, err = json.Marshal(something(loose)); err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// something leaves out of a JSON value what says nothing; nil if it says nothing at all.
func something(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, field := range v {
			if v[k] = something(field); v[k] == nil {
				delete(v, k)
			}
		}
		if len(v) == 0 {
			return nil
		}
	case []any:
		for i := range v {
			v[i] = something(v[i])
		}
		if len(v) == 0 {
			return nil
		}
	case json.Number:
		if v == "0" {
			return nil
		}
	case string:
		if v == "" || v == "0001-01-01T00:00:00Z" {
			return nil
		}
	case bool:
		if !v {
			return nil
		}
	}
	return v
}

// golden reads one file of a golden.
func golden(t *testing.T, name, ext string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(goldens, name+ext))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// goldenLog reads the entries of a golden log: one to a line, from index 1 on.
func goldenLog(t *testing.T, name string) [][]byte {
	t.Helper()
	return bytes.Split(bytes.TrimSpace(golden(t, name, ".log")), []byte("\n"))
}

// goldenNames lists the goldens of a protocol; "v*" of all.
func goldenNames(t *testing.T, version string) (names []string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(goldens, version+"-*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range found {
		names = append(names, strings.TrimSuffix(filepath.Base(path), ".log"))
	}
	return names
}

// What any revision has written is read, and means today what it meant then.
func TestGoldenFilesAreRead(t *testing.T) {
	names := goldenNames(t, "v*")
	if len(names) == 0 {
		t.Fatal("there are no golden files")
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			entries, want := goldenLog(t, name), string(golden(t, name, ".state"))
			for i, data := range entries {
				if _, err := Decode(data); err != nil {
					t.Fatalf("entry %d: %v", i+1, err)
				}
			}
			played := state.New()
			replay(New(played, zap.NewNop(), unread(t)), entries, 0)
			if d := cmp.Diff(want, dump(t, played.View())); d != "" {
				t.Errorf("the log gives another state than then (-then +now):\n%s", d)
			}
			restored := state.New()
			if err := Restore(restored, bytes.NewReader(golden(t, name, ".snapshot"))); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, dump(t, restored.View())); d != "" {
				t.Errorf("the snapshot gives another state than then (-then +now):\n%s", d)
			}
		})
	}
}

// A snapshot anywhere in a golden log and the rest of the log give what the whole log gives.
func TestGoldenLogsGoOnFromASnapshotAnywhere(t *testing.T) {
	for _, name := range goldenNames(t, "v*") {
		entries, want := goldenLog(t, name), string(golden(t, name, ".state"))
		played := state.New()
		f := New(played, zap.NewNop(), unread(t))
		for i := range entries {
			var w bytes.Buffer
			if err := played.View().Persist(&w); err != nil {
				t.Fatal(err)
			}
			restored := state.New()
			if err := Restore(restored, &w); err != nil {
				t.Fatal(err)
			}
			replay(New(restored, zap.NewNop(), unread(t)), entries, i)
			if d := cmp.Diff(want, dump(t, restored.View())); d != "" {
				t.Fatalf("%s, restored after %d entries (-then +now):\n%s", name, i, d)
			}
			replay(f, entries[:i+1], i)
		}
	}
}

// Whoever adds a command or a field adds a golden file that holds it: from then on sites have it on their disks.
func TestGoldenFilesHoldEverything(t *testing.T) {
	held := holdings{}
	for _, name := range goldenNames(t, fmt.Sprint("v", protocol.Version)) {
		held.addAll(t, goldenLog(t, name))
	}
	missing := known().without(held)
	if len(missing) == 0 {
		return
	}
	if !*update {
		t.Fatalf("no golden file of protocol %d holds %s: put it into history() and run\n  go test ./master/fsm -run Golden -update", protocol.Version, strings.Join(missing, ", "))
	}
	writeGolden(t)
}

// writeGolden writes the history as today's code does, under a name that is free.
func writeGolden(t *testing.T) {
	t.Helper()
	var entries [][]byte
	for _, c := range history() {
		data, err := Encode(c)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, data)
	}
	held := holdings{}
	held.addAll(t, entries)
	if still := known().without(held); len(still) > 0 {
		t.Fatalf("history() holds nothing in %s", strings.Join(still, ", "))
	}
	store := state.New()
	replay(New(store, zap.NewNop(), unread(t)), entries, 0)
	var snapshot bytes.Buffer
	if err := store.View().Persist(&snapshot); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("v%d-%d", protocol.Version, len(goldenNames(t, fmt.Sprint("v", protocol.Version)))+1)
	for ext, data := range map[string][]byte{
		".log": append(bytes.Join(entries, []byte("\n")), '\n'), ".snapshot": snapshot.Bytes(), ".state": []byte(dump(t, store.View())),
	} {
		file, err := os.OpenFile(filepath.Join(goldens, name+ext), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%s was written", name)
}

// holdings are names of types, and of those of their holdings that hold something: "Job", "Job.Output".
type holdings map[string]bool

// known are all types and holdings that entries and snapshots have.
func known() holdings {
	all := holdings{}
	for _, c := range commands() {
		all.declared(reflect.TypeOf(c))
	}
	for _, record := range []any{state.Site{}, state.Cluster{}, state.Node{}, state.Token{}, state.Job{}, state.Task{}, state.Upload{}, state.PastJob{}, state.Launch{}, state.User{}} {
		all.declared(reflect.TypeOf(record))
	}
	return all
}

func (f holdings) declared(typ reflect.Type) {
	switch typ.Kind() {
	case reflect.Pointer, reflect.Slice:
		f.declared(typ.Elem())
	case reflect.Struct:
		if f[typ.Name()] || typ == reflect.TypeOf(t0) {
			return
		}
		f[typ.Name()] = true
		for field := range typ.Fields() {
			f[typ.Name()+"."+field.Name] = true
			f.declared(field.Type)
		}
	}
}

// addAll adds what a log holds, and a snapshot of the state that it makes.
func (f holdings) addAll(t *testing.T, entries [][]byte) {
	t.Helper()
	for _, data := range entries {
		c, err := Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		f.add(reflect.ValueOf(c))
	}
	store := state.New()
	replay(New(store, zap.NewNop(), unread(t)), entries, 0)
	v := store.View()
	site, _ := v.Site()
	f.add(reflect.ValueOf(site))
	f.add(reflect.ValueOf(v.Clusters()))
	f.add(reflect.ValueOf(v.Nodes("")))
	f.add(reflect.ValueOf(v.Tokens()))
	f.add(reflect.ValueOf(v.PastJobs("")))
	f.add(reflect.ValueOf(v.Launches("")))
	f.add(reflect.ValueOf(v.Users()))
	for _, j := range v.Jobs("") {
		f.add(reflect.ValueOf(j))
		f.add(reflect.ValueOf(v.Uploads(j.ID)))
		f.add(reflect.ValueOf(v.Tasks(j.ID, state.Map)))
		f.add(reflect.ValueOf(v.Tasks(j.ID, state.Reduce)))
	}
}

func (f holdings) add(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			f.add(v.Elem())
		}
	case reflect.Slice:
		for _, element := range v.Seq2() {
			f.add(element)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeOf(t0) {
			return
		}
		f[v.Type().Name()] = true
		for field, value := range v.Fields() {
			if !value.IsZero() {
				f[v.Type().Name()+"."+field.Name] = true
				f.add(value)
			}
		}
	}
}

// without names what others lack, in order.
func (f holdings) without(others holdings) (names []string) {
	for name := range f {
		if !others[name] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
