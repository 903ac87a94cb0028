package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"

	"millrace/hdfs"
	"millrace/hdfs/client"
	"millrace/master/state"
	"millrace/pkg/api"
	exits "millrace/pkg/client"
	"millrace/pkg/objectstore"
	"millrace/pkg/security"
)

// Files are the name spaces of the clusters' block stores, as the leader has them.
type Files interface {
	// Names is the name space of a cluster, for calls made from a node ("" = from none): replicas near it come first.
	Names(cluster, node, user string) client.Names
	// Discard is Names.Remove, and says under which path the file lies in the trash; "" if it is gone.
	Discard(ctx context.Context, cluster, path string, recursive, skipTrash bool) (trash string, err error)
	// Check compares what there is below a path with what there should be.
	Check(ctx context.Context, cluster, path string) (*api.CheckFilesResponse, error)
	// Problems says what is wrong with a cluster's blocks, a sentence each.
	Problems(cluster string) []string
	// Disks is what a core node says of its disks; nothing while it is not up.
	Disks(node string) []*api.NodeDisk

	// NodeChanged takes up what the log says of a node by now.
	NodeChanged(node string)
	// CanDrain is what it takes to copy the blocks of core nodes of one cluster to others; files.ErrCannotDrain if they cannot be.
	CanDrain(nodes ...string) (*api.NodeDrain, error)
	// Draining is what of that is left; Drained: nothing.
	Draining(node string) (*api.NodeDrain, error)
	// Alone lists the blocks that are lost with a core node.
	Alone(node string) ([]*api.BlockTrouble, error)
}

const (
	folderMost = 1000 // entries of a folder in one answer
	locateMost = 1000 // blocks in one answer
)

// filesService is the handler of api.FilesService.
type filesService struct{ *Server }

// reading is the name space that a request reads, once this master surely leads.
func (s *filesService) reading(ctx context.Context, cluster string) (client.Names, error) {
	if _, _, err := s.read(ctx); err != nil {
		return nil, err
	}
	return s.names(ctx, cluster, false)
}

// writing is the name space that a request changes: the log tells whether this master leads. A request that is refused before it
// comes to the log is so by a master that surely leads.
func (s *filesService) writing(ctx context.Context, cluster string) (client.Names, error) {
	if names, err := s.names(ctx, cluster, true); err == nil {
		return names, nil
	}
	if _, _, err := s.read(ctx); err != nil {
		return nil, err
	}
	return s.names(ctx, cluster, true)
}

func (s *filesService) names(ctx context.Context, cluster string, writes bool) (client.Names, error) {
	files, id, err := s.filesOf(ctx, cluster)
	if err != nil {
		return nil, err
	}
	c := callOf(ctx)
	if c.who != worker {
		if c.caller.Role == security.RoleUser {
			return files.Names(id, "", c.caller.ID), nil
		}
		return files.Names(id, "", ""), nil
	}
	if err := nodeReaches(s.cfg.View(), c.caller.ID, id, writes); err != nil {
		return nil, err
	}
	return files.Names(id, c.caller.ID, ""), nil
}

// nodeReaches refuses a node the files of other clusters than its own, unless a job that runs there reads or writes them.
func nodeReaches(v *state.View, node, cluster string, writes bool) error {
	n, ok := v.Node(node)
	if ok && n.Cluster == cluster {
		return nil
	}
	place := objectstore.HDFS + cluster + "/"
	there := func(url string) bool { return strings.HasPrefix(url, place) }
	for _, j := range v.OpenJobs() {
		if ok && j.Cluster == n.Cluster && (there(j.Output) || !writes && slices.ContainsFunc(j.Input, there)) {
			return nil
		}
	}
	return deny(connect.CodePermissionDenied, "node "+node+" is not of cluster "+cluster+", and runs no job of its own that is about files there")
}

// filesOf gives the leader's files and the id of a cluster.
func (s *filesService) filesOf(ctx context.Context, ref string) (Files, string, error) {
	l := callOf(ctx).leader
	if l == nil || l.Files == nil {
		return nil, "", errNoLeader
	}
	found, err := cluster(s.cfg.View(), ref)
	if err != nil {
		return nil, "", err
	}
	if found.Ended() {
		return nil, "", notFound("millrace cluster list", "cluster %s is %s: its files ended with it", found.Name, found.State)
	}
	return l.Files, found.ID, nil
}

