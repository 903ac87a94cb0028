package jobs_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"millrace/jobs"
	"millrace/pkg/api"
)

func TestParseYAML(t *testing.T) {
	s, err := jobs.ParseYAML([]byte(`
# every field
name: nightly
cluster: default
program: grep
args: [-i, error, 42, 1.50]
input:
  - s3://logs/2024/
  - s3://logs/2025/
output: s3://out/errors/
overwrite: true
reduces: 0
splitSize: 64MiB
inputFormat: text
outputFormat: text
compress: gzip
maxAttempts: 2
memory: 1g
maxRecord: 128MiB
priority: -3
timeout: 1h30m
requestId: r-1
env: {TZ: UTC, LEVEL: 7}
properties:
  a.b: "x"
files: ["data/lookup.txt", "b#stop"]
`))
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(&api.JobSpec{
		Name: "nightly", Cluster: "default",
		Program: &api.Program{
			Kind: api.ProgramKind_PROGRAM_KIND_BUILTIN, Name: "grep", Args: []string{"-i", "error", "42", "1.50"},
			Env: map[string]string{"TZ": "UTC", "LEVEL": "7"}, Properties: map[string]string{"a.b": "x"},
			Files: []*api.ShippedFile{{Name: "data/lookup.txt"}, {Name: "b#stop"}},
		},
		Input: []string{"s3://logs/2024/", "s3://logs/2025/"}, Output: "s3://out/errors/", Overwrite: true, Reduces: proto.Int32(0),
		SplitSize: 64 << 20, InputFormat: "text", OutputFormat: "text", Compress: "gzip", MaxAttempts: 2, MemoryBytes: 1 << 30, MaxRecordBytes: 128 << 20,
		Priority: -3, TimeoutMs: 90 * 60 * 1000, RequestId: "r-1",
	}, s, protocmp.Transform()))
}

func TestParseYAMLShortForms(t *testing.T) {
	s, err := jobs.ParseYAML([]byte("mapper: ./m.py\nreducer: ./r.py\ninput: s3://in/x\noutput: s3://o/x\nfile: m.py\nenv: [A=b=c]\nsplitSize: 1000\nname:\n"))
	require.NoError(t, err)
	require.Equal(t, api.ProgramKind_PROGRAM_KIND_STREAMING, s.Program.Kind)
	require.Equal(t, []string{"s3://in/x"}, s.Input)
	require.Equal(t, "b=c", s.Program.Env["A"])
	require.EqualValues(t, 1000, s.SplitSize)
	require.Nil(t, s.Reduces)
	require.Equal(t, "m.py", s.Program.Files[0].Name)

	s, err = jobs.ParseYAML([]byte(`{"program": "./cmd/mine"}`))
	require.NoError(t, err)
	require.Equal(t, api.ProgramKind_PROGRAM_KIND_GO, s.Program.Kind)
}

func TestParseYAMLTakesTextAsItIsWritten(t *testing.T) {
	s, err := jobs.ParseYAML([]byte("\ufeffprogram: &p wordcount\nname: *p\nargs: [0x10, 1_000, yes, 2024-01-01, ~x, 'a: b']\nenv: {y: no, N: 1.50}\noverwrite: yes\n"))
	require.NoError(t, err)
	require.Equal(t, "wordcount", s.Name)
	require.Equal(t, []string{"0x10", "1_000", "yes", "2024-01-01", "~x", "a: b"}, s.Program.Args)
	require.Equal(t, map[string]string{"y": "no", "N": "1.50"}, s.Program.Env)
	require.True(t, s.Overwrite)

	s, err = jobs.ParseYAML([]byte("{\n\t\"program\": \"grep\",\n\t\"args\": [\"a\\tb\"]\n}\n"))
	require.NoError(t, err, "JSON may be indented with tabs")
	require.Equal(t, []string{"a\tb"}, s.Program.Args)

	s, err = jobs.ParseYAML([]byte("program: grep\nargs: |\n  a\n  \tb\n"))
	require.NoError(t, err, "and a text may have some")
	require.Equal(t, []string{"a\n\tb\n"}, s.Program.Args)
}

