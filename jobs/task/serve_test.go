package task

import (
	"maps"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace/pkg/api"
	"millrace/pkg/filesocket"
	"millrace/pkg/objectstore/objectstoretest"
	"millrace/pkg/record"
)

func goexit() { runtime.Goexit() }

const (
	mapKind    = api.TaskKind_TASK_KIND_MAP
	reduceKind = api.TaskKind_TASK_KIND_REDUCE
)

func TestOneChildRunsMapsAndReducesOfAJob(t *testing.T) {
	c := startChild(t)
	texts := []string{"to be or\nnot to be\n", "to do\n\nis to be"}
	paths := make([]string, len(texts))
	var wrote record.Ledger
	var digest uint64
	for i, text := range texts {
		l := c.mapLease(i, text, "wordcount")
		r := c.run(l)
		if r.Result.Failure != nil || !r.Reusable {
			t.Fatalf("map %d: %v", i, r)
		}
		got := counters(r.Result)
		words := int64(len(strings.Fields(text)))
		want := map[string]int64{"millrace.mapInputRecords": []int64{2, 3}[i], "millrace.mapInputBytes": int64(len(text)),
			"millrace.mapOutputRecords": words, "millrace.segmentRecords": words, "Test.words": words}
		for name, n := range want {
			if got[name] != n {
				t.Errorf("map %d: counter %s is %d, want %d", i, name, got[name], n)
			}
		}
		if got["millrace.segmentBytes"] <= 0 || got["millrace.slotMs"] <= 0 {
			t.Errorf("map %d: counters %v lack segmentBytes or slotMs", i, got)
		}
		paths[i] = l.SegmentPath
		wrote.Add(ledgerOf(r.Result.Segment))
		digest += record.MapDigest(i, r.Result.Digest)
	}

	lines := map[string]bool{}
	var read record.Ledger
	for partition := range 2 {
		l := c.lease(reduceKind, partition, "wordcount")
		l.Maps = 2
		l.Output = &api.Output{Bucket: "b", Key: "out", UploadId: "u" + strconv.Itoa(partition)}
		c.send(&api.ToChild{Message: &api.ToChild_Lease{Lease: l}})
		// One map's segment twice, then the other's: the reduce waits for both, and takes each once.
		for _, m := range []int{1, 1, 0} {
			c.send(&api.ToChild{Message: &api.ToChild_Segments{Segments: &api.ChildSegments{Attempt: l.Attempt,
				Segments: []*api.ChildSegment{segment(t, m, partition, paths[m])}}}})
		}
		r := c.result()
		if r.Result.Failure != nil {
			t.Fatalf("reduce %d: %v", partition, r.Result.Failure)
		}
		if r.Result.Digest != digest {
			t.Errorf("reduce %d: digest %x, want %x", partition, r.Result.Digest, digest)
		}
		read.Add(ledgerOf(r.Result.Segment))
		for line := range strings.Lines(c.read("out", l.Output.UploadId)) {
			lines[line] = true
		}
		if n := counters(r.Result)["millrace.reduceInputRecords"]; n != r.Result.Segment.Records {
			t.Errorf("reduce %d: %d input records, decoded %d", partition, n, r.Result.Segment.Records)
		}
	}
	if read != wrote {
		t.Errorf("reduces read %+v, maps wrote %+v", read, wrote)
	}
	want := map[string]bool{"be\t3\n": true, "do\t1\n": true, "is\t1\n": true, "not\t1\n": true, "or\t1\n": true, "to\t4\n": true}
	if !maps.Equal(lines, want) {
		t.Errorf("output %v, want %v", lines, want)
	}
}

