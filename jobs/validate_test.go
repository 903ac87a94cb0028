package jobs_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"millrace/jobs"
	"millrace/pkg/api"
)

func wordcount() *api.JobSpec {
	return &api.JobSpec{
		Program: &api.Program{Kind: api.ProgramKind_PROGRAM_KIND_BUILTIN, Name: "wordcount"},
		Input:   []string{"s3://texts/text/"}, Output: "s3://out/words/",
	}
}

func TestNormalize(t *testing.T) {
	s := wordcount()
	s.Input = []string{"s3a://texts/a", "S3N://texts/b/*.txt", "hdfs:///x", "s3://texts"}
	s.Output, s.Compress = "s3a://out/words", "gz"
	jobs.Normalize(s)
	want := wordcount()
	want.Name = "wordcount"
	want.Input = []string{"s3://texts/a", "s3://texts/b/*.txt", "hdfs:///x", "s3://texts/"}
	want.SplitSize, want.MaxAttempts, want.InputFormat, want.OutputFormat, want.Compress = 128<<20, 4, "text", "text", "gzip"
	require.Empty(t, cmp.Diff(want, s, protocmp.Transform()))

	again := proto.Clone(s).(*api.JobSpec)
	jobs.Normalize(again)
	require.Empty(t, cmp.Diff(s, again, protocmp.Transform()), "a second time changes nothing")

	s = &api.JobSpec{Program: &api.Program{Mapper: "./bin/map.py --fast"}}
	jobs.Normalize(s)
	require.Equal(t, "map.py", s.Name)
}

func TestValidateAcceptsAndLeavesTheSpec(t *testing.T) {
	s := wordcount()
	before := proto.Clone(s)
	require.Empty(t, jobs.Validate(s))
	require.Empty(t, cmp.Diff(before, s, protocmp.Transform()))
}

const sum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestValidateNamesTheMistake(t *testing.T) {
	for name, c := range map[string]struct {
		change func(s *api.JobSpec)
		want   string
	}{
		"no program":        {func(s *api.JobSpec) { s.Program = nil }, "no program"},
		"empty program":     {func(s *api.JobSpec) { s.Program = &api.Program{} }, "no program"},
		"kind not said":     {func(s *api.JobSpec) { s.Program.Kind = 0 }, "program wordcount: it is not said"},
		"go without binary": {func(s *api.JobSpec) { s.Program.Kind = api.ProgramKind_PROGRAM_KIND_GO }, "wordcount has no executable"},
		"streaming without": {func(s *api.JobSpec) { s.Program.Kind = api.ProgramKind_PROGRAM_KIND_STREAMING }, "no mapper"},
		"reducer alone":     {func(s *api.JobSpec) { s.Program.Reducer = "wc" }, "needs a mapper"},
		"file without sum": {func(s *api.JobSpec) {
			s.Program.Files = []*api.ShippedFile{{Name: "a.txt"}}
		}, "file a.txt"},
		"file elsewhere": {func(s *api.JobSpec) {
			s.Program.Files = []*api.ShippedFile{{Name: "../a", Sha256: sum}}
		}, `file "../a"`},
		"two files": {func(s *api.JobSpec) {
			s.Program.Files = []*api.ShippedFile{{Name: "a", Sha256: sum}, {Name: "a", Sha256: sum}}
		}, "file a: two files"},
		"env name":        {func(s *api.JobSpec) { s.Program.Env = map[string]string{"1A": ""} }, `"1A"`},
		"env of ours":     {func(s *api.JobSpec) { s.Program.Env = map[string]string{"MILLRACE_X": ""} }, "MILLRACE_X"},
		"processes":       {func(s *api.JobSpec) { s.Program.Properties = map[string]string{"millrace.task.processes": "many"} }, `property millrace.task.processes: "many" is no number of processes`},
		"task timeout":    {func(s *api.JobSpec) { s.Program.Properties = map[string]string{"mapreduce.task.timeout": "10m"} }, `property mapreduce.task.timeout: "10m" is no number of milliseconds`},
		"property":        {func(s *api.JobSpec) { s.Program.Properties = map[string]string{"a b": ""} }, `property "a b"`},
		"no input":        {func(s *api.JobSpec) { s.Input = nil }, "no input"},
		"input not s3":    {func(s *api.JobSpec) { s.Input = []string{"gs://b/x"} }, `"gs://b/x"`},
		"input local":     {func(s *api.JobSpec) { s.Input = []string{"words.txt"} }, `"words.txt" is a local path`},
		"input hdfs":      {func(s *api.JobSpec) { s.Input = []string{"hdfs:///a/../x"} }, `cannot have ".."`},
		"input cluster":   {func(s *api.JobSpec) { s.Input = []string{"hdfs://node:8020/x"} }, `cluster name "node:8020" must not contain ':'`},
		"input bucket":    {func(s *api.JobSpec) { s.Input = []string{"s3:///x"} }, "no bucket"},
		"input glob":      {func(s *api.JobSpec) { s.Input = []string{"s3://texts/[a"} }, "not a valid glob"},
		"no output":       {func(s *api.JobSpec) { s.Output = "" }, "no output"},
		"output hdfs":     {func(s *api.JobSpec) { s.Output = "hdfs://" }, "names no path"},
		"output root":     {func(s *api.JobSpec) { s.Output = "hdfs:///" }, "output hdfs:/// is the root of a block store: name a folder below it"},
		"output glob":     {func(s *api.JobSpec) { s.Output = "s3://out/*" }, `"*"`},
		"reduces":         {func(s *api.JobSpec) { s.Reduces = proto.Int32(-1) }, "reduces -1"},
		"many reduces":    {func(s *api.JobSpec) { s.Reduces = proto.Int32(1 << 30) }, "reduces 1073741824"},
		"reduces of none": {func(s *api.JobSpec) { s.Reduces, s.MapOnly = proto.Int32(2), true }, "wordcount has no reducer"},
		"split size":      {func(s *api.JobSpec) { s.SplitSize = -1 }, "split size -1"},
		"max attempts":    {func(s *api.JobSpec) { s.MaxAttempts = -2 }, "max attempts -2"},
		"little memory":   {func(s *api.JobSpec) { s.MemoryBytes = 1 }, "at least 16MiB"},
		"memory":          {func(s *api.JobSpec) { s.MemoryBytes = -5 }, "memory -5"},
		"max record":      {func(s *api.JobSpec) { s.MaxRecordBytes = -5 }, "max record -5"},
		"huge record":     {func(s *api.JobSpec) { s.MaxRecordBytes = 2 << 30 }, "max record 2 GiB: there cannot be longer ones than 1 GiB"},
		"record and memory": {func(s *api.JobSpec) { s.MaxRecordBytes, s.MemoryBytes = 256<<20, 512<<20 },
			"max record 256 MiB: in a memory of 512 MiB a record may have 128 MiB; give a memory of 1 GiB or more"},
		"timeout":       {func(s *api.JobSpec) { s.TimeoutMs = -1 }, "timeout -1"},
		"input format":  {func(s *api.JobSpec) { s.InputFormat = "texte" }, `"texte": there is text (did you mean text?)`},
		"output format": {func(s *api.JobSpec) { s.OutputFormat = "parquet" }, `"parquet"`},
		"codec":         {func(s *api.JobSpec) { s.Compress = "gzp" }, "did you mean gzip?"},
		"name":          {func(s *api.JobSpec) { s.Name = "a\nb" }, "control character"},
	} {
		t.Run(name, func(t *testing.T) {
			s := wordcount()
			c.change(s)
			mistakes := jobs.Validate(s)
			require.Len(t, mistakes, 1, "%v", mistakes)
			require.ErrorContains(t, mistakes[0], c.want)
		})
	}
}

