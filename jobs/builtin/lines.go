package builtin

import "millrace/jobs/mapreduce"

// cat copies lines.
func cat() mapreduce.Job {
	return mapreduce.Job{
		Map: func(ctx *mapreduce.Context, _, line []byte) error {
			ctx.Emit(line, nil)
			return nil
		},
	}
}

// distinct keeps each line once.
func distinct() mapreduce.Job {
	return mapreduce.Job{
		Map: func(ctx *mapreduce.Context, _, line []byte) error {
			ctx.Emit(line, nil)
			return nil
		},
		Fold:   func(acc, _ []byte) []byte { return acc },
		Reduce: mapreduce.Keys,
	}
}
