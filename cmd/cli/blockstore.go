package cli

import (
	"cmp"
	"context"
	"io"
	"strings"
	"time"

	"millrace/cmd/cli/files"
	"millrace/hdfs"
	hdfsclient "millrace/hdfs/client"
	"millrace/pkg/client"
	"millrace/pkg/objectstore"
	"millrace/pkg/security"
)

// names is the name space of the cluster that a bucket, hdfs:// or hdfs://NAME, stands for.
func (c *call) names(bucket string) (*hdfsclient.RemoteNames, error) {
	conn, err := c.connect()
	if err != nil {
		return nil, err
	}
	cluster := strings.TrimPrefix(bucket, objectstore.HDFS)
	if cluster == "" {
		cluster = conn.cluster
	}
	return hdfsclient.Remote(conn.Files(), cluster), nil
}

// blockStore is openBlockStore, for fs.
func (c *call) blockStore(bucket string) (files.Cluster, error) { return c.openBlockStore(bucket) }

// openBlockStore opens the block store that a bucket stands for.
func (c *call) openBlockStore(bucket string) (*blockStore, error) {
	if s, ok := c.app.blockStores[bucket]; ok {
		return s, nil
	}
	names, err := c.names(bucket)
	if err != nil {
		return nil, err
	}
	credential, err := security.NewLive(c.app.conn.context.Credential())
	if err != nil {
		return nil, err
	}
	nodes := client.NewNodes(credential)
	inner, err := hdfsclient.New(hdfsclient.Config{Names: names, Dialer: nodes, Cluster: strings.TrimPrefix(bucket, objectstore.HDFS), Patience: 10 * time.Second})
	if err != nil {
		return nil, err
	}
	s := &blockStore{names, inner}
	if c.app.blockStores == nil {
		c.app.blockStores = map[string]*blockStore{}
	}
	c.app.blockStores[bucket] = s
	return s, nil
}

// storeOf opens the store that has a job's place: an object store, or a cluster's files; hdfs:/// is that of the given one.
func (c *call) storeOf(place, cluster string) (objectstore.Store, error) {
	u, err := objectstore.ParseURL(place)
	if err != nil || !objectstore.IsHDFS(u.Bucket) {
		return c.openStore()
	}
	return hdfsclient.NewStore(hdfsclient.StoreConfig{Open: func(name string) (*hdfsclient.Files, error) {
		s, err := c.openBlockStore(objectstore.HDFS + cmp.Or(name, cluster))
		if err != nil {
			return nil, err
		}
		return s.files, nil
	}}), nil
}

// blockStore is a cluster's files, as fs sees them.
type blockStore struct {
	*hdfsclient.RemoteNames
	files *hdfsclient.Files
}

func (s *blockStore) Create(ctx context.Context, c hdfs.Create) (files.Writer, error) {
	return s.files.Create(ctx, c)
}

func (s *blockStore) Open(ctx context.Context, path string) (io.ReadCloser, error) {
	return s.files.Open(ctx, path)
}

// Stat waits for a leader as all other questions do.
func (s *blockStore) Stat(ctx context.Context, path string) (hdfs.Info, error) {
	return s.files.Stat(ctx, path)
}
