package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"millrace/hdfs"
	"millrace/pkg/api"
	"millrace/pkg/api/apiconnect"
	masters "millrace/pkg/client"
)

// Remote is the name space of a cluster (its name or id, "" = the default one) as masters serve it. What only the
// leader itself may do, which is everything about uploads of groups, is hdfs.ErrInvalid.
func Remote(service apiconnect.FilesServiceClient, cluster string) *RemoteNames {
	return &RemoteNames{service: service, cluster: cluster}
}

// RemoteNames implements Names, and what people ask beside it, by calls to a master.
type RemoteNames struct {
	service apiconnect.FilesServiceClient
	cluster string
}

var _ Names = (*RemoteNames)(nil)

// call makes one call and turns its error into one of package hdfs, or leaves it as it is.
func call[Q, A any](ctx context.Context, f func(context.Context, *connect.Request[Q]) (*connect.Response[A], error), q *Q) (*A, error) {
	resp, err := f(ctx, connect.NewRequest(q))
	if err != nil {
		return nil, fromWire(err)
	}
	return resp.Msg, nil
}

func done[Q, A any](ctx context.Context, f func(context.Context, *connect.Request[Q]) (*connect.Response[A], error), q *Q) error {
	_, err := call(ctx, f, q)
	return err
}

// wireError keeps the call's own error, with what a master wants people to be told, beside what it is.
type wireError struct {
	error
	is error
}

func (e *wireError) Unwrap() []error { return []error{e.error, e.is} }

func (e *wireError) Error() string { return e.is.Error() }

func fromWire(err error) error {
	var ce *connect.Error
	if !errors.As(err, &ce) {
		return err
	}
	for _, d := range ce.Details() {
		if v, decodeErr := d.Value(); decodeErr == nil {
			if p, ok := v.(*api.FilesProblem); ok {
				return &wireError{err, hdfs.OfKind(p.Kind, ce.Message())}
			}
		}
	}
	if ce.Code() == connect.CodeUnavailable && !masters.Unreached(err) {
		return &wireError{err, hdfs.OfKind(hdfs.Kind(hdfs.ErrUnavailable), ce.Message())}
	}
	return err
}

func infoOf(f *api.FileInfo) hdfs.Info {
	return hdfs.Info{
		Path: f.GetPath(), ID: hdfs.FileID(f.GetId()), Directory: f.GetFolder(), Size: f.GetSize(),
		Replication: int(f.GetReplication()), BlockSize: f.GetBlockSize(), ModifiedAt: f.GetModifiedAt().AsTime(),
	}
}

// InfoMessage is what a master says of a file.
func InfoMessage(i hdfs.Info) *api.FileInfo {
	return &api.FileInfo{
		Path: i.Path, Id: uint64(i.ID), Folder: i.Directory, Size: i.Size, Replication: int32(i.Replication), BlockSize: i.BlockSize,
		ModifiedAt: timestamppb.New(i.ModifiedAt),
	}
}

// BlockOf and BlockMessage are a block as it travels.
func BlockOf(b *api.StoredBlock) hdfs.Block {
	return hdfs.Block{ID: hdfs.BlockID(b.GetId()), Stamp: hdfs.Stamp(b.GetStamp()), Size: b.GetSize()}
}

func BlockMessage(b hdfs.Block) *api.StoredBlock {
	return &api.StoredBlock{Id: uint64(b.ID), Stamp: uint64(b.Stamp), Size: b.Size}
}

func blockMessage(b *hdfs.Block) *api.StoredBlock {
	if b == nil {
		return nil
	}
	return BlockMessage(*b)
}

// NodesOf and NodeMessages are places as they travel.
func NodesOf(nodes []*api.DataNode) []hdfs.Node {
	out := make([]hdfs.Node, len(nodes))
	for i, n := range nodes {
		out[i] = hdfs.Node{ID: n.Node, Address: n.Address, Rack: n.Rack, Name: n.Name}
	}
	return out
}