// filesAnswer is what callers get of what a name space says.
func filesAnswer[A any](answer *A, err error) (*connect.Response[A], error) {
	if err != nil {
		return nil, filesError(err)
	}
	return connect.NewResponse(answer), nil
}

// filesRules says what the errors of a name space are to callers who know nothing of files.
var filesRules = []struct {
	is   error
	code connect.Code
	exit int32
	next string
}{
	{hdfs.ErrUnavailable, connect.CodeUnavailable, exits.ExitUnreachable, "it is safe to repeat the command"},
	{hdfs.ErrNotExist, connect.CodeNotFound, exits.ExitNotFound, ""},
	{hdfs.ErrExist, connect.CodeAlreadyExists, exits.ExitFailed, ""},
	{hdfs.ErrBusy, connect.CodeFailedPrecondition, exits.ExitFailed, "wait until the other writer is done, or write to another path"},
	{hdfs.ErrChanged, connect.CodeFailedPrecondition, exits.ExitFailed, ""},
	{hdfs.ErrLease, connect.CodeFailedPrecondition, exits.ExitFailed, "write the file again"},
	{hdfs.ErrStale, connect.CodeFailedPrecondition, exits.ExitFailed, "write the file again"},
	{hdfs.ErrNoNodes, connect.CodeFailedPrecondition, exits.ExitFailed, "millrace node list says how the core nodes are and what room they have"},
	{hdfs.ErrNoCore, connect.CodeFailedPrecondition, exits.ExitFailed, "millrace cluster resize NAME --core 1 takes one from the pool, millrace join-token create --role core lets a machine join as one"},
	{hdfs.ErrIsDir, connect.CodeFailedPrecondition, exits.ExitUsage, ""},
	{hdfs.ErrNotDir, connect.CodeFailedPrecondition, exits.ExitUsage, ""},
	{hdfs.ErrNotEmpty, connect.CodeFailedPrecondition, exits.ExitUsage, "repeat with -r"},
	{hdfs.ErrInvalid, connect.CodeInvalidArgument, exits.ExitUsage, ""},
}

// filesError adds to an error of package hdfs the detail by which clients know it; others are left to toConnect.
func filesError(err error) error {
	kind := hdfs.Kind(err)
	if kind == "" || errors.Is(err, ErrNotLeader) {
		return err
	}
	for _, r := range filesRules {
		if !errors.Is(err, r.is) {
			continue
		}
		var ce *connect.Error
		if !errors.As(withDetail(r.code, err, &api.Problems{Errors: []string{err.Error()}, Next: r.next, ExitCode: r.exit}), &ce) {
			break
		}
		if d, detailErr := connect.NewErrorDetail(&api.FilesProblem{Kind: kind}); detailErr == nil {
			ce.AddDetail(d)
		}
		return ce
	}
	return err
}

func (s *filesService) StatFile(ctx context.Context, q *connect.Request[api.StatFileRequest]) (*connect.Response[api.FileInfo], error) {
	names, err := s.reading(ctx, q.Msg.Cluster)
	if err != nil {
		return nil, err
	}
	info, err := names.Stat(ctx, q.Msg.Path)
	return filesAnswer(client.InfoMessage(info), err)
}

func (s *filesService) ListFolder(ctx context.Context, q *connect.Request[api.ListFolderRequest]) (*connect.Response[api.ListFolderResponse], error) {
	names, err := s.reading(ctx, q.Msg.Cluster)
	if err != nil {
		return nil, err
	}
	limit := int(q.Msg.Limit)
	if limit <= 0 || limit > folderMost {
		limit = folderMost
	}
	entries, err := names.List(ctx, q.Msg.Path, q.Msg.After, limit)
	answer := &api.ListFolderResponse{}
	for _, e := range entries {
		answer.Entries = append(answer.Entries, client.InfoMessage(e))
	}
	return filesAnswer(answer, err)
}

