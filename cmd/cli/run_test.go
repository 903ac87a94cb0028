package cli

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
)

func TestExitCodes(t *testing.T) {
	for _, test := range []struct {
		name   string
		master *fakeMaster
		args   string
		code   int
		says   string // on standard error
		next   string
	}{
		{"done", &fakeMaster{jobs: []*api.Job{completed()}}, "job show last", 0, "", ""},
		{"job failed", &fakeMaster{jobs: []*api.Job{failed()}}, "job wait last", 1, "millrace: job s-ABCDEFGHIJKLM failed: task m-00001 failed 4 times\nmillrace: task m-00001, attempt s-ABCDEFGHIJKLM-m-00001-2-7, on node i-00000000000000001, exit code 3, at s3://input/a offset 42: the mapper", "next: millrace job why s-ABCDEFGHIJKLM\n"},
		{"failed, submit --wait", &fakeMaster{jobs: []*api.Job{failed()}}, "run wordcount s3://input/ s3://output/", 1, "failed", "job why"},
		{"wrong usage", nil, "job show", 2, "millrace: millrace job show needs JOB", "next: millrace job show --help"},
		{"too many arguments", nil, "job show a b", 2, `"b" is one too many`, "--help"},
		{"bad number", nil, "job submit wordcount --reduces many", 2, "reduces", "--help"},
		{"bad size", nil, "run wordcount s3://input/ s3://output/ --split-size lots", 2, `--split-size: "lots" is not a size`, "--help"},
		{"unknown program", nil, "run wordcuont s3://input/ s3://output/", 2, "wordcuont", "job programs"},
		{"no limit", nil, "job list --limit 0", 2, "--limit 0: at least 1", "job list --limit 20"},
		{"none kept", nil, "dev --keep-jobs 0", 2, "--keep-jobs 0: at least 1", "--keep-jobs 1000"},
		{"kept for less than nothing", nil, "master run --dir x --keep-history -1s", 2, "--keep-history -1s: it cannot be less than 0", "--keep-history 720h"},
		{"unknown state", nil, "job list --state DONE", 2, "DONE is none of", "RUNNING"},
		{"hdfs without a cluster", nil, "fs ls hdfs:///x", 3, "no cluster is known here", "millrace dev"},
		{"a folder in a bucket", nil, "fs mkdir s3://bkt/x", 2, "s3://bkt/x is in an object store, which has no folders of its own", "next: millrace fs put FILE s3://bkt/x/NAME\n"},
		{"a bucket as a folder", nil, "fs mkdir s3://bkt", 2, "s3://bkt/ is a bucket, not a folder", "next: millrace fs mb s3://bkt\n"},
		{"a folder on this machine", nil, "fs mkdir ./a/b", 2, "./a/b is on this machine", "next: mkdir -p ./a/b, or millrace fs mkdir hdfs:///PATH\n"},
		{"replicas of nothing", nil, "fs put x hdfs:///x --replication 0", 2, "--replication 0: from 1 to 64", " hdfs:///x --replication 3\n"},
		{"too many replicas", nil, "fs cp x hdfs:///x --replication 65", 2, "--replication 65: from 1 to 64", " hdfs:///x --replication 3\n"},
		{"files as JSON", nil, "fs get hdfs:///x - --json", 2, "fs get … - prints the files themselves, not JSON", "millrace fs stat URL --json"},
		{"a file as JSON", nil, "fs cat hdfs:///x --json", 2, "fs cat prints the files themselves, not JSON", "millrace fs stat URL --json"},
		{"output in the input", nil, "run wordcount hdfs:///d hdfs:///d/out", 2, "output hdfs:///d/out/ is inside input hdfs:///d", "next: write to another place, such as hdfs:///d-out/\n"},
		{"no replication", nil, "fs setrep zero hdfs:///x", 2, "zero is no replication", "millrace fs setrep 3"},
		{"replication in a bucket", nil, "fs setrep 2 s3://bkt/x", 2, "s3://bkt/x is not in hdfs://", "millrace fs setrep 3 hdfs:///PATH"},
		{"fsck of a bucket", nil, "fs fsck s3://bkt", 2, "s3://bkt/ is not in hdfs://", "millrace fs fsck hdfs:///"},
		{"a path that leads up", nil, "fs ls hdfs:///a/../b", 2, `a path cannot have ".." in it`, "hdfs:///PATH"},
		{"block size", nil, "fs put x hdfs:///x --block-size 100KB", 2, "from 64 KiB to 4.0 GiB, in steps of 64 KiB", "--block-size 64MiB"},
		{"no cluster", nil, "job list", 3, "no cluster is known here", "millrace dev"},
		{"no storage", nil, "fs ls s3://xyz", 2, "no object store is known here", "--s3"},
		{"refused", &fakeMaster{jobs: []*api.Job{completed()}, refuse: problem(connect.CodeInvalidArgument, "input s3://input/ matches nothing\noutput s3://output/ is taken", "millrace fs ls s3://input/", 2)}, "run wordcount s3://input/ s3://output/", 2, "millrace: input s3://input/ matches nothing\nmillrace: output s3://output/ is taken\n", "next: millrace fs ls s3://input/"},
		{"no such job", &fakeMaster{jobs: []*api.Job{completed()}}, "job show s-NO", 4, "no job s-NO", "job list"},
		{"no such node", &fakeMaster{}, "node show i-x", 4, `no node "i-x"`, "node list"},
		{"no such file", nil, "fs stat ./nothing-there", 4, "does not exist", "fs ls"},
		{"wait timed out", &fakeMaster{jobs: []*api.Job{running()}, hang: true}, "job wait last --timeout 20ms", 124, "has not ended within 20ms", "job wait last"},
		{"no result yet", &fakeMaster{jobs: []*api.Job{failed()}}, "results last", 1, "is FAILED: it has no result", "job why"},
		{"a result in a block store cannot be shared", &fakeMaster{jobs: []*api.Job{onFiles()}}, "results last --share 1h", 2, "--share: hdfs:///words/ is in a cluster's block store", "next: millrace fs cp -r hdfs:///words/ s3://BUCKET/PREFIX/"},
		{"raw number", nil, "run wordcount s3://input/ s3://output/ --reduces two", 2, "millrace: --reduces two: not a whole number\n", "run --help"},
		{"raw duration", nil, "run wordcount s3://input/ s3://output/ --timeout 5", 2, "millrace: --timeout 5: write it like 90s or 5m\n", "run --help"},
		{"little memory", nil, "run wordcount s3://input/ s3://output/ --memory 1", 2, "at least 16MiB", "run --help"},
		{"cancel of an ended job", &fakeMaster{jobs: []*api.Job{completed()}, cancelErr: problem(connect.CodeFailedPrecondition, "job s-ABCDEFGHIJKLM has ended: COMPLETED", "", 1)}, "job cancel last", 1, "has ended", "next: millrace job show last\n"},
		{"no such token", &fakeMaster{}, "join-token revoke nosuch", 4, "not found", "next: millrace join-token list\n"},
		{"a URL without slashes", nil, "fs ls s3:/bkt", 2, "s3:/bkt is no URL", "next: s3://bkt "},
		{"no such word", nil, "inti", 2, "unknown command", "millrace init"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSession(t)
			if test.master != nil {
				s.serve(test.master)
			}
			o := s.run(strings.Fields(test.args)...)
			require.Equal(t, test.code, o.code, o.err)
			require.Contains(t, o.err, test.says)
			require.Contains(t, o.err, test.next)
			require.NotContains(t, o.err, "\x1b", "control codes in a pipe")
			if test.code != 0 && !strings.Contains(test.args, "--json") {
				var nexts int
				for line := range strings.Lines(o.err) {
					if strings.HasPrefix(line, "next: ") {
						nexts++
					}
				}
				require.Equal(t, 1, nexts, o.err)
			}
		})
	}
}

