package input

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"millrace/pkg/api"
)

func TestDiskIsEstimatedFromTheSplits(t *testing.T) {
	objects := []Object{{Bucket: "b", Key: "a", Size: 250}, {Bucket: "b", Key: "B.GZ", Size: 40}, {Bucket: "b", Key: "empty.gz"}}
	var sum int64
	for _, s := range Cut(objects, 100, "text") {
		sum += MapDisk(s)
	}
	require.EqualValues(t, 250+4*40, sum, "a gzip file is read unpacked")
	require.EqualValues(t, 205, ReduceDisk(sum, 2))
	require.Zero(t, ReduceDisk(sum, 0), "map-only")

	plan := &api.JobPlan{Slots: 2}
	Describe(plan, objects, Cut(objects, 100, "text"), 4)
	require.True(t, proto.Equal(&api.JobPlan{
		Objects: 3, Bytes: 290, Splits: 4, LargestSplit: 100, Reduces: 4, Slots: 2, Unsplittable: 1, UnsplittableBytes: 40,
		LargestUnsplittable: []*api.PlanObject{{Url: "s3://b/B.GZ", Bytes: 40}},
		DiskNeeded:          410 + 2*102,
	}, plan), "%v", plan)

	plan = &api.JobPlan{}
	Describe(plan, objects, Cut(objects, 100, "text"), 0)
	require.Zero(t, plan.DiskNeeded, "a map-only job keeps nothing")
}
