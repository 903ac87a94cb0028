package cli

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
)

// A row with empty last cells begins the columns of those after it no further left or right.
func TestARowWithEmptyCellsKeepsTheColumns(t *testing.T) {
	var out bytes.Buffer
	table := newTable(&out, "ID", "STATE", "ADDRESS")
	table.row("i-1", "RUNNING", "https://one")
	table.row("i-2", "LOST", "")
	table.row("i-3-is-longer", "", "")
	table.row("i-4", "RUNNING", "https://four")
	require.NoError(t, table.flush())
	require.Equal(t, `ID             STATE    ADDRESS
i-1            RUNNING  https://one
i-2            LOST
i-3-is-longer
i-4            RUNNING  https://four
`, out.String())
}

func TestTheNodeListSaysWhyANodeTakesNothing(t *testing.T) {
	s := newSession(t).serve(&fakeMaster{nodes: []*api.Node{
		{Id: "i-1", Name: "core-1", Role: "CORE", State: "RUNNING", Slots: 2, Reason: "disk full: 5 MiB free of 100 MiB"},
		{Id: "i-2", Name: "core-2", Role: "CORE", State: "RUNNING", Slots: 2},
	}})
	o := s.run("node", "list")
	require.Equal(t, 0, o.code, o.err)
	require.Contains(t, o.out, "\ncore-1: disk full: 5 MiB free of 100 MiB\n")
	require.NotContains(t, o.out, "core-2:")
}
