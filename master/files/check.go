package files

import (
	"context"
	"fmt"
	"strings"

	"millrace/hdfs"
	"millrace/hdfs/blockmanager"
	"millrace/pkg/api"
)

// troublesMost is how many blocks of each kind an answer lists.
const troublesMost = 5000

// Check compares what there is below a path ("" = everything) with what there should be.
func (f *Files) Check(_ context.Context, cluster, path string) (*api.CheckFilesResponse, error) {
	if path == "" {
		path = "/"
	}
	path, err := hdfs.CleanPath(path)
	if err != nil {
		return nil, err
	}
	tree := f.cfg.View().Files(cluster)
	usage, err := tree.Usage(path)
	if err != nil {
		return nil, err
	}
	status := f.manager(cluster).Status()
	answer := &api.CheckFilesResponse{Files: usage.Files, Bytes: usage.Bytes, Learning: !status.Complete, Nodes: int64(f.nodes(cluster))}
	infos, err := tree.Walk(path)
	if err != nil {
		return nil, err
	}
	for info := range infos {
		if info.Directory {
			continue
		}
		blocks := (info.Size + info.BlockSize - 1) / info.BlockSize
		answer.Blocks += blocks
		if info.Replication > status.Holders {
			answer.FewNodes += blocks
		}
	}
	below := strings.TrimSuffix(path, "/") + "/"
	pick := func(list []blockmanager.Concern) (out []*api.BlockTrouble) {
		for _, t := range list {
			info, err := tree.StatID(t.File)
			if err != nil || info.Path != path && !strings.HasPrefix(info.Path, below) {
				continue // deleted meanwhile, being written, or elsewhere
			}
			if len(out) == troublesMost {
				answer.More++
				continue
			}
			out = append(out, &api.BlockTrouble{Path: info.Path, Block: &api.StoredBlock{Id: uint64(t.Block), Size: t.Size}, Why: t.Why, Replicas: int32(t.Good), Wanted: int32(t.Wanted)})
		}
		return out
	}
	answer.Missing, answer.Corrupt, answer.UnderReplicated = pick(status.Missing), pick(status.Corrupt), pick(status.UnderReplicated)
	return answer, nil
}

// nodes is how many core nodes of a cluster are up.
func (f *Files) nodes(cluster string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, h := range f.homes {
		if h == (home{cluster, true}) {
			n++
		}
	}
	return n
}

// Problems says what is wrong with a cluster's blocks, a sentence each; nothing while not all nodes have been heard.
func (f *Files) Problems(cluster string) (list []string) {
	status := f.manager(cluster).Status()
	if !status.Complete {
		return nil
	}
	wait := 0 // of those that lack replicas: for somewhere to copy them to
	for _, c := range status.UnderReplicated {
		if c.Why != "" {
			wait++
		}
	}
	for _, kind := range []struct {
		blocks int
		says   string
	}{
		{len(status.Missing), "no replica of %s is on any node that is up: millrace fs fsck names the files"},
		{len(status.Corrupt), "all replicas of %s are damaged: millrace fs fsck names the files"},
		{wait, "fewer replicas than wanted of %s, and no other core node can take a copy: make room, mend what is wrong with core nodes, or let one more join (millrace join-token create --role core); millrace fs fsck names the files"},
		{len(status.UnderReplicated) - wait, "fewer replicas than wanted of %s: they are being copied; millrace fs fsck says how far that is"},
	} {
		switch kind.blocks {
		case 0:
		case 1:
			list = append(list, fmt.Sprintf(kind.says, "1 block"))
		default:
			list = append(list, fmt.Sprintf(kind.says, fmt.Sprintf("%d blocks", kind.blocks)))
		}
	}
	return list
}
