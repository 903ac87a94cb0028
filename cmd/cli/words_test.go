package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	"millrace/cmd/cli/files"
	"millrace/cmd/cli/view"
	"millrace/jobs"
	"millrace/pkg/api"
)

func TestOnlyTokensThatAreStillGoodAreListed(t *testing.T) {
	hour := time.Hour
	token := func(id string, expires time.Duration, uses int32) *api.JoinToken {
		return &api.JoinToken{Id: id, Role: "task", ExpiresAt: timestamppb.New(time.Now().Add(expires)), UsesLeft: uses}
	}
	s := newSession(t).serve(&fakeMaster{listed: []*api.JoinToken{token("any", hour, -1), token("one", hour, 1), token("used", hour, 0), token("expired", -hour, 3), {Id: "ever", UsesLeft: 2}}})
	var ids []string
	for _, v := range s.run("join-token", "list", "--json").json(t).([]any) {
		ids = append(ids, v.(map[string]any)["id"].(string))
	}
	require.Equal(t, []string{"any", "one", "ever"}, ids)
}

func TestATokensSecretIsOnStandardOutputAlone(t *testing.T) {
	o := newSession(t).serve(&fakeMaster{}).run("join-token", "create")
	require.Contains(t, o.out, "secret")
	require.NotContains(t, o.err, "secret")
	require.Contains(t, o.err, "--token @FILE")
}

func TestAnIdleClusterSaysThatWaitingIsNoTrouble(t *testing.T) {
	s := newSession(t).serve(&fakeMaster{cluster: &api.Cluster{Id: "j-1", Name: "default", State: "WAITING", QueuedTasks: 1}})
	o := s.run("status")
	require.Contains(t, o.out, "is WAITING (idle: no job runs)\n")
	require.Contains(t, o.out, "1 task queued")
	require.Equal(t, "WAITING", s.run("status", "--json").json(t).(map[string]any)["state"])
}

// A full disk under standard output is a failure, a reader that has gone away is not.
func TestWhatCannotBeWrittenIsAFailure(t *testing.T) {
	s := newSession(t).serve(&fakeMaster{jobs: []*api.Job{failed()}})
	for _, args := range [][]string{{"job", "list"}, {"job", "list", "--json"}, {"job", "show", "last"}, {"fs", "ls", s.home + "/.millrace"}, {"version"}} {
		run := func(err error) (int, string) {
			var errs bytes.Buffer
			return Run(context.Background(), args, Env{Stdout: failingWriter{err}, Stderr: &errs, Getenv: func(string) string { return "" }, Home: s.home}), errs.String()
		}
		code, says := run(&os.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.ENOSPC})
		require.Equal(t, 1, code, args)
		require.Contains(t, says, "no space left on device", args)
		require.Contains(t, says, "make room", args)
		code, says = run(&os.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.EPIPE})
		require.Equal(t, 0, code, args)
		require.Empty(t, says, args)
	}
	var errs bytes.Buffer
	env := Env{Stdout: failingWriter{syscall.EPIPE}, Stderr: &errs, Getenv: func(string) string { return "" }, Home: s.home}
	require.Equal(t, 1, Run(context.Background(), []string{"job", "wait", "last"}, env), "the job failed, whoever reads it")
}

type failingWriter struct{ err error }

func (f failingWriter) Write([]byte) (int, error) { return 0, f.err }

func TestAdviceFitsTheCommand(t *testing.T) {
	for line, want := range map[string]string{
		"job show s-1": "mend that", "job cancel s-1": "millrace job show s-1", "fs get a b": "mend that", "join-token list": "join-token list",
	} {
		a := testApp()
		inv, err := parse(a.commands, a.globals, strings.Fields(line))
		require.NoError(t, err)
		a.inv = inv
		require.Contains(t, a.advice(exitFailed), want, line)
		require.NotContains(t, a.advice(exitNotFound), "job show", line)
	}
	require.Contains(t, explain(t.Context(), fmt.Errorf("get: %w", syscall.ENOSPC)).next, "make room")
	require.Contains(t, explain(t.Context(), fmt.Errorf("get: %w", os.ErrPermission)).next, "permissions")
}

