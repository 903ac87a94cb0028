package server

import (
	"context"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"millrace/hdfs"
	files "millrace/hdfs/client"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/client"
	"millrace/pkg/security"
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

// emptyFiles are name spaces in which nothing can be removed, and any folder be made.
type emptyFiles struct{ Files }

type emptyNames struct{ files.Names }

func (emptyFiles) Names(string, string, string) files.Names { return emptyNames{} }
func (emptyNames) Mkdir(context.Context, string) error      { return nil }

func (emptyFiles) Discard(context.Context, string, string, bool, bool) (string, error) {
	return "", hdfs.ErrNotExist
}

// What a request about files is refused for without the log being asked, a master says only once it surely leads: one that was away
// for a while has not heard of what has come since.
func TestFilesAreRefusedByWhoSurelyLeads(t *testing.T) {
	w := newWorld(t)
	service := w.client(security.RoleUser, Admin).Files()
	lead := func(verify func(context.Context) error) {
		l := *w.leader
		l.Files, l.Verify = emptyFiles{}, verify
		w.server.Lead(&l)
	}
	remove := func() error {
		_, err := service.RemoveFile(t.Context(), connect.NewRequest(&api.RemoveFileRequest{Path: "/a"}))
		return err
	}
	mkdir := func() error {
		_, err := service.MakeFolder(t.Context(), connect.NewRequest(&api.MakeFolderRequest{Cluster: "new", Path: "/a"}))
		return err
	}
	lead(func(context.Context) error { return ErrNotLeader })
	require.Equal(t, connect.CodeUnavailable, connect.CodeOf(remove()), "another leader may know of it")
	require.Equal(t, connect.CodeUnavailable, connect.CodeOf(mkdir()), "or of the cluster")
	lead(func(context.Context) error { return nil })
	requireProblems(t, remove(), client.ExitNotFound, "does not exist")
	requireProblems(t, mkdir(), client.ExitNotFound, "no such cluster: new")

	lead(func(context.Context) error {
		_, err := w.log.Apply(t.Context(), state.CreateCluster{Cluster: state.Cluster{ID: "j-NEW", Name: "new"}})
		return err
	})
	require.NoError(t, mkdir(), "that was in the log")
}
