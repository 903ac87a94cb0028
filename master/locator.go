package master

import (
	"context"
	"fmt"
	"strings"

	"millrace/hdfs"
	"millrace/master/files"
	"millrace/master/state"
	"millrace/pkg/objectstore"
)

// locator tells the tracker on which nodes files lie.
type locator struct {
	files *files.Files
	view  func() *state.View
}

// Nodes is tracker.Locator's.
func (l locator) Nodes(ctx context.Context, bucket, key, _ string, offset, length int64) (map[string]int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	name := strings.TrimPrefix(bucket, objectstore.HDFS)
	c, ok := l.view().Cluster(name)
	if name == "" || !ok {
		return nil, fmt.Errorf("cluster %q: %w", name, state.ErrNotFound)
	}
	_, blocks, err := l.files.Names(c.ID, "", "").Locate(ctx, "/"+key, 0, offset, length)
	if err != nil {
		return nil, err
	}
	return heldBy(blocks, offset, length), nil
}

// heldBy sums up how many bytes of a range each node holds.
func heldBy(blocks []hdfs.Located, offset, length int64) map[string]int64 {
	held := map[string]int64{}
	for _, b := range blocks {
		if bytes := min(b.Offset+b.Size, offset+length) - max(b.Offset, offset); bytes > 0 {
			for _, n := range b.Nodes {
				held[n.ID] += bytes
			}
		}
	}
	return held
}