func NodeMessages(nodes []hdfs.Node) []*api.DataNode {
	out := make([]*api.DataNode, len(nodes))
	for i, n := range nodes {
		out[i] = &api.DataNode{Node: n.ID, Address: n.Address, Rack: n.Rack, Name: n.Name}
	}
	return out
}

// LocatedMessage is a block with its places as it travels.
func LocatedMessage(l hdfs.Located) *api.LocatedBlock {
	return &api.LocatedBlock{Block: BlockMessage(l.Block), Offset: l.Offset, Nodes: NodeMessages(l.Nodes), Away: l.Away, Settled: l.Settled}
}

func locatedOf(l *api.LocatedBlock) hdfs.Located {
	return hdfs.Located{Block: BlockOf(l.Block), Offset: l.Offset, Nodes: NodesOf(l.Nodes), Away: l.Away, Settled: l.Settled}
}

func (r *RemoteNames) Stat(ctx context.Context, path string) (hdfs.Info, error) {
	f, err := call(ctx, r.service.StatFile, &api.StatFileRequest{Cluster: r.cluster, Path: path})
	if err != nil {
		return hdfs.Info{}, err
	}
	return infoOf(f), nil
}

func (r *RemoteNames) List(ctx context.Context, path, after string, limit int) ([]hdfs.Info, error) {
	l, err := call(ctx, r.service.ListFolder, &api.ListFolderRequest{Cluster: r.cluster, Path: path, After: after, Limit: int32(limit)})
	if err != nil {
		return nil, err
	}
	out := make([]hdfs.Info, len(l.Entries))
	for i, e := range l.Entries {
		out[i] = infoOf(e)
	}
	return out, nil
}

func (r *RemoteNames) Usage(ctx context.Context, path string) (hdfs.Usage, error) {
	u, err := call(ctx, r.service.FileUsage, &api.StatFileRequest{Cluster: r.cluster, Path: path})
	if err != nil {
		return hdfs.Usage{}, err
	}
	return hdfs.Usage{Bytes: u.Bytes, Files: u.Files, Folders: u.Folders, Stored: u.Stored}, nil
}

func (r *RemoteNames) Locate(ctx context.Context, path string, id hdfs.FileID, offset, length int64) (hdfs.Info, []hdfs.Located, error) {
	l, err := call(ctx, r.service.LocateFile, &api.LocateFileRequest{Cluster: r.cluster, Path: path, Id: uint64(id), Offset: offset, Length: length})
	if err != nil {
		return hdfs.Info{}, nil, err
	}
	out := make([]hdfs.Located, len(l.Blocks))
	for i, b := range l.Blocks {
		out[i] = locatedOf(b)
	}
	return infoOf(l.File), out, nil
}

func (r *RemoteNames) Create(ctx context.Context, c hdfs.Create) (hdfs.FileID, error) {
	if c.Group != "" {
		return 0, notOurs("an upload of a group")
	}
	f, err := call(ctx, r.service.CreateFile, &api.CreateFileRequest{Cluster: r.cluster, Path: c.Path, Lease: c.Lease,
		Replication: int32(c.Replication), BlockSize: c.BlockSize, Overwrite: c.Overwrite})
	if err != nil {
		return 0, err
	}
	return hdfs.FileID(f.Id), nil
}

func notOurs(what string) error {
	return fmt.Errorf("%w: %s is the leader's to make", hdfs.ErrInvalid, what)
}

func (r *RemoteNames) AddBlock(ctx context.Context, id hdfs.FileID, lease string, prev *hdfs.Block, avoid []string) (hdfs.Located, error) {
	l, err := call(ctx, r.service.AddBlock, &api.AddBlockRequest{Cluster: r.cluster, File: uint64(id), Lease: lease, Previous: blockMessage(prev), Avoid: avoid})
	if err != nil {
		return hdfs.Located{}, err
	}
	return locatedOf(l), nil
}

