package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
)

func TestALongListComesInPages(t *testing.T) {
	f := &fakeMaster{}
	for i := range 1234 {
		f.jobs = append(f.jobs, &api.Job{Id: fmt.Sprintf("s-%04d", i), State: "COMPLETED"})
	}
	s := newSession(t).serve(f)
	for _, c := range []struct {
		args        string
		jobs, lists int
	}{{"", 1234, 3}, {"--limit 7", 7, 1}, {"--limit 500", 500, 1}, {"--limit 501", 501, 2}, {"--limit 5000", 1234, 3}} {
		f.lists = 0
		o := s.run(append([]string{"job", "list", "--json"}, strings.Fields(c.args)...)...)
		require.Equal(t, 0, o.code, o.err)
		var list []struct {
			ID string `json:"id"`
		}
		require.NoError(t, json.Unmarshal([]byte(o.out), &list))
		require.Len(t, list, c.jobs, c.args)
		require.Equal(t, c.lists, f.lists, c.args)
		for i, j := range list {
			require.Equal(t, f.jobs[i].Id, j.ID)
		}
	}
}

func TestAListWithoutTheHistorySaysSo(t *testing.T) {
	s := newSession(t).serve(&fakeMaster{jobs: []*api.Job{completed()}, brief: "http://store: no answer"})
	for _, args := range [][]string{{"job", "list"}, {"job", "list", "--json"}} {
		o := s.run(args...)
		require.Equal(t, 0, o.code)
		require.Contains(t, o.out, completed().Id)
		require.Contains(t, o.err, "listed by name, state and times alone: http://store: no answer")
	}
}
