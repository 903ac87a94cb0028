package task

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/protobuf/proto"

	"millrace/jobs/engine"
	"millrace/jobs/input"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

func TestSegmentsAreTakenOncePerMap(t *testing.T) {
	s := &Segments{}
	s.Deliver([]*api.ChildSegment{{Map: 2, MapAttempt: "a"}, {Map: 0}})
	s.Deliver([]*api.ChildSegment{{Map: 2, MapAttempt: "b"}}) // the map has run again
	done := make(chan []*api.ChildSegment)
	go func() {
		list, err := s.take(context.Background(), 3)
		if err != nil {
			t.Error(err)
		}
		done <- list
	}()
	s.Deliver([]*api.ChildSegment{{Map: 1}})
	list := <-done
	s.Deliver([]*api.ChildSegment{{Map: 2, MapAttempt: "c"}}) // too late
	if len(list) != 3 || list[0].Map != 0 || list[1].Map != 1 || list[2].MapAttempt != "b" {
		t.Errorf("took %v", list)
	}
}

func TestNoMapsNeedNoSegments(t *testing.T) {
	if list, err := (&Segments{}).take(t.Context(), 0); len(list) != 0 || err != nil {
		t.Errorf("took %v, %v", list, err)
	}
}

func TestASegmentOfAnUnknownMapIsAnError(t *testing.T) {
	s := &Segments{}
	s.Deliver([]*api.ChildSegment{{Map: 7}})
	if _, err := s.take(t.Context(), 1); err == nil {
		t.Error("it was taken")
	}
}

func TestKindsOfFailure(t *testing.T) {
	killed, cancel := context.WithCancelCause(t.Context())
	cancel(ErrKilled)
	read := func(err error) error { return &input.ReadError{URL: "s3://b/k", Offset: 7, Err: err} }
	broken := &segmentError{segment: &api.ChildSegment{Map: 3, MapAttempt: "a"}, err: errors.New("x")}
	full := &os.PathError{Op: "write", Path: "/x/.spill/1", Err: syscall.ENOSPC}
	for name, test := range map[string]struct {
		ctx  context.Context
		err  error
		kind api.FailureKind
		url  string
	}{
		"program":              {t.Context(), fmt.Errorf("x: %w", &ProgramError{Message: "bad"}), api.FailureKind_FAILURE_KIND_PROGRAM, "here"},
		"input changed":        {t.Context(), read(objectstore.ErrPrecondition), api.FailureKind_FAILURE_KIND_INPUT, "s3://b/k"},
		"store unreachable":    {t.Context(), read(objectstore.ErrUnreachable), api.FailureKind_FAILURE_KIND_RESOURCE, "s3://b/k"},
		"disk full":            {t.Context(), full, api.FailureKind_FAILURE_KIND_RESOURCE, ""},
		"disk full in combine": {t.Context(), programError("finish the mapper", fmt.Errorf("combine: %w", full)), api.FailureKind_FAILURE_KIND_RESOURCE, ""},
		"input damaged":        {t.Context(), read(input.ErrDamaged), api.FailureKind_FAILURE_KIND_INPUT, "s3://b/k"},
		"block lost":           {t.Context(), read(&objectstore.Error{Op: "get", URL: "s3://b/k", Kind: objectstore.ErrDamaged}), api.FailureKind_FAILURE_KIND_INPUT, "s3://b/k"},
		"record too long":      {t.Context(), read(input.ErrRecordTooLong), api.FailureKind_FAILURE_KIND_INPUT, "s3://b/k"},
		"body cut short":       {t.Context(), read(io.ErrUnexpectedEOF), api.FailureKind_FAILURE_KIND_PROGRAM, "s3://b/k"},
		"quota":                {t.Context(), &os.PathError{Op: "write", Path: "/x", Err: syscall.EDQUOT}, api.FailureKind_FAILURE_KIND_RESOURCE, ""},
		"disk read-only":       {t.Context(), &os.PathError{Op: "open", Path: "/x", Err: syscall.EROFS}, api.FailureKind_FAILURE_KIND_RESOURCE, ""},
		"disk broken":          {t.Context(), &os.PathError{Op: "read", Path: "/x", Err: syscall.EIO}, api.FailureKind_FAILURE_KIND_RESOURCE, ""},
		"engine's descriptors": {t.Context(), &os.PathError{Op: "open", Path: "/x", Err: syscall.EMFILE}, api.FailureKind_FAILURE_KIND_RESOURCE, ""},
		"program's own":        {t.Context(), programError("map", &os.PathError{Op: "open", Path: "/x", Err: syscall.EMFILE}), api.FailureKind_FAILURE_KIND_PROGRAM, "here"},
		"store away at close":  {t.Context(), programError("finish the mapper", objectstore.ErrUnreachable), api.FailureKind_FAILURE_KIND_RESOURCE, ""},
		"upload lost":          {t.Context(), programError("reduce", fmt.Errorf("upload part 2 of s3://b/k: %w", objectstore.ErrNoSuchUpload)), api.FailureKind_FAILURE_KIND_STORE, ""},
		"something else":       {t.Context(), errors.New("odd"), api.FailureKind_FAILURE_KIND_NODE, ""},
		"segment":              {t.Context(), broken, api.FailureKind_FAILURE_KIND_SEGMENT, ""},
		"killed":               {killed, context.Canceled, api.FailureKind_FAILURE_KIND_KILLED, ""},
		"program while killed": {killed, &ProgramError{Message: "signal: killed"}, api.FailureKind_FAILURE_KIND_KILLED, ""},
	} {
		if f := failure(test.ctx, test.err, "here", 1); f.Kind != test.kind || f.Input != test.url {
			t.Errorf("%s: %v, want %v at %q", name, f, test.kind, test.url)
		}
	}
}