func (r *RemoteNames) Restamp(ctx context.Context, id hdfs.FileID, lease string, block hdfs.Block, nodes []string) (hdfs.Located, error) {
	l, err := call(ctx, r.service.RestampBlock, &api.RestampBlockRequest{Cluster: r.cluster, File: uint64(id), Lease: lease, Block: BlockMessage(block), Nodes: nodes})
	if err != nil {
		return hdfs.Located{}, err
	}
	return locatedOf(l), nil
}

func (r *RemoteNames) Complete(ctx context.Context, id hdfs.FileID, lease string, last *hdfs.Block) (hdfs.Info, error) {
	f, err := call(ctx, r.service.CompleteFile, &api.CompleteFileRequest{Cluster: r.cluster, File: uint64(id), Lease: lease, Last: blockMessage(last)})
	if err != nil {
		return hdfs.Info{}, err
	}
	return infoOf(f), nil
}

func (r *RemoteNames) Abandon(ctx context.Context, id hdfs.FileID, lease string) error {
	return done(ctx, r.service.AbandonFile, &api.AbandonFileRequest{Cluster: r.cluster, File: uint64(id), Lease: lease})
}

func (r *RemoteNames) Renew(ctx context.Context, leases []string) ([]string, error) {
	a, err := call(ctx, r.service.RenewLeases, &api.RenewLeasesRequest{Cluster: r.cluster, Leases: leases})
	if err != nil {
		return nil, err
	}
	return a.Over, nil
}

func (r *RemoteNames) Mkdir(ctx context.Context, path string) error {
	return done(ctx, r.service.MakeFolder, &api.MakeFolderRequest{Cluster: r.cluster, Path: path})
}

func (r *RemoteNames) Rename(ctx context.Context, from, to string) error {
	return done(ctx, r.service.RenameFile, &api.RenameFileRequest{Cluster: r.cluster, From: from, To: to})
}

func (r *RemoteNames) Remove(ctx context.Context, path string, recursive, skipTrash bool) error {
	_, err := r.Discard(ctx, path, recursive, skipTrash)
	return err
}

// Discard is Remove, and says under which path it lies in the trash; "" if it is gone.
func (r *RemoteNames) Discard(ctx context.Context, path string, recursive, skipTrash bool) (trash string, err error) {
	a, err := call(ctx, r.service.RemoveFile, &api.RemoveFileRequest{Cluster: r.cluster, Path: path, Recursive: recursive, SkipTrash: skipTrash})
	if err != nil {
		return "", err
	}
	return a.Trash, nil
}

// RemoveIf is Names'. A master of before it was there deletes whatever has the path by then.
func (r *RemoteNames) RemoveIf(ctx context.Context, path string, id hdfs.FileID) error {
	_, err := call(ctx, r.service.RemoveFile, &api.RemoveFileRequest{Cluster: r.cluster, Path: path, SkipTrash: true, File: uint64(id)})
	return err
}

func (r *RemoteNames) SetReplication(ctx context.Context, path string, n int) error {
	return done(ctx, r.service.SetReplication, &api.SetReplicationRequest{Cluster: r.cluster, Path: path, Replication: int32(n)})
}

func (r *RemoteNames) BadReplica(ctx context.Context, block hdfs.Block, node, reason string) error {
	return done(ctx, r.service.ReportBadReplica, &api.ReportBadReplicaRequest{Cluster: r.cluster, Block: BlockMessage(block), Node: node, Reason: reason})
}

// Check compares what there is below a path with what there should be.
func (r *RemoteNames) Check(ctx context.Context, path string) (*api.CheckFilesResponse, error) {
	return call(ctx, r.service.CheckFiles, &api.CheckFilesRequest{Cluster: r.cluster, Path: path})
}

func (r *RemoteNames) Publish(context.Context, string, string, int, bool, time.Time) error {
	return notOurs("a group's publication")
}

func (r *RemoteNames) Uploads(context.Context, string) ([]hdfs.Upload, error) {
	return nil, notOurs("a list of a group's uploads")
}

func (r *RemoteNames) AbortUploads(context.Context, string, []hdfs.FileID) error {
	return notOurs("the end of a group's uploads")
}
