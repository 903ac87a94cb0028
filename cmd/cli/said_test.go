package cli

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/cmd/cli/view"
	"millrace/pkg/api"
	"millrace/pkg/client"
	"millrace/pkg/objectstore"
	"millrace/pkg/objectstore/fakes3"
)

// A next line is a command line: one that is about flags alone has the command before them.
func TestWhatIsToBeRunNextIsACommand(t *testing.T) {
	s := newSession(t).serve(&fakeMaster{cluster: inState("WAITING", 2)})
	for _, c := range []struct {
		args []string
		next string
	}{
		{[]string{"cluster", "resize", "nightly"}, "next: millrace cluster resize nightly --task 5\n"},
		{[]string{"cluster", "resize", "--task", "1", "--grace", "-1s"}, "next: millrace cluster resize --grace 5m\n"},
		{[]string{"cluster", "set", "nightly", "--tag", "x"}, "next: millrace cluster set nightly --tag KEY=VALUE\n"},
		{[]string{"results", "a b", "--top", "-1"}, "next: millrace results … --top 20\n"},
		{[]string{"worker", "run", "--dir", s.home, "--join", "https://127.0.0.1:1", "--token", "@/none"}, "next: millrace worker run --token @FILE\n"},
	} {
		o := s.run(c.args...)
		require.Equal(t, exitUsage, o.code, o.err)
		require.Contains(t, o.err, c.next)
	}
}

// What a flag that was left out means is said where it is easily overlooked.
func TestWhatATokenIsForIsSaid(t *testing.T) {
	f := withTokens(t)
	s := newSession(t).serve(f)
	require.Contains(t, s.run("cluster", "user-data").err, "it makes a task node of cluster nightly; --role says otherwise\n")
	require.Contains(t, s.run("join-token", "create").err, "it makes a task node of cluster nightly; --role says otherwise\n")
	o := s.run("cluster", "user-data", "--role", "task")
	require.Empty(t, o.err)
	o = s.run("cluster", "user-data", "--role", "pool", "--cluster", "nightly")
	require.Equal(t, exitUsage, o.code)
	require.Contains(t, o.err, "--cluster nightly does not go with --role pool")

	f.nodes = []*api.Node{{Id: "i-1", Role: "MASTER", State: "RUNNING", Address: "https://127.0.0.1:7400"}}
	o = s.run("cluster", "user-data", "--role", "core")
	require.Zero(t, o.code)
	require.Contains(t, o.err, "the site's masters are reached at https://127.0.0.1:7400 alone, from their own machine")
}

func TestANameOfSeveralNodesMeansNone(t *testing.T) {
	f := &fakeMaster{nodes: []*api.Node{{Id: "i-1", Name: "core-1", Role: "CORE"}, {Id: "i-2", Name: "core-1", Role: "CORE"}, {Id: "i-3", Name: "i-1", Role: "TASK"}}}
	s := newSession(t).serve(f)
	o := s.run("node", "show", "core-1")
	require.Equal(t, output{err: "millrace: \"core-1\" means 2 nodes\nnext: give an id: millrace node list\n", code: exitUsage}, o)
	require.Contains(t, s.run("node", "show", "i-1").out, "core-1", "an id goes first")
	require.Equal(t, exitNotFound, s.run("node", "show", "i-4").code)
}

func TestAClusterThatDoesNothingYetIsSaidToDoSo(t *testing.T) {
	f := &fakeMaster{cluster: inState("STARTING", 0)}
	s := newSession(t).serve(f)
	require.Contains(t, s.run("cluster", "create", "--name", "nightly", "--core", "0").out, "it does nothing until it has a core node: millrace cluster resize nightly --core 1, or ")
	require.NotContains(t, s.run("cluster", "create", "--name", "nightly").out, "it does nothing")
	require.Contains(t, s.run("cluster", "resize", "nightly", "--task-min", "0", "--task-max", "0").out, "task: it scales by itself no more\n")
	o := s.run("cluster", "create", "--name", "x", "--bootstrap-action", "./nosuch.sh")
	require.Equal(t, exitUsage, o.code)
	require.Contains(t, o.err, "--bootstrap-action: stat ./nosuch.sh: no such file or directory\n")
}

// Where an output lies is said as it can be typed: with the cluster, if the command named one.
func TestAnOutputInTheBlockStoreOfAnotherCluster(t *testing.T) {
	s := newSession(t).serve(&fakeMaster{jobs: []*api.Job{onFiles()}})
	require.Contains(t, s.run("job", "wait", "last", "--cluster", "nightly").out, " at hdfs://nightly/words/\n")
	require.Contains(t, s.run("job", "wait", "last").out, " at hdfs:///words/\n")
	c := &connection{cluster: "nightly", context: &client.Context{Cluster: "nightly"}}
	require.Equal(t, "hdfs:///x", c.placed(view.Job{Output: "hdfs:///x"}).Output, "the context's cluster is meant anyway")
}

// A result that cannot be read here is no reason to have a job run for it.
func TestAResultToPrintIsReadableBeforeTheJobBegins(t *testing.T) {
	f := &fakeMaster{jobs: []*api.Job{completed()}}
	url := fakes3.Start(t, &fakes3.Server{Store: objectstore.NewMemory(), Answer: func(*http.Request) *fakes3.Refusal {
		return &fakes3.Refusal{Status: 403, Code: "AccessDenied", Message: "AccessDenied"}
	}})
	o := newSession(t).serve(f).run(against(url, "run", "wordcount", "s3://input/", "-")...)
	require.Equal(t, exitUsage, o.code, o.err)
	require.Contains(t, o.err, "the key that is used here may not read s3://input/_millrace/output-")
	require.Contains(t, o.err, "hdfs:///FOLDER/")
	require.Nil(t, f.submitted)
}
