// Package jobs is the job spec: parsing, defaults, validation. The spec itself is
// api.JobSpec.
package jobs

import "millrace/pkg/api"

// Defaults of a job spec.
const (
	DefaultSplitSize   = 128 << 20
	DefaultMaxAttempts = 4
	DefaultMaxRecord   = 64 << 20
)

// Normalize fills in defaults and makes URLs canonical (s3a:// and s3n:// become
// s3://, an output prefix ends in "/").
func Normalize(s *api.JobSpec) { panic("unwritten") }

// Validate checks all that can be checked without a cluster or a store and returns every
// mistake, each a sentence that names the input.
func Validate(s *api.JobSpec) []error { panic("unwritten") }

// ParseYAML reads a job file (CLI.md, "job.yaml"). Unknown fields are mistakes.
func ParseYAML(data []byte) (*api.JobSpec, error) { panic("unwritten") }

// PartName is the name of output part i: part-r-00000, part-m-00000 (map-only), part-00000 (streaming),
// with the extensions of format and codec.
func PartName(s *api.JobSpec, kind byte, i int) string { panic("unwritten") }