func TestRecordLimit(t *testing.T) {
	for _, c := range []struct{ max, memory, want int64 }{
		{0, 0, 64 << 20}, {0, 1 << 30, 64 << 20}, {0, 64 << 20, 16 << 20}, {1 << 10, 64 << 20, 1 << 10},
		{512 << 20, 0, 512 << 20}, {512 << 20, 4 << 30, 512 << 20}, {512 << 20, 1 << 30, 256 << 20},
	} {
		require.Equal(t, c.want, jobs.RecordLimit(c.max, c.memory), "limit %d, memory %d", c.max, c.memory)
	}
}

func TestValidateNamesEveryMistakeAtOnce(t *testing.T) {
	s := &api.JobSpec{Input: []string{"x", "gs://y"}, SplitSize: -1, Compress: "rar"}
	require.Len(t, jobs.Validate(s), 6)
	require.Len(t, jobs.Validate(nil), 1)
}

func TestOverlapOfInputAndOutput(t *testing.T) {
	for _, c := range []struct {
		in, out string
		want    string // "" = they may be used together
	}{
		{"s3://bucket/in", "s3://bucket/in", "equal to"},
		{"s3://bucket/in/", "s3://bucket/in", "equal to"},
		{"s3a://bucket/in", "s3://bucket/in/", "equal to"},
		{"s3://bucket/in", "s3://bucket/in/out", "inside"},
		{"s3://bucket", "s3://bucket/out", "inside"},
		{"s3://bucket/in/*.txt", "s3://bucket/in/out", "inside"},
		{"s3://bucket/in/*.txt", "s3://bucket/in", "inside"},
		{"s3://bucket/in/**", "s3://bucket/in/out", "inside"},
		{"s3://bucket/i*", "s3://bucket/input-out", "inside"},
		{"s3://bucket/in/{a,b}", "s3://bucket/in/c", "inside"},
		{"s3://bucket/dir/in", "s3://bucket/dir", "above"},
		{"s3://bucket/dir/in/*.txt", "s3://bucket/dir", "above"},
		{"s3://bucket/dir/file.txt", "s3://bucket", "above"},
		{"s3://bucket/in", "s3://bucket/in2", ""},
		{"s3://bucket/in2", "s3://bucket/in", ""},
		{"s3://bucket/in", "s3://bucket/out", ""},
		{"s3://bucket/in", "s3://bucket-2/in", ""},
		{"s3://bucket/logs/2024-*", "s3://bucket/logs/out", ""},
		{"hdfs:///in", "hdfs:///in", "equal to"},
		{"hdfs:///in", "hdfs:////in//out", "inside"},
		{"hdfs:///", "hdfs:///out", "inside"},
		{"hdfs:///dir/in/*.txt", "hdfs:///dir", "above"},
		{"hdfs:///in", "hdfs://mine/in/out", "inside"}, // the job's cluster
		{"hdfs://mine/out/in", "hdfs:///out", "above"},
		{"hdfs:///in", "hdfs://other/in", ""},
		{"hdfs:///in", "s3://bucket/in", ""},
		{"hdfs:///in", "hdfs:///in2", ""},
	} {
		s := wordcount()
		s.Input, s.Output, s.Cluster = []string{"s3://other/x", c.in}, c.out, "mine"
		mistakes := jobs.Validate(s)
		if c.want == "" {
			require.Empty(t, mistakes, "%+v", c)
			continue
		}
		require.Len(t, mistakes, 1, "%+v", c)
		require.ErrorContains(t, mistakes[0], c.want+" input", "%+v", c)
	}
}