func TestAnErrorAsJSON(t *testing.T) {
	o := newSession(t).run("job", "shwo", "--json")
	require.Empty(t, o.out)
	var e struct {
		Error, Next string
		Errors      []string
		ExitCode    int
	}
	require.NoError(t, json.Unmarshal([]byte(o.err), &e), o.err)
	require.Equal(t, 2, e.ExitCode)
	require.Equal(t, []string{`unknown command "job shwo"`}, e.Errors)
	require.Equal(t, e.Errors[0], e.Error)
	require.Contains(t, e.Next, "millrace job show")
}

// A failed job under --wait --json: the job on standard output, the error on standard error.
func TestAFailedJobAsJSON(t *testing.T) {
	o := newSession(t).serve(&fakeMaster{jobs: []*api.Job{failed()}}).run("job", "wait", "last", "--json")
	require.Equal(t, 1, o.code)
	job := o.json(t).(map[string]any)
	require.Equal(t, "FAILED", job["state"])
	require.Equal(t, "s3://input/a", job["failure"].(map[string]any)["input"])
	require.True(t, json.Valid([]byte(o.err)), o.err)
}

func TestCtrlCUnderWaitLeavesTheJobRunning(t *testing.T) {
	s := newSession(t).serve(&fakeMaster{jobs: []*api.Job{running()}, hang: true})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	pressed := &pressCtrlC{when: "MAPPING", cancel: cancel}
	code := Run(ctx, []string{"run", "wordcount", "s3://input/", "s3://output/"}, Env{Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: pressed, Getenv: func(string) string { return "" }, Home: s.home})
	require.Equal(t, 130, code)
	require.Contains(t, pressed.String(), "job s-ABCDEFGHIJKLM goes on")
	require.Contains(t, pressed.String(), "millrace job wait s-ABCDEFGHIJKLM follows it, millrace job cancel s-ABCDEFGHIJKLM stops it")
}

