package cli

import (
	"fmt"
	"maps"
	"slices"
)

// hadoopNames are properties that people of Hadoop know by heart, old names and new, and the flags that say the same here. A property of such a name reaches the
// program, as all do, and changes nothing else. (Those that Millrace itself knows are in docs/jobs.md.)
var hadoopNames = map[string]string{
	"mapreduce.job.reduces": "reduces", "mapred.reduce.tasks": "reduces",
	"mapreduce.job.name": "name", "mapred.job.name": "name",
	"mapreduce.job.priority":                           "priority",
	"mapreduce.map.maxattempts":                        "max-attempts",
	"mapred.map.max.attempts":                          "max-attempts",
	"mapreduce.map.memory.mb":                          "memory",
	"mapreduce.reduce.memory.mb":                       "memory",
	"mapreduce.input.fileinputformat.split.maxsize":    "split-size",
	"mapred.max.split.size":                            "split-size",
	"mapreduce.reduce.maxattempts":                     "max-attempts",
	"mapred.reduce.max.attempts":                       "max-attempts",
	"mapreduce.output.fileoutputformat.compress":       "compress",
	"mapreduce.output.fileoutputformat.compress.codec": "compress",
	"mapred.output.compress":                           "compress",
	"mapred.output.compression.codec":                  "compress",
	"mapreduce.job.inputformat.class":                  "input-format",
	"mapreduce.job.outputformat.class":                 "output-format",
	"mapreduce.output.fileoutputformat.compress.type":  "compress",
}

// tellHadoopNames says which properties will not do what they do in Hadoop.
func (c *call) tellHadoopNames(properties map[string]string) {
	if c.json {
		return
	}
	told := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		flag := hadoopNames[name]
		if flag == "" || told[flag] || c.IsSet(flag) {
			continue
		}
		told[flag] = true
		fmt.Fprintf(c.env.Stderr, "-D %s only reaches the program: what it does in Hadoop is --%s here\n", name, flag)
	}
}