// A mistake of that kind comes with a place that would do.
func TestOverlapsNextPlace(t *testing.T) {
	for _, c := range []struct{ in, out, want string }{
		{"hdfs:///d", "hdfs:///d/out", "write to another place, such as hdfs:///d-out/"},
		{"hdfs:///d", "hdfs:///d", "write to another place, such as hdfs:///d-out/"},
		{"s3://data/in/x/", "s3://data/in", "write to another place, such as s3://data/in-out/"},
		{"s3://data/in/*", "s3://data/in/o", "write to another place, such as s3://data/in-out/"},
		{"s3://data/in/x", "s3://data/", "write to another place, such as s3://data/in/x-out/"},
		{"s3://data/", "s3://data/o", "write to another bucket: the input may lie anywhere in this one"},
		{"s3://data/*.gz", "s3://data/o", "write to another bucket: the input may lie anywhere in this one"},
		{"hdfs:///", "hdfs:///o", "name a folder of the input, not all of the block store, or write to s3://BUCKET/PREFIX/"},
	} {
		s := wordcount()
		s.Input, s.Output = []string{c.in}, c.out
		var overlap *jobs.OverlapError
		require.ErrorAs(t, errors.Join(jobs.Validate(s)...), &overlap, "%+v", c)
		require.Equal(t, c.want, overlap.Next(), "%+v", c)
	}
}

// What has many names is one place to who knows the clusters.
func TestOverlapInASite(t *testing.T) {
	id := func(name string) string {
		return map[string]string{"": "j-1", "mine": "j-1", "other": "j-2"}[name]
	}
	s := wordcount()
	s.Input, s.Output = []string{"hdfs:///in"}, "hdfs://mine/in/out"
	mistakes := jobs.ValidateIn(s, id)
	require.Len(t, mistakes, 1)
	require.EqualError(t, mistakes[0], "output hdfs://mine/in/out/ is inside input hdfs:///in: input and output must not overlap", "as it was typed")
	inputs, output := jobs.Askable(s, id)
	require.Equal(t, []string{"hdfs:///in"}, inputs)
	require.Empty(t, output)
	s.Output = "hdfs://other/in/out"
	require.Empty(t, jobs.ValidateIn(s, id))

	for place, want := range map[string]string{
		"hdfs:///a/": "hdfs://j-1/a/", "hdfs://other/a": "hdfs://j-2/a", "s3://bucket/a": "s3://bucket/a", "nonsense": "nonsense",
	} {
		require.Equal(t, want, jobs.Anchored(place, id))
	}
}

func TestPartName(t *testing.T) {
	s := wordcount()
	require.Equal(t, "part-r-00007", jobs.PartName(s, 'r', 7))
	require.Equal(t, "part-m-00007", jobs.PartName(s, 'M', 7))
	require.Equal(t, "part-r-123456", jobs.PartName(s, 'R', 123456))
	s.Compress = "gzip"
	require.Equal(t, "part-r-00000.gz", jobs.PartName(s, 'r', 0))
	s.Program.Kind, s.Compress = api.ProgramKind_PROGRAM_KIND_STREAMING, "zst"
	require.Equal(t, "part-00000.zst", jobs.PartName(s, 'r', 0))
}

func TestMistakesAreSentencesOfOneLine(t *testing.T) {
	s := &api.JobSpec{Input: []string{"a\nb"}, Output: "s3://x\ny/", Compress: "\n", Program: &api.Program{Kind: api.ProgramKind_PROGRAM_KIND_BUILTIN, Name: "wordcount"}}
	for _, err := range jobs.Validate(s) {
		require.NotContains(t, err.Error(), "\n")
		require.False(t, strings.HasSuffix(err.Error(), "."))
	}
}
