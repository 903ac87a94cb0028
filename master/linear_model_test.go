package master

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"
)

// What clients do to the state and what they are told, one object at a time: a join token, or the job of a request id. A list is a read of
// every object there may be.
const (
	opCreate = "create" // a token; a job, or the one that its request id has made before
	opEnd    = "end"    // a token is revoked, a job cancelled
	opRead   = "read"
)

type opInput struct{ key, op string }

// opOutput is an answer. A call that got none may have been carried out, at any time after it was made.
type opOutput struct {
	unclear bool
	found   bool
	id      string // that the site has given it
	state   string // of a job
}

// chronicle is what several clients saw; times count from its beginning.
type chronicle []porcupine.Operation

// checkWithin bounds the check of one object: what is too hard to tell is no proof.
const checkWithin = time.Minute

// never is when a call returns whose outcome nobody knows.
const never = int64(1) << 62

// object is one token or job, as a model of either has it.
type object struct {
	id     string // unknown: made by a call whose answer nobody saw
	ended  bool
	stage  int // of a job: how far it was seen
	exists bool
}

const unknownID = "?"

// A token is there from its creation to its revocation.
func tokenStep(o object, in opInput, out opOutput) (bool, object) {
	switch in.op {
	case opCreate:
		o = object{exists: true, id: unknownID}
		if !out.unclear {
			o.id = out.id
		}
		return true, o
	case opEnd:
		legal := out.unclear || out.found == o.exists
		return legal, object{ended: true}
	}
	if !out.found {
		return !o.exists, o
	}
	return o.is(out.id)
}

// is says whether an object may have been seen under an id.
func (o object) is(id string) (bool, object) {
	if o.exists && o.id == unknownID {
		o.id = id
	}
	return o.exists && o.id == id, o
}

// jobStages are what a job goes through that is cancelled: none before that, and never back. That it is planned, which makes it RUNNING,
// its leader tells before the log does.
var jobStages = map[string]int{"PENDING": 0, "RUNNING": 0, "CANCEL_PENDING": 1, "CANCELLED": 2}

func jobStep(o object, in opInput, out opOutput) (bool, object) {
	switch in.op {
	case opCreate:
		if !o.exists {
			o = object{exists: true, id: unknownID}
		}
	case opEnd:
		if !o.exists {
			return out.unclear || !out.found, o
		}
		o.ended = true
	case opRead:
		if !out.found {
			return !o.exists, o
		}
	}
	if out.unclear {
		return true, o
	}
	legal, o := o.is(out.id)
	stage, known := jobStages[out.state]
	legal = legal && known && stage >= o.stage && (stage > 0) == o.ended
	if in.op == opRead { // what a change is answered with may be of a moment after it
		o.stage = stage
	}
	return legal, o
}

