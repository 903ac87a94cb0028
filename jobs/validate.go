package jobs

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/agnivade/levenshtein"
	"google.golang.org/protobuf/proto"

	"millrace/pkg/api"
	"millrace/pkg/bytesize"
	"millrace/pkg/record"
)

const (
	maxReduces = 100_000
	maxName    = 256 // bytes of a job's name or request id
	minMemory  = 16 << 20
)

// Validate checks all that can be checked without a cluster or a store and returns every
// mistake, each a sentence that names the input. The spec need not be
// normalized, and is left as it is.
func Validate(s *api.JobSpec) []error { return ValidateIn(s, named(s)) }

// ValidateIn is Validate by who knows the site's clusters: hdfs:///x of a cluster and hdfs://NAME/x are one place.
func ValidateIn(s *api.JobSpec, id Clusters) []error {
	if s == nil {
		return []error{fmt.Errorf("there is no job")}
	}
	s = proto.Clone(s).(*api.JobSpec)
	Normalize(s)
	var v verdict
	v.program(s.Program)
	v.places(s, id)
	v.numbers(s)
	v.formats(s)
	v.text("name", s.Name)
	v.text("request id", s.RequestId)
	return v.mistakes
}

type verdict struct{ mistakes []error }

func (v *verdict) wrong(format string, args ...any) {
	v.mistakes = append(v.mistakes, fmt.Errorf(format, args...))
}

func (v *verdict) numbers(s *api.JobSpec) {
	if r := s.Reduces; r != nil {
		switch {
		case *r < 0:
			v.wrong("reduces %d: there cannot be fewer than 0 (0 is map-only)", *r)
		case *r > maxReduces:
			v.wrong("reduces %d: there cannot be more than %d", *r, maxReduces)
		case *r > 0 && s.MapOnly:
			v.wrong("reduces %d: the program %s has no reducer, only 0 will do", *r, programName(s.Program))
		}
	}
	if s.SplitSize < 1 {
		v.wrong("split size %d: a split has at least 1 byte", s.SplitSize)
	}
	if s.MaxAttempts < 1 {
		v.wrong("max attempts %d: a task needs at least 1", s.MaxAttempts)
	}
	switch {
	case s.MemoryBytes < 0:
		v.wrong("memory %d: it cannot be negative", s.MemoryBytes)
	case s.MemoryBytes > 0 && s.MemoryBytes < minMemory:
		v.wrong("memory %d: an attempt needs at least 16MiB, program included (1g is one gibibyte)", s.MemoryBytes)
	}
	switch r := s.MaxRecordBytes; {
	case r < 0:
		v.wrong("max record %d: it cannot be negative", r)
	case r > record.MaxRecord:
		v.wrong("max record %s: there cannot be longer ones than %s", bytesize.Format(r), bytesize.Format(record.MaxRecord))
	case r > 0 && s.MemoryBytes >= minMemory && r > RecordLimit(r, s.MemoryBytes):
		v.wrong("max record %s: in a memory of %s a record may have %s; give a memory of %s or more",
			bytesize.Format(r), bytesize.Format(s.MemoryBytes), bytesize.Format(RecordLimit(r, s.MemoryBytes)), bytesize.Format(r*recordShare))
	}
	if s.TimeoutMs < 0 {
		v.wrong("timeout %d ms: it cannot be negative", s.TimeoutMs)
	}
}

func (v *verdict) formats(s *api.JobSpec) {
	if Copies(s) {
		if s.InputFormat != FormatFiles || s.OutputFormat != FormatFiles || s.Compress != "" {
			v.wrong("%s copies files as they are: it has no formats and no codec to choose", Distcp)
		}
		return
	}
	v.oneOf("input format", s.InputFormat, InputFormats())
	v.oneOf("output format", s.OutputFormat, OutputFormats())
	if s.Compress != "" {
		v.oneOf("codec", s.Compress, Codecs())
	}
}

func (v *verdict) oneOf(what, name string, known []string) {
	if !slices.Contains(known, name) {
		v.wrong("unknown %s %q: there is %s%s", what, name, strings.Join(known, ", "), didYouMean(name, known))
	}
}

func (v *verdict) text(what, s string) {
	switch {
	case len(s) > maxName:
		v.wrong("%s %q…: it has %d bytes, more than %d", what, s[:32], len(s), maxName)
	case strings.ContainsFunc(s, unicode.IsControl):
		v.wrong("%s %q: it contains a control character", what, s)
	}
}