func TestMapOnlyTaskWritesTheOutput(t *testing.T) {
	c := startChild(t)
	l := c.mapLease(0, "b a\n", "wordcount")
	l.Partitions, l.SegmentPath = 0, ""
	l.Output = &api.Output{Bucket: "b", Key: "out", UploadId: "u"}
	r := c.run(l).Result
	if r.Failure != nil || r.OutputRecords != 2 || r.OutputParts != 1 {
		t.Fatalf("got %v, want 2 records in 1 part", r)
	}
	if got := c.read("out", "u"); got != "b\t\x01\na\t\x01\n" || int64(len(got)) != r.OutputBytes {
		t.Errorf("output %q of %d bytes", got, r.OutputBytes)
	}
}

func TestFailuresNameTheirCause(t *testing.T) {
	const text = "good line\ngood, too\nand bad\nnever read\n"
	for _, test := range []struct {
		program, message string
	}{
		{"fail", `map: cannot stand bad`},
		{"panic", `panic: afraid of bad`},
	} {
		t.Run(test.program, func(t *testing.T) {
			c := startChild(t)
			r := c.run(c.mapLease(0, text, test.program, "bad"))
			f := r.Result.Failure
			if f.GetKind() != api.FailureKind_FAILURE_KIND_PROGRAM || f.Message != test.message {
				t.Errorf("failure %v, want PROGRAM, %q", f, test.message)
			}
			if f.Input != "s3://b/in-0" || f.Offset != 20 {
				t.Errorf("at %s:%d, want s3://b/in-0:20", f.Input, f.Offset)
			}
			if test.program == "panic" && !strings.Contains(f.StderrTail, "task.testProgram") {
				t.Errorf("the stack's end is %q, want the function that panicked", f.StderrTail)
			}
			if r.Reusable {
				t.Error("the child says that it can go on")
			}
			if err := <-c.ended; err != nil {
				t.Errorf("the child ended with %v, want exit code 0", err)
			}
			c.ended <- nil
		})
	}
}

func TestOddPrograms(t *testing.T) {
	for program, message := range map[string]string{
		"unknown": "set up the program: no such program",
		"goexit":  "the program ended its goroutine (runtime.Goexit)",
	} {
		c := startChild(t)
		r := c.run(c.mapLease(0, "bad", program, "bad"))
		if f := r.Result.Failure; f.GetKind() != api.FailureKind_FAILURE_KIND_PROGRAM || f.Message != message || r.Reusable {
			t.Errorf("%s: got %v, want failure %q", program, r, message)
		}
	}
}

func TestAMissingObjectIsNamed(t *testing.T) {
	c := startChild(t)
	l := c.mapLease(0, "text", "wordcount")
	l.Split.Pieces[0].Key = "gone"
	if f := c.run(l).Result.Failure; f.GetInput() != "s3://b/gone" {
		t.Errorf("failure %v, want it to name s3://b/gone", f)
	}
}

func TestCancelEndsAProgramThatDoesNotListen(t *testing.T) {
	c := startChild(t)
	l := c.mapLease(0, "hang", "hang", "hang")
	c.send(&api.ToChild{Message: &api.ToChild_Lease{Lease: l}})
	for c.receive().GetProgress() == nil {
	}
	c.send(&api.ToChild{Message: &api.ToChild_Cancel{Cancel: &api.ChildCancel{Attempt: l.Attempt}}})
	r := c.result() // within a minute
	if r.Result.Failure.GetKind() != api.FailureKind_FAILURE_KIND_KILLED || r.Reusable {
		t.Errorf("got %v, want KILLED and no further attempt", r)
	}
}

func TestSIGTERMEndsTheAttemptAndTheChild(t *testing.T) {
	c := startChild(t)
	c.send(&api.ToChild{Message: &api.ToChild_Lease{Lease: c.mapLease(0, "hang", "hang", "hang")}})
	for c.receive().GetProgress() == nil {
	}
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if r := c.result(); r.Result.Failure.GetKind() != api.FailureKind_FAILURE_KIND_KILLED || r.Reusable {
		t.Errorf("got %v, want KILLED and no further attempt", r)
	}
	if err := <-c.ended; err != nil {
		t.Errorf("the child ended with %v, want exit code 0", err)
	}
	c.ended <- nil
}