// pressCtrlC cancels when it has seen a word.
type pressCtrlC struct {
	strings.Builder
	when   string
	cancel func()
}

func (p *pressCtrlC) Write(b []byte) (int, error) {
	n, err := p.Builder.Write(b)
	if strings.Contains(p.String(), p.when) {
		p.cancel()
	}
	return n, err
}

func TestSubmitPrintsTheIDAlone(t *testing.T) {
	m := &fakeMaster{jobs: []*api.Job{completed()}}
	s := newSession(t).serve(m)
	o := s.run("job", "submit", "wordcount", "--input", "s3://input/{a,b}", "--input", "s3://xyz/", "--output", "s3://output/", "--reduces", "0", "--split-size", "8MiB", "--memory", "1g", "--max-record", "100MiB",
		"-D", "a=b", "--env", "K=V=W", "--timeout", "90s", "--priority", "-3", "--name", "n", "--request-id", "r", "--overwrite", "--compress", "gzip", "--max-attempts", "2")
	require.Equal(t, 0, o.code, o.err)
	require.Equal(t, "s-ABCDEFGHIJKLM\n", o.out)
	spec := m.submitted.GetSpec()
	require.Equal(t, []string{"s3://input/{a,b}", "s3://xyz/"}, spec.GetInput())
	require.Equal(t, int32(0), *spec.Reduces)
	require.EqualValues(t, 8<<20, spec.GetSplitSize())
	require.EqualValues(t, 1<<30, spec.GetMemoryBytes())
	require.EqualValues(t, 100<<20, spec.GetMaxRecordBytes())
	require.Equal(t, map[string]string{"a": "b"}, spec.GetProgram().GetProperties())
	require.Equal(t, map[string]string{"K": "V=W"}, spec.GetProgram().GetEnv())
	require.EqualValues(t, 90_000, spec.GetTimeoutMs())
	require.EqualValues(t, -3, spec.GetPriority())
	require.EqualValues(t, 2, spec.GetMaxAttempts())
	require.True(t, spec.GetOverwrite())
	require.Equal(t, "gzip", spec.GetCompress())
	require.Nil(t, spec.GetStore(), "the context's own store is the site's")
}

