package state

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"millrace/hdfs"
	"millrace/hdfs/namespace"
)

// mkdir makes a folder in a cluster's name space.
func mkdir(cluster, path string) namespace.Command {
	return namespace.Mkdir{Cluster: cluster, Path: path, At: t0}
}

// A cluster's files and the records beside them are those of one moment.
func TestAViewHasFilesAndRecordsOfOneMoment(t *testing.T) {
	b := newBench(t)
	b.do(mkdir(testCluster, "/first"))
	b.submit("s-A")
	view := b.View()
	b.do(mkdir(testCluster, "/second"))
	b.do(CancelJob{Job: "s-A"})
	if _, err := view.Files(testCluster).Stat("/first"); err != nil {
		t.Error(err)
	}
	if _, err := view.Files(testCluster).Stat("/second"); !errors.Is(err, hdfs.ErrNotExist) {
		t.Errorf("the view has what came later: %v", err)
	}
	if j, _ := view.Job("s-A"); j.State != JobPending {
		t.Errorf("the job is %s", j.State)
	}
	if _, err := b.View().Files(testCluster).Stat("/second"); err != nil || b.View().Index() != b.index {
		t.Errorf("%v, index %d", err, b.View().Index())
	}
}

func TestEachClusterHasItsOwnFiles(t *testing.T) {
	b := newBench(t)
	b.do(mkdir(testCluster, "/folder"))
	if n := b.View().Files("j-OTHER").Totals().Folders; n != 0 {
		t.Errorf("another cluster has %d folders", n)
	}
	b.refuse(ErrNotFound, mkdir("j-OTHER", "/x"))
	b.refuse(ErrNotFound, mkdir("", "/x"))
	b.refuse(hdfs.ErrInvalid, mkdir(testCluster, "x"))
	if b.View().Index() != b.index {
		t.Errorf("a refused command counts for the index: %d", b.View().Index())
	}
}

// withFiles is a store with so many folders, in a snapshot of several pieces if they are many.
func withFiles(t failer, folders int) *bench {
	b := newBench(t)
	for i := range folders {
		b.do(mkdir(testCluster, "/"+strings.Repeat("n", 200)+string(rune('A'+i%26))+strings.Repeat("m", i/26)))
	}
	b.do(namespace.CreateFile{Cluster: testCluster, Path: "/open", Lease: "w"})
	return b
}

func TestFilesInASnapshot(t *testing.T) {
	b := withFiles(t, 600)
	snapshot := snapshotOf(b, b.View())
	if n := bytes.Count(snapshot, []byte(`"table":"files"`)); n < 2 {
		t.Fatalf("%d pieces", n)
	}
	s := New()
	if err := s.Restore(bytes.NewReader(snapshot), readable); err != nil {
		t.Fatal(err)
	}
	if got := snapshotOf(t, s.View()); !bytes.Equal(got, snapshot) {
		t.Error("what was restored is another state")
	}
	if got, want := s.View().Files(testCluster).Totals(), b.View().Files(testCluster).Totals(); got != want || got.Folders != 600 || got.Hidden != 1 {
		t.Errorf("%+v, not %+v", got, want)
	}
	// A snapshot without files leaves none.
	if err := s.Restore(newSnapshot(t), readable); err != nil {
		t.Fatal(err)
	}
	if got := s.View().Files(testCluster).Totals(); got != (namespace.Totals{}) {
		t.Errorf("files of before: %+v", got)
	}
}

// A site that keeps no files writes what older masters read.
func TestNoFilesNoTrace(t *testing.T) {
	if text := string(snapshotOf(t, newBench(t).View())); strings.Contains(text, "files") {
		t.Error(text)
	}
}

func TestRestoreRefusesFilesThatAreDamaged(t *testing.T) {
	whole := string(snapshotOf(t, withFiles(t, 600).View()))
	lines := strings.SplitAfter(whole, "\n")
	var pieces []int
	for i, line := range lines {
		if strings.Contains(line, `"table":"files"`) {
			pieces = append(pieces, i)
		}
	}
	first, second := pieces[0], pieces[1]
	edited := func(edit func(lines []string)) string {
		all := append([]string{}, lines...)
		edit(all)
		return strings.Join(all, "")
	}
	for _, c := range []struct{ name, in, says string }{
		{"a flipped byte", edited(func(l []string) { l[first] = strings.Replace(l[first], "ubm5u", "ubm5v", 1) }), "damaged"},
		{"no piece at all", edited(func(l []string) { l[first] = `{"table":"files","record":{"cluster":"` + testCluster + `"}}` }), "damaged"},
		{"a record that is none", edited(func(l []string) { l[first] = `{"table":"files","record":7}` }), "record"},
		{"the first is gone", edited(func(l []string) { l[first] = "" }), "piece 1 of a name space comes where piece 0 should"},
		{"the last is gone", edited(func(l []string) {
			l[pieces[len(pieces)-1]] = ""
			l[len(l)-2] = fmt.Sprintf("{\"end\":true,\"count\":%d}\n", len(l)-4) // which counts it out
		}), "unexpected EOF"},
		{"two change places", edited(func(l []string) { l[first], l[second] = l[second], l[first] }), "piece 1 of a name space comes where piece 0 should"},
		{"a cluster that is not there", strings.ReplaceAll(whole, `{"table":"files","record":{"cluster":"`+testCluster, `{"table":"files","record":{"cluster":"j-X`), `cluster "j-X", which is not there`},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := withFiles(t, 1)
			before := snapshotOf(b, b.View())
			err := b.Restore(strings.NewReader(c.in), readable)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error: %v", err)
			}
			if !bytes.Equal(snapshotOf(b, b.View()), before) {
				t.Error("it changed the store")
			}
		})
	}
}
