package streaming

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"millrace/jobs/input"
	"millrace/jobs/task"
)

// environment is a command's environment: the process's own, the properties and the
// mapreduce_* variables with Hadoop's names, and what the job sets, which wins.
func environment(t *task.Context, base []string) []string {
	l := t.Lease()
	env := slices.Clone(base)
	set := func(name, value string) { env = append(env, name+"="+value) } // the last of a name counts
	for _, key := range slices.Sorted(maps.Keys(l.Program.GetProperties())) {
		set(variable(key), l.Program.Properties[key])
	}
	kind := "r"
	if t.IsMap() {
		kind = "m"
	}
	set("mapreduce_job_id", l.Job)
	set("mapreduce_job_name", l.Program.GetName())
	set("mapreduce_task_id", fmt.Sprintf("%s-%s-%05d", l.Job, kind, l.Index))
	set("mapreduce_task_attempt_id", l.Attempt)
	set("mapreduce_task_partition", strconv.Itoa(int(l.Index)))
	set("mapreduce_task_ismap", strconv.FormatBool(t.IsMap()))
	if t.IsMap() {
		set("mapreduce_job_reduces", strconv.Itoa(int(l.Partitions)))
		if pieces := l.Split.GetPieces(); len(pieces) > 0 { // of a split of many objects, the first
			p := pieces[0]
			set("mapreduce_map_input_file", input.Object{Bucket: p.Bucket, Key: p.Key}.URL())
			set("mapreduce_map_input_start", strconv.FormatInt(p.Offset, 10))
			set("mapreduce_map_input_length", strconv.FormatInt(p.Length, 10))
		}
	} else {
		set("mapreduce_job_maps", strconv.Itoa(int(l.Maps)))
	}
	for _, name := range slices.Sorted(maps.Keys(l.Program.GetEnv())) {
		if name != task.TokenEnv && name != task.FDEnv {
			set(name, l.Program.Env[name])
		}
	}
	if l.WorkDir != "" {
		set("TMPDIR", l.WorkDir)
		set("PWD", l.WorkDir)
		set("PATH", l.WorkDir+":"+lookup(env, "PATH")) // shipped files are found by name alone
	}
	return env
}

// variable makes a property's name a variable's: what is no letter or digit becomes _.
func variable(key string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, key)
}

// lookup finds the value of a variable that counts.
func lookup(env []string, name string) string {
	for _, v := range slices.Backward(env) {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}
