package cli

import (
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
)

func TestNodeShowListsTheDisks(t *testing.T) {
	s := newSession(t).serve(&fakeMaster{nodes: []*api.Node{{Id: "i-1", Name: "core-1", Role: "CORE", State: "RUNNING", Disks: []*api.NodeDisk{
		{Dir: "/d0", CapacityBytes: 5 << 30, FreeBytes: 3 << 30, ReserveBytes: 1 << 30},
		{Dir: "/d1", Failed: true, Reason: "input/output error; check that disk"},
	}}}})
	o := s.run("node", "show", "core-1")
	require.Equal(t, 0, o.code, o.err)
	require.Contains(t, o.out, "/d0: 5.0 GiB, 3.0 GiB free beside the 1.0 GiB for tasks\n")
	require.Contains(t, o.out, "/d1: input/output error; check that disk\n")
}