func TestAFailureEndsWithWhatTheProgramSaidLast(t *testing.T) {
	f := &view.Failure{Task: "m-00000", ExitCode: 126, StderrTail: "first\n\x1b[31mpermission denied\n\n", Message: "it ended with exit code 126"}
	err := verdict(view.Job{ID: "s-1", State: "FAILED", Failure: f})
	var got *fault
	require.ErrorAs(t, err, &got)
	require.Equal(t, []string{"job s-1 failed",
		"task m-00000, exit code 126 (not executable: chmod +x, or run it through its interpreter): it ended with exit code 126",
		"its last words: [31mpermission denied"}, got.lines)
	require.ErrorAs(t, verdict(view.Job{ID: "s-1", State: "FAILED", Reason: "task m-00000 failed 2 times: it ended with exit code 126", Failure: f}), &got)
	require.NotContains(t, got.lines[1], "it ended with", "the job's reason says that")
	require.Contains(t, failureLines(&view.Failure{Task: "m-00000", ExitCode: 127}, "")[0], "command not found on the node")
	require.Empty(t, lastWordsOf(&view.Failure{StderrTail: "boom\n", Message: "it said boom"}))
	require.Empty(t, lastWordsOf(nil))
}

func TestALostClusterLeavesTheJobGoingOn(t *testing.T) {
	var got *fault
	require.ErrorAs(t, lost(t.Context(), "s-1", faultf(exitUnreachable, "check it", "no master answers")), &got)
	require.Equal(t, exitUnreachable, got.code)
	require.Equal(t, "no master answers", got.lines[0])
	require.Contains(t, got.lines[1], "job s-1 was submitted: it goes on")
	require.Equal(t, "millrace job wait s-1", got.next)
	other := errors.New("other")
	require.Equal(t, other, lost(t.Context(), "s-1", other))
}

func TestFailedAttemptsAreNamedWhenTheyGrow(t *testing.T) {
	var b bytes.Buffer
	l := &lines{w: &b}
	j := view.Job{ID: "s-1", State: "RUNNING", Phase: "MAPPING"}
	for _, failed := range []int64{0, 1, 1, 2} {
		j.Attempts.Failed = failed
		l.update(j)
	}
	require.Equal(t, "s-1 MAPPING\ns-1 1 attempt failed so far; millrace job tasks s-1 --failed\ns-1 2 attempts failed so far; millrace job tasks s-1 --failed\n", b.String())
}

func TestOneIsSingularAndSlowIsNotNothing(t *testing.T) {
	var b bytes.Buffer
	summary(&b, view.Job{ID: "s-1", State: "COMPLETED", OutputRecords: 1, Parts: 1, Output: "s3://output/"})
	require.Contains(t, b.String(), ": 1 record, 0 B in 1 part at")
	for n, want := range map[int64]string{12_300_000: "12.3 MB/s", 100_000: "0.1 MB/s", 4_200: "4.2 kB/s", 100: "0.1 kB/s", 7: "7 B/s"} {
		require.Equal(t, want, formatRate(n))
	}
}

// The cluster's commands do not know the id of a job that ran here.
func TestALocalJobsSummaryNamesNoID(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(dir+"/in", []byte("a\n"), 0o644))
	s := newSession(t)
	o := s.run("run", "wordcount", dir+"/in", dir+"/out", "--local")
	require.Equal(t, 0, o.code, o.err)
	require.Regexp(t, "^local COMPLETED in .*: 1 record, ", o.out)
	o = s.run("run", "wordcount", dir+"/in", dir+"/out", "--local")
	require.Equal(t, 2, o.code)
	require.Contains(t, o.err, "next: choose another output, or add --overwrite")
	o = s.run("run", "wordcount", dir+"/in", dir+"/out", "--local", "--overwrite", "--json")
	require.Equal(t, 0, o.code, o.err)
	require.Contains(t, o.json(t).(map[string]any)["counters"].(map[string]any)["millrace"], "combineInputRecords")
}

func TestTopOfWhatHasNoNumbersSaysSo(t *testing.T) {
	o := showAs(t, outputSet(t, part{"part-r-00000", []byte("a\tx\n")}), "--top", "5")
	require.Equal(t, 0, o.code)
	require.Empty(t, o.out)
	require.Contains(t, o.err, "no record has a number as its value")
}

func TestMistakesAboutLocalFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	require.NoError(t, os.MkdirAll("lib/sub", 0o755))
	for name, text := range map[string]string{"README.md": "words", "lib/go.mod": "module lib\n", "lib/lib.go": "package lib\n"} {
		require.NoError(t, os.WriteFile(name, []byte(text), 0o644))
	}
	s := newSession(t)
	for line, says := range map[string]string{
		"run README.md in out":       "millrace: README.md is not executable: PROGRAM comes first\nmillrace: input \"in\" is a local path",
		"run ./lib in out":           "\nnext: name the folder of a package main that calls mapreduce.Main",
		"fs cp README.md README.md":  "millrace: README.md would be copied onto itself\n",
		"fs mv README.md ./":         "onto or into itself",
		"fs cp -r lib lib/sub/":      "onto or into itself",
		"fs cp -r lib lib/sub/other": "onto or into itself",
	} {
		o := s.run(strings.Fields(line)...)
		require.Equal(t, 2, o.code, line+o.err)
		require.Contains(t, o.err, says)
	}
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	require.Equal(t, "words", string(text))
}

// What a copy found to be there it has not copied.
func TestACopySaysWhatWasThere(t *testing.T) {
	j := view.Job{ID: "s-1", Program: jobs.Distcp, State: "COMPLETED", Output: "hdfs:///d/", OutputRecords: 3, OutputBytes: 2048}
	said := func() string {
		var b strings.Builder
		summary(&b, j)
		return b.String()
	}
	require.Equal(t, "s-1 COMPLETED in 0.00 s: 3 files, 2.0 KiB at hdfs:///d/\n", said())
	j.Counters = map[string]map[string]int64{"millrace": {"filesCopied": 1, "filesSkipped": 2}}
	require.Equal(t, "s-1 COMPLETED in 0.00 s: 3 files, 2.0 KiB at hdfs:///d/: 1 copied, 2 there already\n", said())
}

// A log file gets no blanks where a line begins.
func TestWhatDevSaysInAPipe(t *testing.T) {
	var out strings.Builder
	a := newApp(Env{Stderr: &out, Getenv: func(string) string { return "" }})
	a.sayer()("in another terminal:\n  millrace fs mb s3://%s\n  millrace  status", "input")
	require.Equal(t, "in another terminal:\nmillrace fs mb s3://input\nmillrace  status\n", out.String())
}

func TestFewerNodesThanReplicas(t *testing.T) {
	s := newSession(t).serve(&fakeMaster{cluster: &api.Cluster{Groups: []*api.InstanceGroup{{Role: "CORE", Running: 2}, {Role: "TASK", Running: 5}}}})
	for replication, want := range map[int][]string{
		0: nil, 1: nil, 2: nil,
		3: {"hdfs:/// has 2 core nodes: blocks have 2 replicas at the most until there are more"},
	} {
		var got []string
		a := newApp(Env{Stderr: io.Discard, Stdout: io.Discard, Getenv: func(string) string { return "" }, Home: s.home})
		a.commands = append(a.commands, a.leaf(spec{name: "probe", usage: "u", do: func(c *call) error {
			got = c.fewNodes(files.Place{Bucket: "hdfs://", Path: "x"}, replication)
			require.Empty(t, c.fewNodes(files.Place{Bucket: "bkt", Path: "x"}, replication))
			return nil
		}}))
		inv, err := parse(a.commands, a.globals, []string{"probe"})
		require.NoError(t, err)
		require.NoError(t, a.run(t.Context(), inv))
		require.Equal(t, want, got)
	}
}

// Who reads that a block is missing needs to know whether, and on what, it is waited for.
func TestAnUnhealthyBlockSaysWhatItWaitsFor(t *testing.T) {
	block := &api.StoredBlock{Id: 1, Size: 5}
	v := checkView("default", &api.CheckFilesResponse{Files: 2, Blocks: 2, Bytes: 10, Nodes: 1,
		Missing:         []*api.BlockTrouble{{Path: "/away", Block: block, Wanted: 3, Why: "it is on what is down: node core-2"}},
		UnderReplicated: []*api.BlockTrouble{{Path: "/near", Block: block, Replicas: 1, Wanted: 3}}})
	var out bytes.Buffer
	printCheck(&out, v)
	require.Regexp(t, `(?m)^missing +default/away .* 0 of 3 replicas +it is on what is down: node core-2$`, out.String())
	require.Regexp(t, `(?m)^under-replicated .* 1 of 3 replicas$`, out.String())
}