func (s *filesService) FileUsage(ctx context.Context, q *connect.Request[api.StatFileRequest]) (*connect.Response[api.FileUsageResponse], error) {
	names, err := s.reading(ctx, q.Msg.Cluster)
	if err != nil {
		return nil, err
	}
	u, err := names.Usage(ctx, q.Msg.Path)
	return filesAnswer(&api.FileUsageResponse{Bytes: u.Bytes, Files: u.Files, Folders: u.Folders, Stored: u.Stored}, err)
}

func (s *filesService) LocateFile(ctx context.Context, q *connect.Request[api.LocateFileRequest]) (*connect.Response[api.LocateFileResponse], error) {
	names, err := s.reading(ctx, q.Msg.Cluster)
	if err != nil {
		return nil, err
	}
	info, blocks, err := names.Locate(ctx, q.Msg.Path, hdfs.FileID(q.Msg.Id), q.Msg.Offset, q.Msg.Length)
	if err != nil {
		return nil, filesError(err)
	}
	answer := &api.LocateFileResponse{File: client.InfoMessage(info)}
	for _, b := range blocks[:min(len(blocks), locateMost)] {
		answer.Blocks = append(answer.Blocks, client.LocatedMessage(b))
	}
	return connect.NewResponse(answer), nil
}

func (s *filesService) CreateFile(ctx context.Context, q *connect.Request[api.CreateFileRequest]) (*connect.Response[api.CreateFileResponse], error) {
	names, err := s.writing(ctx, q.Msg.Cluster)
	if err != nil {
		return nil, err
	}
	if err := elsewhere("create", q.Msg.Path); err != nil {
		return nil, filesError(err)
	}
	id, err := names.Create(ctx, hdfs.Create{Path: q.Msg.Path, Lease: q.Msg.Lease, Replication: int(q.Msg.Replication),
		BlockSize: q.Msg.BlockSize, Overwrite: q.Msg.Overwrite})
	return filesAnswer(&api.CreateFileResponse{Id: uint64(id)}, err)
}

// previous is nil where a request names no block.
func previous(b *api.StoredBlock) *hdfs.Block {
	if b == nil {
		return nil
	}
	block := client.BlockOf(b)
	return &block
}

func (s *filesService) AddBlock(ctx context.Context, q *connect.Request[api.AddBlockRequest]) (*connect.Response[api.LocatedBlock], error) {
	names, err := s.writing(ctx, q.Msg.Cluster)
	if err != nil {
		return nil, err
	}
	l, err := names.AddBlock(ctx, hdfs.FileID(q.Msg.File), q.Msg.Lease, previous(q.Msg.Previous), q.Msg.Avoid)
	return filesAnswer(client.LocatedMessage(l), err)
}

func (s *filesService) RestampBlock(ctx context.Context, q *connect.Request[api.RestampBlockRequest]) (*connect.Response[api.LocatedBlock], error) {
	names, err := s.writing(ctx, q.Msg.Cluster)
	if err != nil {
		return nil, err
	}
	l, err := names.Restamp(ctx, hdfs.FileID(q.Msg.File), q.Msg.Lease, client.BlockOf(q.Msg.Block), q.Msg.Nodes)
	return filesAnswer(client.LocatedMessage(l), err)
}

func (s *filesService) CompleteFile(ctx context.Context, q *connect.Request[api.CompleteFileRequest]) (*connect.Response[api.FileInfo], error) {
	names, err := s.writing(ctx, q.Msg.Cluster)
	if err != nil {
		return nil, err
	}
	info, err := names.Complete(ctx, hdfs.FileID(q.Msg.File), q.Msg.Lease, previous(q.Msg.Last))
	return filesAnswer(client.InfoMessage(info), err)
}

func (s *filesService) AbandonFile(ctx context.Context, q *connect.Request[api.AbandonFileRequest]) (*connect.Response[api.FilesDone], error) {
	names, err := s.writing(ctx, q.Msg.Cluster)
	if err != nil {
		return nil, err
	}
	return filesAnswer(&api.FilesDone{}, names.Abandon(ctx, hdfs.FileID(q.Msg.File), q.Msg.Lease))
}

