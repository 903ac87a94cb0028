// Package clustertest holds the tests and benchmarks that need a whole cluster:
// real processes of the real binary, the embedded object store and a real MinIO.
// They see only what users see: the command line, its JSON and the object store.
//
// They are behind the build tag "cluster"; `make test-cluster` and `make bench`
// run them with MILLRACE_BIN and MILLRACE_MINIO set.
package clustertest