// linear is the model of all objects, each by itself: what is linearizable for each is so for all of them.
var linear = porcupine.Model{
	Partition: func(all []porcupine.Operation) (parts [][]porcupine.Operation) {
		by := map[string][]porcupine.Operation{}
		for _, op := range all {
			key := op.Input.(opInput).key
			by[key] = append(by[key], op)
		}
		for _, part := range by {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return object{} },
	Step: func(o, in, out any) (bool, any) {
		step := tokenStep
		if strings.HasPrefix(in.(opInput).key, "job") {
			step = jobStep
		}
		legal, next := step(o.(object), in.(opInput), out.(opOutput))
		return legal, next
	},
}

// violation finds an object whose history no order of its calls explains; "" if there is none.
func (h chronicle) violation() string {
	for _, part := range linear.Partition(h) {
		verdict := porcupine.CheckOperationsTimeout(linear, part, checkWithin)
		if verdict == porcupine.Ok {
			continue
		}
		slices.SortFunc(part, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
		lines := []string{fmt.Sprintf("%s: %s", part[0].Input.(opInput).key, verdict)}
		for _, op := range part {
			returned := "never"
			if op.Return != never {
				returned = time.Duration(op.Return).String()
			}
			lines = append(lines, fmt.Sprintf("%12s to %-12s client %d: %+v gave %+v", time.Duration(op.Call), returned, op.ClientId, op.Input, op.Output))
		}
		return strings.Join(lines, "\n")
	}
	return ""
}

// planted is a history in short: of one object, each call from one moment to another.
type planted struct {
	call, back int64
	op         string
	out        opOutput
}

func plant(key string, ops ...planted) (h chronicle) {
	for i, p := range ops {
		h = append(h, porcupine.Operation{ClientId: i, Input: opInput{key, p.op}, Call: p.call, Output: p.out, Return: p.back})
	}
	return h
}

// What must not be is found, and what may be is not taken for it.
func TestTheCheckOfHistories(t *testing.T) {
	none, unclear := opOutput{}, opOutput{unclear: true}
	token := opOutput{found: true, id: "t"}
	job := func(id, state string) opOutput { return opOutput{found: true, id: id, state: state} }
	for name, c := range map[string]struct {
		key  string
		ops  []planted
		want bool
	}{
		"a token is seen once it is made":                  {"token", []planted{{0, 1, opCreate, token}, {2, 3, opRead, token}}, true},
		"a read beside the creation may not see it":        {"token", []planted{{0, 4, opCreate, token}, {1, 2, opRead, none}}, true},
		"a stale read: it was made before":                 {"token", []planted{{0, 1, opCreate, token}, {2, 3, opRead, none}}, false},
		"a stale read: one has seen it before":             {"token", []planted{{0, 9, opCreate, token}, {1, 2, opRead, token}, {3, 4, opRead, none}}, false},
		"a stale read: it was revoked before":              {"token", []planted{{0, 1, opCreate, token}, {2, 3, opEnd, token}, {4, 5, opRead, token}}, false},
		"a revocation without an answer may come late":     {"token", []planted{{0, 1, opCreate, token}, {2, never, opEnd, unclear}, {4, 5, opRead, token}, {6, 7, opRead, none}}, true},
		"but is not taken back":                            {"token", []planted{{0, 1, opCreate, token}, {2, never, opEnd, unclear}, {4, 5, opRead, none}, {6, 7, opRead, token}}, false},
		"a revocation of what is there finds it":           {"token", []planted{{0, 1, opCreate, token}, {2, 3, opEnd, none}}, false},
		"a creation without an answer may never be":        {"token", []planted{{0, never, opCreate, unclear}, {2, 3, opRead, none}, {4, 5, opRead, none}}, true},
		"or be seen at last":                               {"token", []planted{{0, never, opCreate, unclear}, {2, 3, opRead, none}, {4, 5, opRead, token}}, true},
		"the same request is the same job":                 {"job", []planted{{0, 1, opCreate, job("a", "PENDING")}, {2, 3, opCreate, job("a", "RUNNING")}}, true},
		"the same request is never a second job":           {"job", []planted{{0, 1, opCreate, job("a", "PENDING")}, {2, 3, opCreate, job("b", "PENDING")}}, false},
		"nor one after an unclear answer, once seen":       {"job", []planted{{0, never, opCreate, unclear}, {2, 3, opRead, job("a", "PENDING")}, {4, 5, opCreate, job("b", "PENDING")}}, false},
		"an acknowledged job is there":                     {"job", []planted{{0, 1, opCreate, job("a", "PENDING")}, {2, 3, opRead, none}}, false},
		"a cancelled job goes its way":                     {"job", []planted{{0, 1, opCreate, job("a", "PENDING")}, {2, 3, opEnd, job("a", "CANCEL_PENDING")}, {4, 5, opRead, job("a", "CANCELLED")}}, true},
		"a cancel is not taken back":                       {"job", []planted{{0, 1, opCreate, job("a", "PENDING")}, {2, 3, opEnd, job("a", "CANCEL_PENDING")}, {4, 5, opRead, job("a", "RUNNING")}}, false},
		"nobody has cancelled it":                          {"job", []planted{{0, 1, opCreate, job("a", "PENDING")}, {2, 3, opRead, job("a", "CANCELLED")}}, false},
		"a job does not go back":                           {"job", []planted{{0, 1, opCreate, job("a", "PENDING")}, {0, 1, opEnd, job("a", "CANCEL_PENDING")}, {2, 3, opRead, job("a", "CANCELLED")}, {4, 5, opRead, job("a", "CANCEL_PENDING")}}, false},
		"a cancel without an answer may or may not be yet": {"job", []planted{{0, 1, opCreate, job("a", "PENDING")}, {2, never, opEnd, unclear}, {4, 5, opRead, job("a", "RUNNING")}, {6, 7, opRead, job("a", "CANCELLED")}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			found := plant(c.key, c.ops...).violation()
			require.Equal(t, c.want, found == "", found)
		})
	}
}