func (s *filesService) RenewLeases(ctx context.Context, q *connect.Request[api.RenewLeasesRequest]) (*connect.Response[api.RenewLeasesResponse], error) {
	names, err := s.reading(ctx, q.Msg.Cluster) // nothing is logged: a leader that is none any more must not say that a lease is over
	if err != nil {
		return nil, err
	}
	over, err := names.Renew(ctx, q.Msg.Leases)
	return filesAnswer(&api.RenewLeasesResponse{Over: over}, err)
}

func (s *filesService) MakeFolder(ctx context.Context, q *connect.Request[api.MakeFolderRequest]) (*connect.Response[api.FilesDone], error) {
	names, err := s.writing(ctx, q.Msg.Cluster)
	if err != nil {
		return nil, err
	}
	return filesAnswer(&api.FilesDone{}, names.Mkdir(ctx, q.Msg.Path))
}

// elsewhere refuses to have the trash moved away, or another thing put in its place.
func elsewhere(op string, paths ...string) error {
	for _, p := range paths {
		if clean, err := hdfs.CleanPath(p); err == nil && clean == hdfs.Trash {
			return &hdfs.PathError{Op: op, Path: clean, Err: fmt.Errorf("%w: it is the trash, which stays", hdfs.ErrInvalid)}
		}
	}
	return nil
}

func (s *filesService) RenameFile(ctx context.Context, q *connect.Request[api.RenameFileRequest]) (*connect.Response[api.FilesDone], error) {
	names, err := s.writing(ctx, q.Msg.Cluster)
	if err != nil {
		return nil, err
	}
	if err := elsewhere("rename", q.Msg.From, q.Msg.To); err != nil {
		return nil, filesError(err)
	}
	return filesAnswer(&api.FilesDone{}, names.Rename(ctx, q.Msg.From, q.Msg.To))
}

func (s *filesService) RemoveFile(ctx context.Context, q *connect.Request[api.RemoveFileRequest]) (*connect.Response[api.RemoveFileResponse], error) {
	if q.Msg.File != 0 {
		names, err := s.writing(ctx, q.Msg.Cluster)
		if err != nil {
			return nil, err
		}
		return filesAnswer(&api.RemoveFileResponse{}, names.RemoveIf(ctx, q.Msg.Path, hdfs.FileID(q.Msg.File)))
	}
	if _, _, err := s.read(ctx); err != nil { // what is there is looked at before anything is logged
		return nil, err
	}
	files, id, err := s.filesOf(ctx, q.Msg.Cluster)
	if err != nil {
		return nil, err
	}
	trash, err := files.Discard(ctx, id, q.Msg.Path, q.Msg.Recursive, q.Msg.SkipTrash)
	return filesAnswer(&api.RemoveFileResponse{Trash: trash}, err)
}

func (s *filesService) SetReplication(ctx context.Context, q *connect.Request[api.SetReplicationRequest]) (*connect.Response[api.FilesDone], error) {
	names, err := s.writing(ctx, q.Msg.Cluster)
	if err != nil {
		return nil, err
	}
	return filesAnswer(&api.FilesDone{}, names.SetReplication(ctx, q.Msg.Path, int(q.Msg.Replication)))
}

func (s *filesService) ReportBadReplica(ctx context.Context, q *connect.Request[api.ReportBadReplicaRequest]) (*connect.Response[api.FilesDone], error) {
	names, err := s.names(ctx, q.Msg.Cluster, false)
	if err != nil {
		return nil, err
	}
	return filesAnswer(&api.FilesDone{}, names.BadReplica(ctx, client.BlockOf(q.Msg.Block), q.Msg.Node, q.Msg.Reason))
}

func (s *filesService) CheckFiles(ctx context.Context, q *connect.Request[api.CheckFilesRequest]) (*connect.Response[api.CheckFilesResponse], error) {
	if _, _, err := s.read(ctx); err != nil {
		return nil, err
	}
	files, id, err := s.filesOf(ctx, q.Msg.Cluster)
	if err != nil {
		return nil, err
	}
	answer, err := files.Check(ctx, id, q.Msg.Path)
	return filesAnswer(answer, err)
}
