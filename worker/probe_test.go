package worker

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

func TestAStoreIsProbedFromTheNode(t *testing.T) {
	m := newMaster(t)
	n := m.worker("core", "CORE")
	hangs := objectstore.NewMemory()
	fault := func(err *objectstore.Error) objectstore.Store {
		s := objectstore.NewMemory()
		s.Fault = func(string, string, string) error { return err }
		return s
	}
	held := make(chan struct{})
	hangs.Fault = func(string, string, string) error {
		<-held
		return &objectstore.Error{Err: context.DeadlineExceeded}
	}
	stores := map[string]objectstore.Store{
		"http://refused": fault(&objectstore.Error{Kind: objectstore.ErrUnreachable, Err: errors.New("connection refused")}),
		"http://skew":    fault(&objectstore.Error{Kind: objectstore.ErrDenied, Code: "RequestTimeTooSkewed", Err: errors.New("the clock is wrong")}),
		"http://denied":  fault(&objectstore.Error{Kind: objectstore.ErrDenied, Code: "AccessDenied", Err: errors.New("no")}),
		"http://hangs":   hangs,
		"http://fine":    objectstore.NewMemory(),
	}
	n.w.site.mu.Lock()
	n.w.site.open = func(o *api.ObjectStore) (objectstore.Store, error) {
		if s := stores[o.Endpoint]; s != nil {
			return s, nil
		}
		if o.Endpoint == "nonsense" {
			return nil, errors.New("no such URL")
		}
		return m.store, nil
	}
	n.w.site.mu.Unlock()
	id := uint64(0)
	ask := func(endpoint string) (why string) {
		id++
		mine := id
		n.send(&api.MasterMessage{Message: &api.MasterMessage_Probe{Probe: &api.StoreProbe{Id: mine, Store: &api.ObjectStore{Endpoint: endpoint}, Bucket: "in", WithinMs: 60_000}}})
		if endpoint == "http://hangs" {
			close(held)
		}
		n.await("an answer", func(g *api.WorkerMessage) bool {
			p := g.GetProbed()
			if p.GetId() == mine {
				why = p.GetError()
			}
			return p.GetId() == mine
		})
		return why
	}
	require.Equal(t, "connection refused", ask("http://refused"))
	require.Equal(t, "the clock is wrong", ask("http://skew"))
	require.Empty(t, ask("http://denied"), "what the key may do, the leader has asked")
	require.Empty(t, ask("http://fine"), "that the bucket is not there, too")
	require.Equal(t, "no answer within 1m0s", ask("http://hangs"))
	require.Equal(t, "no such URL", ask("nonsense"))

	// A probe that waits does not hold up the node's end.
	never := objectstore.NewMemory()
	asked := make(chan struct{})
	never.Fault = func(string, string, string) error {
		close(asked)
		<-n.w.slots.stopped
		return context.Canceled
	}
	n.w.site.mu.Lock()
	stores["http://never"] = never
	n.w.site.mu.Unlock()
	n.send(&api.MasterMessage{Message: &api.MasterMessage_Probe{Probe: &api.StoreProbe{Id: 99, Store: &api.ObjectStore{Endpoint: "http://never"}, Bucket: "in", WithinMs: 3_600_000}}})
	<-asked
	n.end()
}
