package fsm

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace/hdfs"
	"millrace/hdfs/namespace"
	"millrace/master/state"
	"millrace/pkg/protocol"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// commands is one of each, with something in every kind of field.
func commands() []state.Command {
	task := state.TaskID{Kind: state.Reduce, Index: 3}
	block := hdfs.Block{ID: 1<<64 - 1, Stamp: 1<<63 + 1, Size: 1 << 32}
	return []state.Command{
		state.CreateSite{Site: state.Site{ID: "site", CreatedAt: t0, SealedCAKey: []byte{1}}, Cluster: state.Cluster{ID: "j-1", Name: "default"}},
		state.PutStore{SealedStore: []byte{2}, SystemPrefix: "s3://sys/"},
		state.RaiseSite{Protocol: 2},
		state.PutNode{Node: state.Node{ID: "i-m", Role: state.RoleMaster}},
		state.AdmitNode{Token: "t", Node: state.Node{ID: "i-1", Role: state.RoleCore, Cluster: "j-1"}, Now: t0},
		state.RemoveNode{ID: "i-1", Shrink: true},
		state.DrainNode{ID: "i-1", By: t0},
		state.CreateToken{Token: state.Token{ID: "t", SecretHash: []byte{3}, UsesLeft: -1}},
		state.RevokeToken{ID: "t"},
		state.SubmitJob{Job: state.Job{ID: "s-A", Cluster: "j-1", Spec: []byte{4, 255}, Input: []string{"s3://in/"}, Output: "s3://out/"}},
		state.PlanJob{Job: "s-A", Maps: 2, Reduces: 1, BytesTotal: 1 << 40, At: t0},
		state.AddUploads{Uploads: []state.Upload{{Job: "s-A", Task: task, ID: "u", Key: "k"}}},
		state.DropUploads{Job: "s-A", IDs: []string{"u"}},
		state.EndTasks{Items: []state.EndTask{
			{Job: "s-A", Task: task, Win: &state.Completion{Attempt: "a", Digest: 1<<64 - 1, SetTerm: 1<<63 + 1, Counters: []state.Counter{{Group: "g", Name: "n", Value: -1}}}},
			{Job: "s-A", Task: task, Ended: &state.EndedAttempt{Attempt: "b", Failure: state.Failure{Message: "why <&> \x00 語"}}, CountsAs: state.CountsLost},
		}},
		state.LoseMaps{Job: "s-A", Maps: []state.LostMap{{Index: 1, Attempt: "a"}}},
		state.BeginCommit{Job: "s-A", At: t0},
		state.RedoParts{Job: "s-A", Tasks: []int{0, 1}},
		state.CompleteJob{Job: "s-A", At: t0, OutputRecords: 1, Parts: 2},
		state.FailJob{Job: "s-A", Reason: "why", Failure: &state.Failure{ExitCode: 1}, Force: true},
		state.CancelJob{Job: "s-A", Reason: "why"},
		state.EndJob{Job: "s-A", At: t0},
		state.RetireJobs{Page: "p", Jobs: []string{"s-A", "s-B"}},
		state.ForgetJobs{Jobs: []string{"s-A"}},
		state.CreateCluster{Cluster: state.Cluster{ID: "j-2", Name: "night", Groups: []state.Group{{ID: "ig-1", Role: state.RoleTask, Scales: true, Max: 20}}, Tags: []state.Tag{{Key: "k <&>", Value: "語"}}}},
		state.ResizeCluster{Cluster: "j-2", Groups: []state.Group{{ID: "ig-1", Target: 5, GraceMs: 1 << 33}}},
		state.SetTarget{Cluster: "j-2", Group: "ig-1", From: 1, To: 2, Event: &state.Event{At: t0, Kind: "SCALING", Message: "tasks wait"}},
		state.SetCluster{Cluster: "j-2", TerminationProtected: new(false), StepConcurrency: new(0), AutoTerminateMs: new(int64(1) << 40), PutTags: []state.Tag{{Key: "k"}}, Ready: t0,
			Bootstrap: []state.BootstrapAction{{Name: "a.sh", URL: "s3://in/a.sh", Args: []string{"<&>"}, SHA256: "0123", TimeoutMs: 1 << 33}}},
		state.TerminateCluster{Cluster: "j-2", ReasonCode: state.ReasonUserRequest, Reason: "why"},
		state.EndCluster{Cluster: "j-2", State: state.ClusterTerminated, At: t0},
		state.SuspendGroup{Cluster: "j-2", Group: "ig-1", Reason: "half of it failed"},
		state.AddEvents{Cluster: "j-2", Events: []state.Event{{At: t0, Kind: "NODE", Subject: "i-1", Message: "it joined"}}},
		state.AssignNode{ID: "i-1", Cluster: "j-2", Group: "ig-1"},
		state.LeaveNode{ID: "i-1", By: t0, Bye: "0123"},
		state.ReleaseNode{ID: "i-1"},
		state.FindNode{ID: "i-1", Cluster: "j-2", Role: state.RoleCore},
		state.NoteBootstrap{ID: "i-1", Cluster: "j-2", State: state.BootstrapFailed, Failure: "exit code 1\n\x00"},
		state.PutLaunch{Launch: state.Launch{ID: "l-1", RequestedAt: t0, SealedToken: []byte{5}}, Create: &state.Token{ID: "t", Launch: "l-1"}},
		state.DropLaunch{ID: "l-1"},
		state.CreateUser{User: state.User{Name: "ann", Role: state.UserAdmin, CreatedAt: t0}},
		state.PutLoginCode{Name: "ann", CodeID: "c", CodeHash: []byte{6}, ExpiresAt: t0},
		state.RemoveUser{Name: "ann"},
		state.LoginUser{CodeID: "c", Now: t0},
		state.SetSite{NoExec: new(true)},
		state.PutCA{Phase: state.CASpreading, Since: t0, CAPEM: "both", SealedCAKey: []byte{7}},
		namespace.CreateFile{Cluster: "j-1", Path: "/a <&> 語", Lease: "w", Replication: 2, BlockSize: 1 << 20, Overwrite: true, Group: "s-A", Task: "r-3"},
		namespace.AddBlock{Cluster: "j-1", File: 1<<64 - 1, Lease: "w", Prev: &block},
		namespace.Restamp{Cluster: "j-1", File: 2, Lease: "w", Block: block},
		namespace.CompleteFile{Cluster: "j-1", File: 2, Lease: "w", Last: &block, At: t0},
		namespace.AbandonFile{Cluster: "j-1", File: 2, Lease: "w"},
		namespace.ExpireLeases{Cluster: "j-1", Leases: []string{"w", "x"}},
		namespace.Mkdir{Cluster: "j-1", Path: "/a", At: t0},
		namespace.Rename{Cluster: "j-1", From: "/a", To: "/b", At: t0, Request: "q"},
		namespace.Remove{Cluster: "j-1", Path: "/a", Recursive: true, Request: "q", File: 2},
		namespace.SetReplication{Cluster: "j-1", Path: "/a", Replication: 3},
		namespace.Publish{Cluster: "j-1", Group: "s-A", Prefix: "/out", Count: 2, Replace: true, At: t0},
		namespace.AbortUploads{Cluster: "j-1", Group: "s-A", Files: []hdfs.FileID{2, 3}},
	}
}