func TestFailuresAreBounded(t *testing.T) {
	long := strings.Repeat("é\n", 10_000)
	f := failure(t.Context(), &ProgramError{Message: long, StderrTail: long}, "", 0)
	if len(f.Message) > maxMessage+8 || len(f.StderrTail) > maxTail {
		t.Errorf("message of %d, tail of %d bytes", len(f.Message), len(f.StderrTail))
	}
}

func TestCountersOfAProgram(t *testing.T) {
	c := &Context{}
	c.Counter("g", "b").Add(2)
	c.Counter("g", "a").Add(1)
	c.Counter("g", "b").Add(3)
	if got := fmt.Sprint(c.userCounters()); strings.Count(got, "value:") != 2 || c.Counter("g", "b").Value() != 5 {
		t.Errorf("counters %s", got)
	}
	if c.Err() != nil {
		t.Error(c.Err())
	}
	for i := range 100 {
		c.Counter("group", fmt.Sprintf("a name of some length %d", i))
	}
	if c.Err() == nil || c.counterBytes > maxCounterBytes {
		t.Errorf("a hundred counters of %d bytes: %v", c.counterBytes, c.Err())
	}
	odd := &Context{}
	odd.Counter("g\xff", "n\xc3").Add(1)
	if _, err := proto.Marshal(odd.userCounters()[0]); err != nil || odd.Counter("g\uFFFD", "n\uFFFD").Value() != 1 {
		t.Errorf("a counter's name that is no UTF-8 cannot be reported: %v", err)
	}
	other := &Context{}
	if other.Counter(Group, "mapInputRecords"); other.Err() == nil {
		t.Error("a program may count in the engine's group")
	}
}

func TestPartitionerOutOfRange(t *testing.T) {
	for _, p := range []int{-1, 4} {
		c := &Context{partitions: 4, maxRecord: 10, program: &Program{Partition: func([]byte, int) int { return p }}}
		collector, err := engine.NewCollector(engine.Config{Partitions: 4})
		if err != nil {
			t.Fatal(err)
		}
		c.collector = collector
		c.Emit([]byte("k"), nil)
		var e *ProgramError
		if !errors.As(c.Err(), &e) || !strings.Contains(e.Message, fmt.Sprintf("%d of 4", p)) {
			t.Errorf("partition %d: %v", p, c.Err())
		}
	}
}

func TestDescendants(t *testing.T) {
	// 1 ── 2 ─┬─ 3 ── 5
	//   └─ 6  └─ 4
	got := descendants(map[int]int{2: 1, 6: 1, 3: 2, 4: 2, 5: 3}, 2)
	if slices.Sort(got); !slices.Equal(got, []int{3, 4, 5}) {
		t.Errorf("descendants of 2: %v", got)
	}
}

func TestAParentIsReadWhateverTheProcessIsCalled(t *testing.T) {
	for stat, want := range map[string]int{"7 (sh) S 3 7 7": 3, "7 (a) R 9 (b)) S 4 7": 4, "": 0, "7 (sh)": 0, "7 (sh) S x": 0} {
		if got, ok := parentOf([]byte(stat)); got != want || ok != (want > 0) {
			t.Errorf("%q: %d, %v", stat, got, ok)
		}
	}
	if all := parents(); all[os.Getpid()] != os.Getppid() {
		t.Errorf("this process has parent %d, not %d", all[os.Getpid()], os.Getppid())
	}
}

func TestVariablesAreFoundWhole(t *testing.T) {
	env := []byte("A=1\x00" + TokenEnv + "=abc\x00B=2\x00")
	for variable, want := range map[string]bool{TokenEnv + "=abc": true, TokenEnv + "=ab": false, "A=1": true, "=abc": false, "B=2": true} {
		if got := hasVariable(env, []byte(variable)); got != want {
			t.Errorf("%s: %v", variable, got)
		}
	}
}
