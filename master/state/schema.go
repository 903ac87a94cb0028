package state

import (
	"encoding/binary"
	"fmt"

	"github.com/hashicorp/go-memdb"
)

// The tables, in the order in which a snapshot holds them.
const (
	tableSite    = "site"
	tableCluster = "cluster"
	tableNode    = "node"
	tableToken   = "token"
	tableJob     = "job"
	tableTask    = "task"
	tableUpload  = "upload"
	tablePast    = "past"
	tableLaunch  = "launch"
	tableUser    = "user"
)

// Indexes beside "id". byOpen and byOutput hold the jobs that have not ended, byName the clusters that have not.
const (
	byID            = "id"
	byIDPrefix      = "id_prefix" // memdb's name for prefixes of byID
	byCluster       = "cluster"
	byClusterPrefix = "cluster_prefix"
	byName          = "name"
	byOpen          = "open"
	byOutput        = "output"
	byOutputPrefix  = "output_prefix"
	byRequest       = "request"
	byCode          = "code"
)

func schema() *memdb.DBSchema {
	return &memdb.DBSchema{Tables: map[string]*memdb.TableSchema{
		tableSite: table(tableSite, primary(func(*Site) key { return key{}.str("site") })),
		tableCluster: table(tableCluster,
			primary(func(c *Cluster) key { return key{}.id(c.ID) }),
			secondary(byName, func(c *Cluster) key {
				if c.Ended() {
					return nil
				}
				return key{}.str(c.Name)
			}),
			secondary(byRequest, func(c *Cluster) key { return requestKey("", c.User, c.RequestID) })),
		tableNode: table(tableNode,
			primary(func(n *Node) key { return key{}.id(n.ID) }),
			secondary(byCluster, func(n *Node) key { return key{}.str(n.Cluster) })),
		tableToken: table(tableToken, primary(func(t *Token) key { return key{}.id(t.ID) })),
		tableJob: table(tableJob,
			primary(func(j *Job) key { return key{}.id(j.ID) }),
			secondary(byCluster, func(j *Job) key { return key{}.str(j.Cluster).uint(j.Sequence) }),
			secondary(byOpen, func(j *Job) key {
				if j.Ended() {
					return nil
				}
				return key{}.uint(j.Sequence)
			}),
			secondary(byOutput, func(j *Job) key {
				if j.Ended() || j.Output == "" {
					return nil
				}
				return key{}.str(slashed(j.Output))
			}),
			secondary(byRequest, func(j *Job) key { return requestKey(j.Cluster, j.User, j.RequestID) })),
		tableTask: table(tableTask, primary(func(t *Task) key {
			return key{}.id(t.Job).id(t.ID.Kind).uint(uint64(t.ID.Index))
		})),
		tableUpload: table(tableUpload, primary(func(u *Upload) key { return key{}.id(u.Job).id(u.ID) })),
		tablePast: table(tablePast,
			primary(func(p *PastJob) key { return key{}.id(p.ID) }),
			secondary(byCluster, func(p *PastJob) key { return key{}.str(p.Cluster).uint(p.Sequence) }),
			secondary(byRequest, func(p *PastJob) key { return requestKey(p.Cluster, p.User, p.RequestID) })),
		tableLaunch: table(tableLaunch,
			primary(func(l *Launch) key { return key{}.id(l.ID) }),
			secondary(byCluster, func(l *Launch) key { return key{}.str(l.Cluster) })),
		tableUser: table(tableUser,
			primary(func(u *User) key { return key{}.id(u.Name) }),
			secondary(byCode, func(u *User) key { return key{}.id(u.CodeID) })),
	}}
}

func table(name string, indexes ...*memdb.IndexSchema) *memdb.TableSchema {
	t := &memdb.TableSchema{Name: name, Indexes: map[string]*memdb.IndexSchema{}}
	for _, i := range indexes {
		t.Indexes[i.Name] = i
	}
	return t
}

func primary[T any](of func(*T) key) *memdb.IndexSchema { return unique(byID, of) }

func unique[T any](name string, of func(*T) key) *memdb.IndexSchema {
	return &memdb.IndexSchema{Name: name, Unique: true, Indexer: indexer[T]{of}}
}

func secondary[T any](name string, of func(*T) key) *memdb.IndexSchema {
	return &memdb.IndexSchema{Name: name, AllowMissing: true, Indexer: indexer[T]{of}}
}

// key is an index key: strings end in a zero byte and numbers are big-endian, so
// that keys sort by their parts, and a key is a prefix of another only part by part.
// A nil key means that the record is not in the index.
type key []byte

func (k key) str(s string) key { return append(append(k, s...), 0) }

// id is str, but an empty id gives no key: such a record cannot be stored.
func (k key) id(s string) key {
	if s == "" || k == nil {
		return nil
	}
	return k.str(s)
}

func (k key) uint(n uint64) key {
	if k == nil {
		return nil
	}
	return binary.BigEndian.AppendUint64(k, n)
}

func requestKey(cluster, user, request string) key {
	if request == "" {
		return nil
	}
	return key{}.str(cluster).str(user).str(request)
}

// partial, as the last argument of a look-up by prefix, is the beginning of a string.
type partial string

type indexer[T any] struct{ of func(*T) key }

func (x indexer[T]) FromObject(obj any) (bool, []byte, error) {
	r, ok := obj.(*T)
	if !ok {
		return false, nil, fmt.Errorf("record is a %T, not a %T", obj, r)
	}
	k := x.of(r)
	return k != nil, k, nil
}

func (x indexer[T]) FromArgs(args ...any) ([]byte, error) {
	k := key{}
	for _, a := range args {
		switch a := a.(type) {
		case string:
			k = k.str(a)
		case partial:
			k = append(k, a...)
		case int:
			k = k.uint(uint64(a))
		default:
			return nil, fmt.Errorf("cannot look up by a %T", a)
		}
	}
	return k, nil
}

func (x indexer[T]) PrefixFromArgs(args ...any) ([]byte, error) { return x.FromArgs(args...) }