func TestDecodeIsWhatWasEncoded(t *testing.T) {
	for _, c := range commands() {
		data, err := Encode(c)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(data)
		if err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		if d := cmp.Diff(c, got); d != "" {
			t.Errorf("%s: %s", c.CommandName(), d)
		}
	}
}

// TestEveryCommandCanBeRead finds the commands in the sources: a new one that
// Decode does not know would be logged by the leader and stop every follower.
func TestEveryCommandCanBeRead(t *testing.T) {
	listed := map[string]bool{}
	for _, c := range commands() {
		listed[reflect.TypeOf(c).Name()] = true
		if name := reflect.TypeOf(c).Name(); name != c.CommandName() {
			t.Errorf("%s is called %s in the log", name, c.CommandName())
		}
	}
	found := 0
	for _, source := range []string{"../state/commands.go", "../state/fleetcommands.go", "../../hdfs/namespace/commands.go"} {
		for _, name := range commandsIn(t, source) {
			found++
			if !listed[name] {
				t.Errorf("%s is not among this test's commands, and perhaps not among those that Decode knows", name)
			}
		}
	}
	if found != len(listed) {
		t.Errorf("%d commands in the sources, %d here", found, len(listed))
	}
}

// commandsIn lists the commands that a source file declares.
func commandsIn(t *testing.T, source string) (names []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), source, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == "CommandName" {
			names = append(names, f.Recv.List[0].Type.(*ast.Ident).Name)
		}
	}
	return names
}

func TestDecodeRefuses(t *testing.T) {
	for _, c := range []struct{ in, says string }{
		{``, "unexpected end"},
		{`nonsense`, "invalid"},
		{`null`, "version 0"},
		{`{"type":"EndJob","body":{}}`, "version 0"},
		{`{"v":99,"type":"EndJob","body":{}}`, `log entry "EndJob": written by a newer millrace: it takes one that speaks protocol 99, and this one speaks up to ` + fmt.Sprint(protocol.Version)},
		{`{"v":1,"type":"FlyToTheMoon","body":{}}`, `"FlyToTheMoon"`},
		{`{"v":1,"type":"EndJob"}`, "EndJob: no body"},
		{`{"v":1,"type":"EndJob","body":[]}`, "EndJob: json"},
		{`{"v":1,"type":"EndJob","body":{"job":7}}`, "EndJob: json"},
		{`{"v":1,"type":"EndJob","body":{"job":"s-A","softly":true}}`, `unknown field "softly"`},
	} {
		got, err := Decode([]byte(c.in))
		if got != nil || !errors.Is(err, ErrUnknownEntry) || !strings.Contains(fmt.Sprint(err), c.says) {
			t.Errorf("%s: %v, %v", c.in, got, err)
		}
	}
}

func TestEncodeRefusesWhatJSONCannotHold(t *testing.T) {
	if _, err := Encode(state.EndJob{At: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}); err == nil {
		t.Error("it took a time of the year 10000")
	}
}

// FuzzDecode: whatever the bytes, no panic, in state neither; what is read is encoded and read the same.
func FuzzDecode(f *testing.F) {
	for _, c := range commands() {
		data, err := Encode(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"v":1,"type":"EndTasks","body":{"items":[{},{"win":{}},{"ended":null}]}}`))
	f.Add([]byte(`{"v":1,"type":"EndJob","body":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Decode(data)
		if err != nil {
			return
		}
		again, err := Encode(c)
		if err != nil {
			return // an odd time
		}
		back, err := Decode(again)
		if err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		once, _ := json.Marshal(c)
		if twice, _ := json.Marshal(back); string(once) != string(twice) {
			t.Fatalf("%s became %s", once, twice)
		}
		s := state.New()
		for i, before := range commands()[:10] {
			_, _ = s.Apply(uint64(i+1), before)
		}
		_, _ = s.Apply(10, c)
	})
}