func TestParseYAMLNamesTheMistake(t *testing.T) {
	for in, want := range map[string]string{
		"inptu: x":              `line 1: unknown field "inptu" (did you mean input?)`,
		"split-size: 1":         `line 1: unknown field "split-size" (did you mean splitSize?)`,
		"zzz: 1":                `line 1: unknown field "zzz"`,
		"programm: wordcount":   `line 1: unknown field "programm" (did you mean program?)`,
		"maxattempts: 2":        `line 1: unknown field "maxattempts" (did you mean maxAttempts?)`,
		"input: {a: b}":         "line 1: input: want a text or a list of texts, not named fields",
		"input:\n- a\n- [a]":    "line 3: input: want a list of texts, one of them is a list",
		"input:\n- a\n-":        "line 3: input: want a list of texts, one of them is nothing",
		"name: [a]":             "line 1: name: want a text, not a list",
		"overwrite: perhaps":    `line 1: overwrite: want true or false, not "perhaps"`,
		"overwrite: [true]":     "line 1: overwrite: want true or false, not a list",
		"reduces: -1":           "line 1: reduces -1: want 0 or more",
		"\nreduces: two":        `line 2: reduces: want a whole number, not "two"`,
		"reduces: '2'":          `line 1: reduces: want a whole number, not "2"`,
		"reduces: 1.5":          "line 1: reduces: want a whole number, not 1.5",
		"maxAttempts: 0":        "line 1: maxAttempts 0: want 1 or more",
		"splitSize: 0":          "line 1: splitSize 0: want 1 byte or more",
		"memory: lots":          `line 1: memory: "lots" is not a size: write it like 64MiB, 128MB, 1g or 65536`,
		"timeout: 5":            "line 1: timeout: 5 is not a duration: write it like 90s or 1h30m",
		"timeout: -5s":          "line 1: timeout -5s: want 1ms or more",
		"env: [A]":              `line 1: env: "A" is not NAME=VALUE`,
		"env: {A: 1, A: 2}":     "line 1: A stands here again, it is in line 1 already",
		"name: a\n\nname: b":    "line 3: name stands here again, it is in line 1 already",
		"? [a]\n: b":            "line 1: want a name, not a list",
		"properties: {a: [b]}":  "line 1: properties: want a text for a, not a list",
		"priority: 99999999999": "line 1: priority: want a whole number, not 99999999999",
		"<<: {name: a}":         `line 1: unknown field "<<"`,

		"":                         "there is nothing in it",
		"# only a comment\n":       "there is nothing in it",
		"- a\n- b":                 `line 1: a job file is a list of fields, such as "program: wordcount"`,
		"just text":                `line 1: a job file is a list of fields, such as "program: wordcount"`,
		"name: a\n---\nname: b\n":  "line 2: a second document begins, and a job file has one",
		"name: a\n---\n{\n":        "line 4: not valid YAML: did not find expected node content",
		"name: a\n\tinput: b":      "line 2: a tab is used to indent, and YAML wants spaces",
		"input:\n \t- b":           "line 2: a tab is used to indent, and YAML wants spaces",
		"name: a\nargs: \xff":      "line 2: it is no text in UTF-8",
		"\xff\xfen\x00":            "line 1: it is no text in UTF-8",
		"name: *nobody":            `not valid YAML: unknown anchor 'nobody' referenced`,
		"name: a\x00b":             "not valid YAML: control characters are not allowed",
		strings.Repeat("[", 20000): "not valid YAML: exceeded max depth of 10000",
	} {
		_, err := jobs.ParseYAML([]byte(in))
		require.EqualError(t, err, want, in)
	}
	_, err := jobs.ParseYAML([]byte("name: 'not closed"))
	require.ErrorContains(t, err, "not valid YAML: found unexpected end of stream")
}

func TestParseYAMLNamesEveryMistakeAtOnce(t *testing.T) {
	s, err := jobs.ParseYAML([]byte("nam: a\nreduces: x\nprogram: wordcount\nmemory: y\n"))
	many, ok := err.(interface{ Unwrap() []error })
	require.True(t, ok)
	require.Len(t, many.Unwrap(), 3)
	require.Equal(t, "wordcount", s.Program.Name, "what could be understood")
}

func TestSplitFile(t *testing.T) {
	for in, want := range map[string][2]string{
		"a.txt": {"a.txt", "a.txt"}, "d/a.txt": {"d/a.txt", "a.txt"}, "d/a.txt#b": {"d/a.txt", "b"}, "d/": {"d/", ""},
	} {
		path, name := jobs.SplitFile(in)
		require.Equal(t, want, [2]string{path, name}, in)
	}
}

func FuzzParseYAML(f *testing.F) {
	f.Add([]byte("program: wordcount\ninput: [a, b]\nenv: {A: 1}\nsplitSize: 1g\n"))
	f.Add([]byte(`{"reduces": 1e3, "args": null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := jobs.ParseYAML(data)
		if err != nil {
			return
		}
		jobs.Validate(s)
		jobs.Normalize(s)
		jobs.PartName(s, 'r', 0)
	})
}
