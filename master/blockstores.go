package master

import (
	"context"
	"time"

	"millrace/hdfs"
	hdfsclient "millrace/hdfs/client"
	"millrace/master/files"
	"millrace/master/tracker"
	"millrace/pkg/client"
	"millrace/pkg/objectstore"
)

// namePatience is how long the leader asks itself for a name space: it has it, or leads no longer.
const namePatience = -1

// blockStores are the clusters' files as the leader's jobs read and write them.
type blockStores struct {
	nodes *client.Nodes
	files *files.Files
	find  func(cluster string) (id string, ok bool)
	mux   map[string]*hdfsclient.Store // by cluster; guarded by stores.mu
}

// openBlockStores makes block stores places for jobs, until the result closes them.
func (m *Master) openBlockStores(f *files.Files) (closeAll func()) {
	b := &blockStores{
		nodes: client.NewNodes(m.credential), files: f, mux: map[string]*hdfsclient.Store{},
		find: func(cluster string) (string, bool) {
			c, ok := m.store.View().Cluster(cluster)
			if !ok {
				return "", false
			}
			return c.ID, true
		},
	}
	m.nodes.Store(b.nodes)
	s := m.stores
	s.mu.Lock()
	s.files = func(cluster string) (objectstore.Store, tracker.Publisher) {
		s.mu.Lock()
		defer s.mu.Unlock()
		store := b.of(cluster)
		return store, publisher{store}
	}
	s.mu.Unlock()
	return func() {
		s.mu.Lock()
		s.files = nil
		open := b.mux
		b.mux = map[string]*hdfsclient.Store{}
		s.mu.Unlock()
		for _, store := range open {
			store.Close() // what it was writing is the next leader's to clean up
		}
		b.nodes.Close()
	}
}

// of is the block stores as a cluster sees them: hdfs:/// is its own.
func (b *blockStores) of(cluster string) *hdfsclient.Store {
	if store := b.mux[cluster]; store != nil {
		return store
	}
	store := hdfsclient.NewStore(hdfsclient.StoreConfig{Open: func(name string) (*hdfsclient.Files, error) {
		id := cluster
		if name != "" {
			var ok bool
			if id, ok = b.find(name); !ok {
				return nil, hdfs.ErrNotExist
			}
		}
		return hdfsclient.New(hdfsclient.Config{Names: b.files.Names(id, "", ""), Dialer: b.nodes, Patience: namePatience})
	}})
	b.mux[cluster] = store
	return store
}

// publisher is a block store's uploads as the tracker knows them.
type publisher struct{ *hdfsclient.Store }

func (p publisher) Hidden(ctx context.Context, bucket, group string) ([]tracker.Hidden, error) {
	all, err := p.Store.Hidden(ctx, bucket, group)
	out := make([]tracker.Hidden, len(all))
	for i, h := range all {
		out[i] = tracker.Hidden{ID: h.ID, Key: h.Key, Size: h.Size, Sealed: h.Sealed, ETag: h.ETag}
	}
	return out, err
}

func (p publisher) Publish(ctx context.Context, bucket, group, prefix string, count int, replace bool, at time.Time) error {
	return p.Store.Publish(ctx, bucket, group, prefix, count, replace, at)
}
