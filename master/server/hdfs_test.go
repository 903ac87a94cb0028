package server

import (
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/client"
)

// The trash is not moved, and nothing takes its place; what is in it may go anywhere.
func TestTheTrashStays(t *testing.T) {
	for _, paths := range [][]string{{"/.trash", "/x"}, {"//.trash/", "/x"}, {"/x", "/.trash"}, {"/.trash"}} {
		requireProblems(t, filesError(elsewhere("rename", paths...)), client.ExitUsage, "hdfs:///.trash", "it is the trash, which stays")
	}
	for _, paths := range [][]string{{"/.trash/time/a", "/a"}, {"/a", "/.trash/a"}, {"/.trashes", "/a/.trash"}, {"relative"}} {
		require.NoError(t, elsewhere("rename", paths...))
	}
}
