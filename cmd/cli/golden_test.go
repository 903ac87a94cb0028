package cli

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
)

var update = flag.Bool("update", false, "write the golden files")

// The documents that other programs parse: a change here is a change of the contract.
func TestJSONDocuments(t *testing.T) {
	node := &api.Node{Id: "i-00000000000000001", Name: "core-1", Cluster: "j-ABCDEFGHIJKLM", Group: "ig-1", Role: "CORE", State: "RUNNING", Address: "https://127.0.0.1:7410", Slots: 2, Running: 1,
		MemoryBytes: 3, DiskBytes: 5, DiskFreeBytes: 4, Version: "1", Pid: 77, JoinedAt: at("2026-01-02T03:04:05Z"), LastSeenAt: at("2026-01-02T03:04:06.5Z"),
		Disks: []*api.NodeDisk{{Dir: "/d0", CapacityBytes: 5 << 30, FreeBytes: 3 << 30, ReserveBytes: 1 << 30}, {Dir: "/d1", Failed: true, Reason: "input/output error"}}}
	s := newSession(t).serve(&fakeMaster{jobs: []*api.Job{failed()}, nodes: []*api.Node{node}})
	done := newSession(t).serve(&fakeMaster{jobs: []*api.Job{completed()}})
	for _, test := range []struct {
		name string
		s    *session
		args string
	}{
		{"job", done, "job show last"},
		{"job-failed", s, "job show last"},
		{"job-list", done, "job list"},
		{"job-counters", done, "job counters last"},
		{"job-why", s, "job why last"},
		{"job-submit", done, "job submit wordcount --input s3://input/ --output s3://output/"},
		{"job-formats", s, "job formats"},
		{"node-list", s, "node list"},
		{"node", s, "node show core-1"},
		{"join-token", s, "join-token create"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := test.s.run(append(strings.Fields(test.args), "--json")...)
			require.Equal(t, 0, o.code, o.err)
			require.True(t, json.Valid([]byte(o.out)), o.out)
			file := filepath.Join("testdata", test.name+".json")
			if *update {
				require.NoError(t, os.WriteFile(file, []byte(o.out), 0o644))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, string(want), o.out)
		})
	}
}
