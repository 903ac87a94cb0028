package server

import (
	"context"
	"errors"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
	"millrace/pkg/client"
	"millrace/pkg/objectstore"
	"millrace/pkg/objectstore/objectstoretest"
)

// withFiles gives the default cluster a block store.
func (w *world) withFiles() *objectstoretest.Files {
	w.ready()
	files := objectstoretest.NewFiles()
	c, _ := w.state.View().Cluster("")
	w.files[c.ID] = files
	return files
}

// A block store that does not answer, or no longer has all of it, is trouble, which may pass.
func TestFilesInTrouble(t *testing.T) {
	w := newWorld(t)
	w.withFiles()
	c, _ := w.state.View().Cluster("")
	delete(w.files, c.ID)
	p := w.refused(onFilesSpec("s3://input/a", "hdfs:///out"), client.ExitUnreachable)
	require.Len(t, p.Errors, 1)
	require.Contains(t, p.Errors[0], "output hdfs:///out/: ")
	require.Equal(t, filesNext, p.Next)
}

// oddly is a store that gives an answer nobody knows.
type oddly struct{ objectstore.Store }

func (oddly) Head(context.Context, string, string) (objectstore.Object, error) {
	return objectstore.Object{}, errors.New("it is a teapot")
}

func TestAMistakeNamesItsInputOnce(t *testing.T) {
	found, err := checkInput(t.Context(), oddly{}, "hdfs:///in/a", "")
	require.NoError(t, err)
	require.Equal(t, []mistake{{"input hdfs:///in/a: it is a teapot", ""}}, found)
}

func onFilesSpec(in, out string) *api.SubmitJobRequest {
	spec := wordcount()
	spec.Input, spec.Output = []string{in}, out
	return &api.SubmitJobRequest{Spec: spec}
}

func TestJobOnFiles(t *testing.T) {
	w := newWorld(t)
	files := w.withFiles()
	files.Write("hdfs:///in/a", "text")
	resp, err := w.user("alice").SubmitJob(t.Context(), connect.NewRequest(onFilesSpec("hdfs:///in", "hdfs://default/out")))
	require.NoError(t, err)
	require.Equal(t, []string{"hdfs:///in"}, resp.Msg.Input, "as it was typed")
	require.Equal(t, "hdfs://default/out/", resp.Msg.Output)
	j, ok := w.state.View().Job(resp.Msg.Id)
	require.True(t, ok)
	require.Equal(t, []string{"hdfs://" + j.Cluster + "/in"}, j.Input, "as the site knows it")
	require.Equal(t, "hdfs://"+j.Cluster+"/out/", j.Output)

	// Whatever name it is given: the output is taken.
	for _, out := range []string{"hdfs:///out", "hdfs:///out/below", "hdfs://default/out/", "hdfs://" + j.Cluster + "/out"} {
		p := w.refused(onFilesSpec("hdfs:///in", out), client.ExitUsage)
		require.Len(t, p.Errors, 1)
		require.Contains(t, p.Errors[0], "output "+out)
		require.Contains(t, p.Errors[0], "is reserved by job "+j.ID)
	}
}

func TestMistakesInPlacesOnFiles(t *testing.T) {
	w := newWorld(t)
	files := w.withFiles()
	c, _ := w.state.View().Cluster("")
	files.Write("hdfs:///in/a", "text")
	files.Write("hdfs:///taken/part-r-00000", "text")
	for name, test := range map[string]struct{ in, out, want, next string }{
		"no such folder":           {"hdfs:///inn", "hdfs:///out", "input hdfs:///inn matches nothing", "millrace fs ls hdfs:/// shows what is there"},
		"no such pattern":          {"hdfs:///in/*.gz", "hdfs:///out", "input hdfs:///in/*.gz matches nothing", "millrace fs ls hdfs:///in/ shows what is there"},
		"no such cluster":          {"hdfs://defualt/in", "hdfs:///out", "input hdfs://defualt/in: no such cluster: defualt: did you mean default?", "millrace cluster list; hdfs:///PATH is in the job's own"},
		"no such cluster for it":   {"hdfs:///in", "hdfs://xyzzy/out", "output hdfs://xyzzy/out/: no such cluster: xyzzy", "millrace cluster list; hdfs:///PATH is in the job's own"},
		"output taken":             {"hdfs:///in", "hdfs:///taken", "output hdfs:///taken/ is not empty (1 object)", "choose another output, or add --overwrite"},
		"output is a file":         {"hdfs:///in", "hdfs:///taken/part-r-00000", "output hdfs:///taken/part-r-00000 is a file", "choose another output, or remove it: millrace fs rm hdfs:///taken/part-r-00000"},
		"output lies below one":    {"hdfs:///in", "hdfs:///taken/part-r-00000/a/b", "output hdfs:///taken/part-r-00000/a/b/ lies below a file: hdfs:///taken/part-r-00000", "choose another output, or remove the file: millrace fs rm hdfs:///taken/part-r-00000"},
		"one place by two names":   {"hdfs:///in", "hdfs://default/in/out", "output hdfs://default/in/out/ is inside input hdfs:///in: input and output must not overlap", "write to another place, such as hdfs:///in-out/"},
		"one place by three":       {"hdfs://" + c.ID + "/a/in", "hdfs:///a", "output hdfs:///a/ is above input hdfs://" + c.ID + "/a/in: input and output must not overlap", "write to another place, such as hdfs:///a-out/"},
		"input in an object store": {"s3://input/none", "hdfs:///out", "input s3://input/none matches nothing", "millrace fs ls s3://input/ shows what is there"},
	} {
		t.Run(name, func(t *testing.T) {
			p := w.refused(onFilesSpec(test.in, test.out), client.ExitUsage)
			if name == "one place by three" { // which is not there either
				p.Errors, p.Next = p.Errors[:1], test.next
			}
			require.Equal(t, []string{test.want}, p.Errors)
			require.Equal(t, test.next, p.Next)
		})
	}
}