func TestHadoopsPropertiesAreToldFromFlags(t *testing.T) {
	m := &fakeMaster{jobs: []*api.Job{completed()}}
	submit := []string{"job", "submit", "wordcount", "--input", "s3://input/", "--output", "s3://output/", "-D", "mapreduce.job.reduces=4", "-D", "mapreduce.task.timeout=60000", "-D", "mine=1",
		"-D", "mapreduce.map.memory.mb=512", "-D", "mapreduce.reduce.memory.mb=512"}
	o := newSession(t).serve(m).run(submit...)
	require.Equal(t, 0, o.code, o.err)
	require.Contains(t, o.err, "-D mapreduce.job.reduces only reaches the program: what it does in Hadoop is --reduces here\n")
	require.Equal(t, 1, strings.Count(o.err, "--memory"), o.err)
	require.Equal(t, 2, strings.Count(o.err, "only reaches"), o.err)
	require.Equal(t, "4", m.submitted.GetSpec().GetProgram().GetProperties()["mapreduce.job.reduces"])

	o = newSession(t).serve(m).run(append(submit, "--reduces", "4", "--memory", "512MiB")...)
	require.NotContains(t, o.err, "only reaches", "the flags are there")
	o = newSession(t).serve(m).run(append(submit, "--json")...)
	require.Empty(t, o.err, "programs read it")
}

func TestTheEnvironmentsStoreGoesWithTheJob(t *testing.T) {
	m := &fakeMaster{jobs: []*api.Job{completed()}}
	s := newSession(t).serve(m)
	s.vars = map[string]string{"AWS_ENDPOINT_URL": "http://minio:9000", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
	o := s.run("job", "submit", "wordcount", "--input", "s3://input/", "--output", "s3://output/")
	require.Equal(t, 0, o.code, o.err)
	require.Equal(t, "http://minio:9000", m.submitted.GetSpec().GetStore().GetEndpoint())
	require.Contains(t, o.err, "s3: http://minio:9000 (AWS_ENDPOINT_URL)\n")
}

func TestAJobThatTimedOutExits124(t *testing.T) {
	j := completed()
	j.State, j.Reason = "CANCELLED", "timed out after 1s"
	o := newSession(t).serve(&fakeMaster{jobs: []*api.Job{j}}).run("run", "wordcount", "s3://input/", "s3://output/", "--timeout", "1s")
	require.Equal(t, 124, o.code, o.err)
	require.Contains(t, o.err, "timed out after 1s")
}

func TestStreamingShipsItsFiles(t *testing.T) {
	m := &fakeMaster{jobs: []*api.Job{completed()}}
	s := newSession(t).serve(m)
	script := filepath.Join(t.TempDir(), "map.py")
	require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\ncat\n"), 0o755))
	o := s.run("job", "submit", "--mapper", "./m -x", "--reducer", "wc", "--file", script+"#m", "--input", "s3://input/", "--output", "s3://output/")
	require.Equal(t, 0, o.code, o.err)
	p := m.submitted.GetSpec().GetProgram()
	require.Equal(t, api.ProgramKind_PROGRAM_KIND_STREAMING, p.GetKind())
	require.Equal(t, "./m -x", p.GetMapper())
	require.Len(t, p.GetFiles(), 1)
	require.Equal(t, "m", p.GetFiles()[0].GetName())
	require.True(t, p.GetFiles()[0].GetExecutable())
	require.Equal(t, "#!/bin/sh\ncat\n", string(m.uploaded[p.GetFiles()[0].GetSha256()]))
	o = s.run("job", "submit", "--mapper", "x", "--file", script, "--file", script, "--input", "s3://input/", "--output", "s3://output/")
	require.Equal(t, 2, o.code)
	require.Contains(t, o.err, "two shipped files are called map.py")
}

func TestAnExecutableDescribesItself(t *testing.T) {
	m := &fakeMaster{jobs: []*api.Job{completed()}}
	s := newSession(t).serve(m)
	program := func(name, script string) string {
		path := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755))
		return path
	}
	mine := program("mine", `[ "$MILLRACE_DESCRIBE" = 1 ] && echo '{"sdk":1,"name":"my '$1'","mapOnly":true}'`)
	o := s.run("job", "submit", mine, "--input", "s3://input/", "--output", "s3://output/", "--", "job")
	require.Equal(t, 0, o.code, o.err)
	spec := m.submitted.GetSpec()
	require.Equal(t, "my job", spec.GetProgram().GetName())
	require.Equal(t, []string{"job"}, spec.GetProgram().GetArgs())
	require.True(t, spec.GetMapOnly())
	require.NotEmpty(t, m.uploaded[spec.GetProgram().GetExecutable().GetSha256()])

	for script, says := range map[string]string{
		"echo hello": "is not a program made with",
		"exit 3":     "exit status 3",
		`echo '{"sdk":1,"error":"needs a pattern"}'`: "needs a pattern",
	} {
		o := s.run("job", "submit", program("other", script), "--input", "s3://input/", "--output", "s3://output/")
		require.Equal(t, 2, o.code)
		require.Contains(t, o.err, says)
	}
}