func TestCancelEndsAReduceThatWaits(t *testing.T) {
	c := startChild(t)
	l := c.lease(reduceKind, 0, "wordcount")
	l.Maps, l.Output = 1, &api.Output{Bucket: "b", Key: "out", UploadId: "u"}
	c.send(&api.ToChild{Message: &api.ToChild_Lease{Lease: l}})
	c.send(&api.ToChild{Message: &api.ToChild_Cancel{Cancel: &api.ChildCancel{Attempt: l.Attempt}}})
	if r := c.result(); r.Result.Failure.GetKind() != api.FailureKind_FAILURE_KIND_KILLED {
		t.Errorf("got %v, want KILLED", r)
	}
}

func TestDamagedSegmentIsNamed(t *testing.T) {
	damage := map[string]func(t *testing.T, g *api.ChildSegment){
		"flipped byte": func(t *testing.T, g *api.ChildSegment) { flip(t, g.Path, g.Offset+g.Length/2) },
		"truncated":    func(_ *testing.T, g *api.ChildSegment) { g.Length /= 2 },
		"other ledger": func(_ *testing.T, g *api.ChildSegment) { g.Ledger.Checksum++ },
		"gone":         func(t *testing.T, g *api.ChildSegment) { g.Path += ".gone" },
		"empty": func(_ *testing.T, g *api.ChildSegment) {
			g.Length = 0
		},
	}
	for name, do := range damage {
		t.Run(name, func(t *testing.T) {
			c := startChild(t)
			var list []*api.ChildSegment
			for i := range 2 {
				l := c.mapLease(i, strings.Repeat("some words to count\n", 200), "wordcount")
				if r := c.run(l); r.Result.Failure != nil {
					t.Fatal(r.Result.Failure)
				}
				list = append(list, segment(t, i, 0, l.SegmentPath))
			}
			do(t, list[1])
			l := c.lease(reduceKind, 0, "wordcount")
			l.Maps, l.Output = 2, &api.Output{Bucket: "b", Key: "out", UploadId: "u"}
			c.send(&api.ToChild{Message: &api.ToChild_Lease{Lease: l}})
			c.send(&api.ToChild{Message: &api.ToChild_Segments{Segments: &api.ChildSegments{Attempt: l.Attempt, Segments: list}}})
			f := c.result().Result.Failure
			if f.GetKind() != api.FailureKind_FAILURE_KIND_SEGMENT || f.SegmentMap != 1 || f.SegmentAttempt != list[1].MapAttempt {
				t.Errorf("failure %v, want SEGMENT of map 1, %s", f, list[1].MapAttempt)
			}
		})
	}
}

func flip(t *testing.T, path string, at int64) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[at] ^= 0x10
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestProgressComesWhileAProgramIsBusy(t *testing.T) {
	c := startChild(t)
	l := c.mapLease(0, strings.Repeat("word\n", 10)+"hang", "hang", "hang")
	c.send(&api.ToChild{Message: &api.ToChild_Lease{Lease: l}})
	for range 3 { // each within a minute
		if p := c.receive().GetProgress(); p == nil || p.Attempt != l.Attempt {
			t.Fatalf("got %v, want progress of %s", p, l.Attempt)
		}
	}
}

// spawned waits until the program has said which processes it has started.
func spawned(t *testing.T, c *child, read func() string) []int {
	t.Helper()
	for {
		c.receive() // progress, five times a second
		var pids []int
		for _, m := range regexp.MustCompile(`spawned (\d+)\n`).FindAllStringSubmatch(read(), -1) {
			pid, _ := strconv.Atoi(m[1])
			pids = append(pids, pid)
		}
		if len(pids) == 4 {
			return pids
		}
	}
}

