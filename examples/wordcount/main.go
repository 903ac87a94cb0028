// Wordcount counts words: the smallest program for Millrace.
package main

import (
	"bytes"
	"millrace/jobs/mapreduce"
)

var job = mapreduce.Job{
	Name: "wordcount",
	Map: func(ctx *mapreduce.Context, _, line []byte) error {
		for word := range bytes.FieldsSeq(line) {
			ctx.EmitInt(word, 1)
		}
		return nil
	},
	Fold: mapreduce.Sum, Reduce: mapreduce.SumText,
}

func main() { mapreduce.Main(job) }
