package jobs_test

import (
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
			Kind: api.ProgramKind_PROGRAM_KIND_BUILTIN, Name: "grep", Args: []string{"-i", "error", "42", "1.5"},
			Env: map[string]string{"TZ": "UTC", "LEVEL": "7"}, Properties: map[string]string{"a.b": "x"},
			Files: []*api.ShippedFile{{Name: "data/lookup.txt"}, {Name: "b#stop"}},
		},
		Input: []string{"s3://logs/2024/", "s3://logs/2025/"}, Output: "s3://out/errors/", Overwrite: true, Reduces: proto.Int32(0),
		SplitSize: 64 << 20, InputFormat: "text", OutputFormat: "text", Compress: "gzip", MaxAttempts: 2, MemoryBytes: 1 << 30,
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

func TestParseYAMLNamesTheMistake(t *testing.T) {
	for in, want := range map[string]string{
		"inptu: x":              `unknown field "inptu" (did you mean input?)`,
		"split-size: 1":         `unknown field "split-size" (did you mean splitSize?)`,
		"zzz: 1":                `unknown field "zzz"`,
		"input: {a: b}":         "input: want a text or a list",
		"input: [[a]]":          "input: want a list of texts",
		"name: [a]":             "name: want a text",
		"overwrite: perhaps":    "overwrite: want true or false",
		"reduces: -1":           "reduces -1",
		"reduces: two":          "reduces: want a whole number",
		"reduces: 1.5":          "reduces: want a whole number",
		"maxAttempts: 0":        "maxAttempts 0",
		"splitSize: 0":          "splitSize 0",
		"memory: lots":          `memory: "lots" is not a size`,
		"timeout: 5":            "timeout: 5 is not a duration",
		"timeout: -5s":          "timeout -5s",
		"env: {N: 7}":           "put the name in quotes",
		"env: [A]":              `"A" is not NAME=VALUE`,
		"name: a\nname: b":      "name",
		"- a\n- b":              "list of fields",
		"just text":             "list of fields",
		"name: 'not closed":     "not valid YAML",
		"properties: {a: [b]}":  "properties: want a text for a",
		"programm: wordcount":   "did you mean program?",
		"maxattempts: 2":        "did you mean maxAttempts?",
		"priority: 99999999999": "priority: want a whole number",
	} {
		_, err := jobs.ParseYAML([]byte(in))
		require.ErrorContains(t, err, want, in)
	}
}

func TestParseYAMLNamesEveryMistakeAtOnce(t *testing.T) {
	_, err := jobs.ParseYAML([]byte("nam: a\nreduces: x\nmemory: y\n"))
	many, ok := err.(interface{ Unwrap() []error })
	require.True(t, ok)
	require.Len(t, many.Unwrap(), 3)
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