func (v *verdict) program(p *api.Program) {
	if p == nil {
		v.wrong("no program: name a built-in one, an executable or a mapper command")
		return
	}
	switch p.Kind {
	case api.ProgramKind_PROGRAM_KIND_BUILTIN:
		if p.Name == "" {
			v.wrong("no program: the built-in program has no name")
		}
	case api.ProgramKind_PROGRAM_KIND_GO:
		if p.Executable == nil {
			v.wrong("program %s has no executable", p.Name)
		} else {
			v.shipped("executable", p.Executable)
		}
	case api.ProgramKind_PROGRAM_KIND_STREAMING:
		if strings.TrimSpace(p.Mapper) == "" {
			v.wrong("the streaming program has no mapper command")
		}
	default:
		if p.Name == "" && p.Mapper == "" {
			v.wrong("no program: name a built-in one, an executable or a mapper command")
		} else {
			v.wrong("program %s: it is not said whether it is built in, an executable or commands", programName(p))
		}
	}
	if p.Mapper == "" && (p.Combiner != "" || p.Reducer != "") && p.Kind != api.ProgramKind_PROGRAM_KIND_STREAMING {
		v.wrong("a combiner or reducer command needs a mapper command")
	}
	names := map[string]bool{}
	for _, f := range p.Files {
		v.shipped("file", f)
		if names[f.GetName()] {
			v.wrong("file %s: two files have that name in the working directory", f.GetName())
		}
		names[f.GetName()] = true
	}
	v.settings(p)
}

func (v *verdict) shipped(what string, f *api.ShippedFile) {
	if n := f.GetName(); n == "" || n == "." || n == ".." || strings.ContainsAny(n, "/\x00") {
		v.wrong("%s %q: its name in the working directory cannot be that", what, n)
	}
	if !isSHA256(f.GetSha256()) {
		v.wrong("%s %s: %q is not a SHA-256", what, f.GetName(), f.GetSha256())
	}
	if f.GetSize() < 0 {
		v.wrong("%s %s: its size is negative", what, f.GetName())
	}
}

func isSHA256(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

func (v *verdict) settings(p *api.Program) {
	for _, arg := range p.Args {
		if strings.ContainsRune(arg, 0) {
			v.wrong("argument %q contains a zero byte", arg)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Env)) {
		switch {
		case !isEnvName(name):
			v.wrong("environment variable %q: a name has letters, digits and _, and begins with no digit", name)
		case strings.HasPrefix(name, "MILLRACE_"):
			v.wrong("environment variable %s: names that begin with MILLRACE_ are Millrace's own", name)
		case strings.ContainsRune(p.Env[name], 0):
			v.wrong("environment variable %s: its value contains a zero byte", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Properties)) {
		switch {
		case name == "" || strings.ContainsFunc(name, func(r rune) bool { return r == '=' || unicode.IsSpace(r) || unicode.IsControl(r) }):
			v.wrong("property %q: a name is not empty and has no =, white space or control character", name)
		case strings.ContainsRune(p.Properties[name], 0):
			v.wrong("property %s: its value contains a zero byte", name)
		case name == TaskProcessesProperty:
			if _, err := processesOf(p.Properties[name]); err != nil {
				v.wrong("property %s: %v", name, err)
			}
		case name == taskTimeout:
			if _, err := timeoutOf(p.Properties[name]); err != nil {
				v.wrong("property %s: %v", name, err)
			}
		}
	}
}

func isEnvName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// didYouMean suggests the known name nearest to what was typed, if it is near.
func didYouMean(name string, known []string) string {
	best, least := "", len(name)/2+1
	for _, k := range known {
		if d := levenshtein.ComputeDistance(strings.ToLower(name), strings.ToLower(k)); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s?)", best)
}

// TaskProcessesProperty is the property by which a job says how many processes an attempt may have at once.
const TaskProcessesProperty = "millrace.task.processes"

// DefaultTaskProcesses is how many that are if the job does not say.
const DefaultTaskProcesses = 1000

// TaskProcesses is how many processes an attempt of the program may have at once; 0 is any number.
func TaskProcesses(p *api.Program) int {
	text, ok := p.GetProperties()[TaskProcessesProperty]
	if !ok {
		return DefaultTaskProcesses
	}
	n, err := processesOf(text)
	if err != nil { // it was refused at the submit
		return DefaultTaskProcesses
	}
	return n
}

func processesOf(text string) (int, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is no number of processes (0: any number)", text)
	}
	return int(n), nil
}

// taskTimeout is the property by which a job says how long an attempt may go without progress, as Hadoop has it.
const taskTimeout = "mapreduce.task.timeout"

// DefaultTaskTimeout is how long an attempt may go without progress if the job does not say.
const DefaultTaskTimeout = 10 * time.Minute

// TaskTimeout is how long an attempt of the program may go without progress; 0 is for ever.
func TaskTimeout(p *api.Program) time.Duration {
	text, ok := p.GetProperties()[taskTimeout]
	if !ok {
		return DefaultTaskTimeout
	}
	d, err := timeoutOf(text)
	if err != nil { // it was refused at the submit
		return DefaultTaskTimeout
	}
	return d
}

func timeoutOf(text string) (time.Duration, error) {
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil || ms < 0 || ms > math.MaxInt64/int64(time.Millisecond) {
		return 0, fmt.Errorf("%q is no number of milliseconds (0: without limit)", text)
	}
	return time.Duration(ms) * time.Millisecond, nil
}