func TestJoinTokenPrintsTheTokenAndWhatToType(t *testing.T) {
	m := &fakeMaster{}
	s := newSession(t).serve(m)
	o := s.run("join-token", "create", "--role", "CORE", "--ttl", "1h", "--uses", "3")
	require.Equal(t, 0, o.code, o.err)
	require.Equal(t, "mr1.t1.secret.hash\n", o.out)
	require.Contains(t, o.err, "millrace worker --dir DIR --join https://127.0.0.1:")
	require.Equal(t, "core", m.tokens[0].GetRole())
	require.Equal(t, time.Hour.Milliseconds(), m.tokens[0].GetTtlMs())
	require.EqualValues(t, 3, m.tokens[0].GetUses())
	require.Equal(t, 2, s.run("join-token", "create", "--role", "king").code)
}

func TestListsAreNeverNull(t *testing.T) {
	s := newSession(t).serve(&fakeMaster{})
	for _, line := range []string{"job list", "node list"} {
		o := s.run(append(strings.Fields(line), "--json")...)
		require.Equal(t, []any{}, o.json(t), line)
	}
	require.Equal(t, []any{}, newSession(t).run("context", "list", "--json").json(t))
}

func TestHelpHasAnExampleOnEverything(t *testing.T) {
	s := newSession(t)
	for _, line := range []string{"--help", "help", "", "job --help", "job submit -h", "help job show", "fs put --help", "master --help", "dev help"} {
		o := s.run(strings.Fields(line)...)
		if line == "dev help" { // an argument like any other
			require.Equal(t, 2, o.code)
			continue
		}
		require.Equal(t, 0, o.code, line+o.err)
		require.Contains(t, o.out, "millrace", line)
	}
	require.Contains(t, s.run("job", "submit", "--help").out, "example:\n  millrace job submit wordcount")
}

func TestVersion(t *testing.T) {
	v := newSession(t).run("version", "--json").json(t).(map[string]any)
	require.NotEmpty(t, v["version"])
	require.NotEmpty(t, v["commit"])
	require.Contains(t, v["go"], "go1")
}

func TestWhyGivesTheFirstCause(t *testing.T) {
	s := newSession(t).serve(&fakeMaster{jobs: []*api.Job{failed()}})
	o := s.run("job", "why", "last")
	require.Equal(t, 0, o.code)
	require.Contains(t, o.out, "is FAILED: the mapper ended with exit code 3")
	require.Contains(t, o.out, "boom")
	require.NotContains(t, o.out, "\x1b", "a program's control codes must not reach the terminal")
	require.Equal(t, "the mapper ended with exit code 3", s.run("job", "why", "last", "--json").json(t).(map[string]any)["cause"])
}
