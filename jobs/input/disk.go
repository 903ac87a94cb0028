package input

import (
	"cmp"
	"slices"

	"millrace/jobs"
	"millrace/pkg/api"
)

// gzipGrows is how many times bigger text is taken to be than its .gz file.
const gzipGrows = 4

// MapDisk estimates the bytes of disk that a map of the split needs on its node: for spills while it
// runs, and for its segment until the job has ended. It takes the program to write about what it
// reads; both are compressed, so that there is something to spare. A map of a map-only job needs none.
func MapDisk(s *api.Split) (bytes int64) {
	if s.GetFormat() == jobs.FormatFiles {
		return 0 // they pass through
	}
	for _, p := range s.GetPieces() {
		if p.GetWhole() && gzipped(p.GetKey()) {
			bytes += gzipGrows * p.GetLength()
		} else {
			bytes += p.GetLength()
		}
	}
	return bytes
}

// ReduceDisk estimates the bytes of disk that one of a job's reduces needs on its node while it runs: for
// its partition of all segments, which it fetches. maps is the sum of MapDisk over the splits.
func ReduceDisk(maps int64, reduces int) int64 {
	if reduces < 1 {
		return 0
	}
	return maps / int64(reduces)
}

// namedUnsplittable is how many objects that cannot be cut a plan names.
const namedUnsplittable = 3

// Describe fills in what a job is, given the slots that the plan has: its objects, splits and reduces, what cannot
// be cut, and an estimate of the disk that it needs at once: for all segments, which stay until the job has
// ended, and for what the reduces of one wave fetch.
func Describe(plan *api.JobPlan, objects []Object, splits []*api.Split, reduces int) {
	plan.Objects, plan.Splits, plan.Reduces = int64(len(objects)), int64(len(splits)), int64(reduces)
	var segments int64
	for _, s := range splits {
		var bytes int64
		for _, p := range s.Pieces {
			bytes += p.Length
		}
		plan.Bytes += bytes
		plan.LargestSplit = max(plan.LargestSplit, bytes)
		segments += MapDisk(s)
	}
	if reduces > 0 {
		plan.DiskNeeded = segments + min(int64(reduces), max(plan.Slots, 1))*ReduceDisk(segments, reduces)
	}
	alone := slices.Clone(objects)
	alone = slices.DeleteFunc(alone, func(o Object) bool { return o.Size == 0 || !gzipped(o.Key) })
	slices.SortStableFunc(alone, func(a, b Object) int { return cmp.Compare(b.Size, a.Size) })
	plan.Unsplittable = int64(len(alone))
	for i, o := range alone {
		plan.UnsplittableBytes += o.Size
		if i < namedUnsplittable {
			plan.LargestUnsplittable = append(plan.LargestUnsplittable, &api.PlanObject{Url: o.URL(), Bytes: o.Size})
		}
	}
}
