package fsm

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"millrace/master/state"
	"millrace/pkg/protocol"
)

// What an old master could not read is not logged before the site says that there is none.
func TestTheGate(t *testing.T) {
	uses := 1
	f := &fake{result: Result{}}
	l := NewLog(f, LogConfig{Uses: func() int { return uses }})
	newer := state.PutNode{Node: state.Node{ID: "i-m", Role: state.RoleMaster, Protocol: 2}}
	if _, err := l.Apply(t.Context(), newer); !errors.Is(err, ErrTooNew) || !strings.Contains(err.Error(), "it takes protocol 2, and the site uses 1") {
		t.Errorf("%v", err)
	}
	if _, err := l.Apply(t.Context(), state.RaiseSite{Protocol: 2}); !errors.Is(err, ErrTooNew) {
		t.Errorf("it is not for everybody to raise it: %v", err)
	}
	if f.entries != 0 {
		t.Errorf("%d entries came into the log", f.entries)
	}
	older := state.PutNode{Node: state.Node{ID: "i-m", Role: state.RoleMaster}}
	if _, err := l.Apply(t.Context(), older); err != nil {
		t.Error(err)
	}
	if err := l.Raise(t.Context(), 2); err != nil {
		t.Error(err)
	}
	uses = 2
	if _, err := l.Apply(t.Context(), newer); err != nil {
		t.Error(err)
	}
	if f.entries != 3 {
		t.Errorf("%d entries came into the log", f.entries)
	}
}

// A job that an older master could read, and not run, waits until there is none.
func TestTheGateForJobsOnFiles(t *testing.T) {
	for _, c := range []struct {
		job  state.Job
		want int
	}{
		{state.Job{}, 1},
		{state.Job{Input: []string{"s3://in/", "s3://in/hdfs://"}, Output: "s3://out/hdfs:/"}, 1},
		{state.Job{Input: []string{"s3://in/", "hdfs:///in"}, Output: "s3://out/"}, needFiles},
		{state.Job{Input: []string{"hdfs://night/in"}}, needFiles},
		{state.Job{Input: []string{"s3://in/"}, Output: "hdfs:///out/"}, needFiles},
	} {
		if got := needs(state.SubmitJob{Job: c.job}); got != c.want {
			t.Errorf("%+v needs %d, not %d", c.job, got, c.want)
		}
	}
}

// A master that gets an entry it cannot read stops there: what comes after is not applied, and no snapshot lacks it.
func TestAMasterThatIsTooOldStops(t *testing.T) {
	store := state.New()
	var told []error
	f := New(store, zap.NewNop(), func(err error) { told = append(told, err) })
	f.Apply(entry(t, 1, commands()[0]))
	newer := fmt.Appendf(nil, `{"v":%d,"type":"EndJob","body":{}}`, protocol.Version+1)
	for _, l := range []*raft.Log{{Index: 2, Data: newer}, entry(t, 3, state.PutStore{SystemPrefix: "s3://later/"})} {
		if r := f.Apply(l).(Result); !errors.Is(r.Err, protocol.ErrNewer) {
			t.Errorf("%+v", r)
		}
	}
	if site, _ := store.View().Site(); store.View().Index() != 1 || site.SystemPrefix != "" {
		t.Errorf("index %d, %+v", store.View().Index(), site)
	}
	if _, err := f.Snapshot(); !errors.Is(err, protocol.ErrNewer) {
		t.Errorf("a snapshot: %v", err)
	}
	if len(told) != 1 {
		t.Errorf("told %d times", len(told))
	}
}

// TestEveryFieldHasItsProtocol: testdata/fields.txt names each field of each command with the protocol that it came
// with. Old masters refuse entries with fields that they do not know, so a new field takes a new protocol, and needs must say so.
func TestEveryFieldHasItsProtocol(t *testing.T) {
	text, err := os.ReadFile("testdata/fields.txt")
	if err != nil {
		t.Fatal(err)
	}
	since := map[string]int{}
	for line := range strings.Lines(string(text)) {
		number, field, _ := strings.Cut(strings.TrimSpace(line), " ")
		if since[field], err = strconv.Atoi(number); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
	}
	var missing []string
	for _, c := range commands() {
		whole := reflect.New(reflect.TypeOf(c)).Elem()
		for _, f := range fields(whole, c.CommandName()) {
			from, listed := since[f.path]
			delete(since, f.path)
			if !listed {
				missing = append(missing, fmt.Sprintf("%d %s", protocol.Version, f.path))
				continue
			}
			if needs(whole.Interface().(state.Command)) >= from {
				continue // with the whole command
			}
			one := reflect.New(reflect.TypeOf(c)).Elem()
			at := within(one, f.index)
			switch at.Kind() { // a field of another kind needs another value here
			case reflect.String:
				at.SetString("x")
			case reflect.Slice:
				at.Set(reflect.MakeSlice(at.Type(), 1, 1))
			case reflect.Bool:
				at.SetBool(true)
			case reflect.Struct:
				at.Set(reflect.ValueOf(t0))
			case reflect.Uint64:
				at.SetUint(1)
			default:
				at.SetInt(1)
			}
			if got := needs(one.Interface().(state.Command)); got < from {
				t.Errorf("%s came with protocol %d, and with it set the command may be logged at %d", f.path, from, got)
			}
		}
	}
	slices.Sort(missing)
	if len(missing) > 0 {
		t.Errorf("fields that older masters cannot read, if there is a release without them: raise protocol.Version, say it in needs, and list them:\n%s", strings.Join(missing, "\n"))
	}
	for path := range since {
		t.Errorf("%s is listed and not there: older masters still write it", path)
	}
}

type field struct {
	path  string
	index []int
}

// within is a field of v, through the first element of each list on the way.
func within(v reflect.Value, index []int) reflect.Value {
	for _, i := range index {
		if v.Kind() == reflect.Slice {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			v = v.Index(0)
		}
		v = v.Field(i)
	}
	return v
}

// fields lists the fields in v, those in records and lists of it too.
func fields(v reflect.Value, path string) (list []field) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		one := field{path + "." + name, f.Index}
		list = append(list, one)
		inner := f.Type
		for inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		if inner.Kind() != reflect.Struct || inner == reflect.TypeFor[time.Time]() {
			continue
		}
		for _, below := range fields(reflect.New(inner).Elem(), one.path) {
			below.index = append(slices.Clone(f.Index), below.index...)
			list = append(list, below)
		}
	}
	return list
}
