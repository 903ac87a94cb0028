// Package jobs is the job spec: parsing, defaults, validation. The spec itself is
// api.JobSpec. What only a store or a cluster can tell (whether an input
// matches, whether a program exists) is asked elsewhere.
package jobs

import (
	"cmp"
	"fmt"
	"strings"

	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// Defaults of a job spec.
const (
	DefaultSplitSize   = 128 << 20
	DefaultMaxAttempts = 4
	DefaultMaxRecord   = 64 << 20
)

// Folders of the engine's own in an attempt's directory.
const (
	SpillDir   = ".spill"   // sorted runs
	CombineDir = ".combine" // and those of a combiner that is a command
)

// recordShare is which part of an attempt's memory one record may take: it is read, copied
// into the map's buffer and written from there.
const recordShare = 4

// RecordLimit is the most bytes that a record may have, given the job's own limit (0: none was
// named) and the memory of an attempt (0: not known).
func RecordLimit(max, memory int64) int64 {
	if max <= 0 {
		max = DefaultMaxRecord
	}
	if memory > 0 {
		max = min(max, memory/recordShare)
	}
	return max
}

// InputFormats are the input formats there are; the first is the default.
func InputFormats() []string { return []string{"text"} }

// OutputFormats are the output formats there are; the first is the default.
func OutputFormats() []string { return []string{"text"} }

// Distcp is the built-in program whose job copies whole files: its tasks write them themselves, each at once and under the name
// that it has below the input, and there are no parts and no _SUCCESS.
const Distcp = "distcp"

// FormatFiles is the format of a job that copies whole files, of both its input and its output. No other job has it.
const FormatFiles = "files"

// Copies says whether a job copies whole files.
func Copies(s *api.JobSpec) bool {
	p := s.GetProgram()
	return p.GetKind() == api.ProgramKind_PROGRAM_KIND_BUILTIN && p.GetName() == Distcp
}

// Codecs are the codecs that output can be compressed with.
func Codecs() []string { return []string{"none", "gzip", "zstd"} }

// extension of parts compressed with a codec.
func extension(codec string) string {
	switch codec {
	case "gzip":
		return ".gz"
	case "zstd":
		return ".zst"
	}
	return ""
}

// Normalize fills in defaults and makes URLs canonical: s3a:// and s3n:// become
// s3://, an output prefix ends in "/". What is wrong it leaves for Validate to name.
func Normalize(s *api.JobSpec) {
	for i, in := range s.Input {
		s.Input[i] = canonical(in)
	}
	if u, err := objectstore.ParseURL(s.Output); err == nil {
		if s.Output = u.String(); !strings.HasSuffix(s.Output, "/") {
			s.Output += "/"
		}
	}
	if s.SplitSize == 0 {
		s.SplitSize = DefaultSplitSize
	}
	if s.MaxAttempts == 0 {
		s.MaxAttempts = DefaultMaxAttempts
	}
	in, out := InputFormats()[0], OutputFormats()[0]
	if Copies(s) {
		in, out = FormatFiles, FormatFiles
	}
	s.InputFormat = cmp.Or(strings.ToLower(s.InputFormat), in)
	s.OutputFormat = cmp.Or(strings.ToLower(s.OutputFormat), out)
	s.Compress = codec(s.Compress)
	if s.Name == "" {
		s.Name = programName(s.GetProgram())
	}
}

func canonical(url string) string {
	if u, err := objectstore.ParseURL(url); err == nil {
		return u.String()
	}
	return url
}

func codec(name string) string {
	switch name = strings.ToLower(name); name {
	case "none":
		return ""
	case "gz":
		return "gzip"
	case "zst":
		return "zstd"
	}
	return name
}

// programName is what people call a program: its name without folders, or the
// first word of the mapper.
func programName(p *api.Program) string {
	name := p.GetName()
	if name == "" {
		name, _, _ = strings.Cut(strings.TrimSpace(p.GetMapper()), " ")
	}
	return name[strings.LastIndexByte(name, '/')+1:]
}

// PartName is the name of output part i: part-r-00000, part-m-00000 (kind 'm': map-only),
// part-00000 (streaming), as Hadoop has them, with the extension of the codec.
func PartName(s *api.JobSpec, kind byte, i int) string {
	middle := string([]byte{kind | 0x20, '-'}) // lower case
	if s.GetProgram().GetKind() == api.ProgramKind_PROGRAM_KIND_STREAMING {
		middle = ""
	}
	return fmt.Sprintf("part-%s%05d%s", middle, i, extension(codec(s.GetCompress())))
}
