package master

import (
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"

	"millrace/master/state"
	"millrace/master/tracker"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
	"millrace/pkg/security"
)

// storesKept bounds the cache: jobs may each bring a store of their own.
const storesKept = 64

// stores opens object stores, each once: connections are kept.
type stores struct {
	open func(*api.ObjectStore) (objectstore.Store, error)
	view func() *state.View
	seal security.SealKey

	mu sync.Mutex
	// files is the block stores of the site's clusters, as one cluster sees them: hdfs:/// is its own; nil on who does not lead.
	files  func(cluster string) (objectstore.Store, tracker.Publisher)
	cached map[string]objectstore.Store
}

// retriesPerSecond is the master's budget for requests to object stores that are
// repeated, over all stores and jobs.
const retriesPerSecond = 32

// opener opens S3 stores whose repetitions share one budget.
func opener(b *objectstore.Budget) func(*api.ObjectStore) (objectstore.Store, error) {
	return func(s *api.ObjectStore) (objectstore.Store, error) {
		return objectstore.NewS3(objectstore.Config{
			Endpoint: s.Endpoint, Region: s.Region, AccessKey: s.AccessKey, SecretKey: s.SecretKey,
			SessionToken: s.SessionToken, CAPEM: s.CaPem, Retry: objectstore.Retry{Budget: b},
		})
	}
}

// Open opens the store that the settings describe.
func (s *stores) Open(settings *api.ObjectStore) (objectstore.Store, error) {
	key, err := proto.MarshalOptions{Deterministic: true}.Marshal(settings)
	if err != nil {
		return nil, fmt.Errorf("open object store: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if store := s.cached[string(key)]; store != nil {
		return store, nil
	}
	store, err := s.open(settings)
	if err != nil {
		return nil, err
	}
	if len(s.cached) >= storesKept {
		clear(s.cached)
	}
	s.cached[string(key)] = store
	return store, nil
}

// WithFiles is a store that has the block stores of the site's clusters, too.
func (s *stores) WithFiles(store objectstore.Store, cluster string) objectstore.Store {
	files, _ := s.filesOf(cluster)
	return objectstore.Mux(store, files)
}

func (s *stores) filesOf(cluster string) (objectstore.Store, tracker.Publisher) {
	s.mu.Lock()
	files := s.files
	s.mu.Unlock()
	if files == nil {
		return nil, nil
	}
	return files(cluster)
}

// settings opens sealed settings.
func (s *stores) settings(sealed []byte) (*api.ObjectStore, error) {
	plain, err := s.seal.Open(sealed)
	if err != nil {
		return nil, fmt.Errorf("object store settings: %w", err)
	}
	settings := &api.ObjectStore{}
	if err := proto.Unmarshal(plain, settings); err != nil {
		return nil, fmt.Errorf("object store settings: %w", err)
	}
	return settings, nil
}

// site gives the site's settings, with keys, and its system prefix.
func (s *stores) site() (*api.ObjectStore, string, error) {
	site, ok := s.view().Site()
	if !ok {
		return nil, "", fmt.Errorf("site: %w", state.ErrNotFound)
	}
	settings, err := s.settings(site.SealedStore)
	return settings, site.SystemPrefix, err
}

// For opens the store that a job reads and writes, and gives its settings with keys.
func (s *stores) For(job *state.Job) (objectstore.Store, *api.ObjectStore, error) {
	var (
		settings *api.ObjectStore
		err      error
	)
	if len(job.SealedStore) > 0 {
		settings, err = s.settings(job.SealedStore)
	} else {
		settings, _, err = s.site()
	}
	if err != nil {
		return nil, nil, err
	}
	store, err := s.Open(settings)
	if err != nil {
		return nil, nil, err
	}
	return s.WithFiles(store, job.Cluster), settings, nil
}

// Publisher is for jobs whose output is in a block store.
func (s *stores) Publisher(job *state.Job) (tracker.Publisher, error) {
	if _, p := s.filesOf(job.Cluster); p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("open the files of cluster %s: %w", job.Cluster, objectstore.ErrUnreachable)
}

// System is the site's store, and where in it the system prefix lies (with the slash, or "").
func (s *stores) System() (store objectstore.Store, bucket, prefix string, err error) {
	settings, system, err := s.site()
	if err != nil {
		return nil, "", "", err
	}
	u, err := objectstore.ParseS3(system)
	if err != nil {
		return nil, "", "", fmt.Errorf("system prefix: %w", err)
	}
	u = slashed(u)
	store, err = s.Open(settings)
	return store, u.Bucket, u.Key, err
}
