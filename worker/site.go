package worker

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// site is the object store of the site, as the leader last said.
type site struct {
	open func(*api.ObjectStore) (objectstore.Store, error)

	mu     sync.Mutex
	key    string
	store  objectstore.Store
	prefix objectstore.URL
}

var errNoStore = errors.New("the site's object store is not known yet")

// retriesPerSecond is the node's budget for requests to object stores that are
// repeated, and as many again for a fifth of those that succeed (objectstore.Budget).
// Each slot's attempt has its share, and so has the worker itself.
const retriesPerSecond = 32

func (c *Config) retriesShare() float64 { return retriesPerSecond / float64(c.Slots+1) }

func (c *Config) openStore(o *api.ObjectStore) (objectstore.Store, error) {
	return objectstore.NewS3(objectstore.Config{Endpoint: o.Endpoint, Region: o.Region, AccessKey: o.AccessKey,
		SecretKey: o.SecretKey, SessionToken: o.SessionToken, CAPEM: o.CaPem,
		Retry: objectstore.Attempts(objectstore.NewBudget(c.retriesShare()), nil)})
}

func (s *site) set(o *api.ObjectStore, prefix string) error {
	url, err := objectstore.ParseS3(prefix)
	if err != nil {
		return fmt.Errorf("system prefix: %w", err)
	}
	if url.Key != "" && !strings.HasSuffix(url.Key, "/") {
		url.Key += "/"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prefix = url
	if key := o.String(); s.store == nil || key != s.key {
		store, err := s.open(o)
		if err != nil {
			return fmt.Errorf("site's object store: %w", err)
		}
		s.store, s.key = store, key
	}
	return nil
}

func (s *site) get() (objectstore.Store, objectstore.URL, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.store == nil {
		return nil, objectstore.URL{}, errNoStore
	}
	return s.store, s.prefix, nil
}

// openFor opens the store that these settings describe; the site's is open already.
func (s *site) openFor(o *api.ObjectStore) (objectstore.Store, error) {
	s.mu.Lock()
	if s.store != nil && o.String() == s.key {
		defer s.mu.Unlock()
		return s.store, nil
	}
	s.mu.Unlock()
	return s.open(o)
}
