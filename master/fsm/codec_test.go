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

	"millrace/master/state"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// commands is one of each, with something in every kind of field.
func commands() []state.Command {
	task := state.TaskID{Kind: state.Reduce, Index: 3}
	return []state.Command{
		state.CreateSite{Site: state.Site{ID: "site", CreatedAt: t0, SealedCAKey: []byte{1}}, Cluster: state.Cluster{ID: "j-1", Name: "default"}},
		state.PutStore{SealedStore: []byte{2}, SystemPrefix: "s3://sys/"},
		state.PutNode{Node: state.Node{ID: "i-m", Role: state.RoleMaster}},
		state.AdmitNode{Token: "t", Node: state.Node{ID: "i-1", Role: state.RoleCore, Cluster: "j-1"}, Now: t0},
		state.RemoveNode{ID: "i-1"},
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

// TestEveryCommandCanBeRead finds the commands in state's source: a new one that
// Decode does not know would be logged by the leader and stop every follower.
func TestEveryCommandCanBeRead(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../state/commands.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, c := range commands() {
		listed[reflect.TypeOf(c).Name()] = true
		if name := reflect.TypeOf(c).Name(); name != c.CommandName() {
			t.Errorf("%s is called %s in the log", name, c.CommandName())
		}
	}
	found := 0
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Name.Name != "CommandName" {
			continue
		}
		found++
		if name := f.Recv.List[0].Type.(*ast.Ident).Name; !listed[name] {
			t.Errorf("%s is not among this test's commands, and perhaps not among those that Decode knows", name)
		}
	}
	if found != len(listed) {
		t.Errorf("%d commands in state, %d here", found, len(listed))
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, c := range []struct{ in, says string }{
		{``, "unexpected end"},
		{`nonsense`, "invalid"},
		{`null`, "version 0"},
		{`{"type":"EndJob","body":{}}`, "version 0"},
		{`{"v":2,"type":"EndJob","body":{}}`, `"EndJob" of version 2, this binary reads up to 1`},
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
		for i, before := range commands()[:9] {
			_, _ = s.Apply(uint64(i+1), before)
		}
		_, _ = s.Apply(10, c)
	})
}