func TestTheSocketsEndKillsEverythingTheChildHasStarted(t *testing.T) {
	for name, end := range map[string]func(c *child){
		"socket closed": func(c *child) { c.conn.Close() },
		"cancelled": func(c *child) {
			c.send(&api.ToChild{Message: &api.ToChild_Cancel{Cancel: &api.ChildCancel{Attempt: "s-TEST-m-00000-1-1"}}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := startChild(t)
			l := c.mapLease(0, "go", "spawn", "go")
			c.send(&api.ToChild{Message: &api.ToChild_Lease{Lease: l}})
			pids := spawned(t, c, c.stderr.String)
			end(c)
			<-c.ended
			c.ended <- nil
			for _, pid := range pids {
				for end := time.Now().Add(time.Minute); alive(pid) && time.Now().Before(end); { // it has let go of its files, and may not be dead yet
					time.Sleep(time.Millisecond)
				}
				if alive(pid) {
					t.Errorf("process %d is still there", pid)
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			}
		})
	}
}

// alive says whether a process runs: the dead that nobody has waited for do not.
func alive(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	rest := string(stat[strings.LastIndexByte(string(stat), ')')+1:])
	return !slices.Contains([]string{"Z", "X"}, strings.Fields(rest)[0])
}

// A child reaches clusters' files through its worker, for which it needs no more than the socket's name.
func TestAChildReadsAndWritesFiles(t *testing.T) {
	files := objectstoretest.NewFiles()
	worker, err := filesocket.Listen(files, os.Geteuid())
	if err != nil {
		t.Fatal(err)
	}
	defer worker.Close()
	text := strings.Repeat("a word\nand another\n", 1000)
	files.Write("hdfs://j-1/in", text)
	id, _ := files.CreateUpload(t.Context(), "hdfs://j-1", "out/part-r-00000", map[string]string{"millrace-job": "s-TEST"})
	worker.Allow("hdfs://j-1", "out/part-r-00000", id)
	c := startChild(t)
	m := c.mapLease(0, "", "wordcount")
	m.Split = &api.Split{Pieces: []*api.Piece{{Bucket: "hdfs://j-1", Key: "in", Length: int64(len(text)), ObjectSize: int64(len(text))}}}
	m.Partitions, m.FilesSocket = 1, worker.Name()
	if f := c.run(m).Result.Failure; f != nil {
		t.Fatal(f)
	}
	r := c.lease(api.TaskKind_TASK_KIND_REDUCE, 0, "wordcount")
	r.Maps, r.FilesSocket, r.Output = 1, worker.Name(), &api.Output{Bucket: "hdfs://j-1", Key: "out/part-r-00000", UploadId: id}
	c.send(&api.ToChild{Message: &api.ToChild_Lease{Lease: r}})
	c.send(&api.ToChild{Message: &api.ToChild_Segments{Segments: &api.ChildSegments{Attempt: r.Attempt, Segments: []*api.ChildSegment{segment(t, 0, 0, m.SegmentPath)}}}})
	res := c.result().Result
	if res.Failure != nil {
		t.Fatal(res.Failure)
	}
	h := files.Hidden("s-TEST")[0]
	want := "a\t1000\nand\t1000\nanother\t1000\nword\t1000\n"
	if string(h.Data) != want || !h.Sealed || res.OutputBytes != int64(len(want)) || res.OutputParts != 1 {
		t.Errorf("%q, sealed %v; %v", h.Data, h.Sealed, res)
	}
}

// A worker of a version without files says nothing of a socket: that is what the failure is about.
func TestAWorkerWithoutFiles(t *testing.T) {
	c := startChild(t)
	l := c.mapLease(0, "", "wordcount")
	l.Split = &api.Split{Pieces: []*api.Piece{{Bucket: "hdfs://j-1", Key: "in", Length: 10, ObjectSize: 10}}}
	f := c.run(l).Result.Failure
	if f == nil || !strings.Contains(f.Message, "the worker cannot reach clusters' files") || f.Input != "hdfs://j-1/in" {
		t.Errorf("%v", f)
	}
}
