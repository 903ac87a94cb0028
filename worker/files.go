package worker

import (
	"errors"
	"net/http"

	"go.uber.org/zap"

	"millrace/hdfs"
	hdfsclient "millrace/hdfs/client"
)

// openFiles is the block stores of the site's clusters, for the attempts on this node.
func (w *Worker) openFiles() *hdfsclient.Store {
	return hdfsclient.NewStore(hdfsclient.StoreConfig{Open: func(cluster string) (*hdfsclient.Files, error) {
		if cluster == "" {
			cluster = w.id.Cluster
		}
		return hdfsclient.New(hdfsclient.Config{
			Names: hdfsclient.Remote(w.client.Load().Files(), cluster), Dialer: near{w}, Node: w.id.ID, Log: w.log.Named("files"),
		})
	}})
}

// near reaches all nodes over connections, and this one's replicas without.
type near struct{ w *Worker }

func (n near) Client(node string) (*http.Client, error) { return n.w.clients.Client(node) }

// LocalReplica opens a replica if it is of this node.
func (n near) LocalReplica(node string, b hdfs.Block) (hdfsclient.LocalReplica, bool, error) {
	if n.w.blocks == nil || node != n.w.id.ID {
		return nil, false, nil
	}
	r, err := n.w.blocks.store.Open(b.ID, b.Stamp)
	if err != nil {
		if !errors.Is(err, hdfs.ErrNoBlock) {
			n.w.log.Warn("a replica of this node cannot be read", zap.Error(err))
		}
		return nil, true, err
	}
	return r, true, nil
}
