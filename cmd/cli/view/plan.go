package view

import "millrace/pkg/api"

// Plan is what a job would be if it were started now. Sizes are in bytes.
type Plan struct {
	Objects             int64    `json:"objects"`
	Bytes               int64    `json:"bytes"`
	Splits              int64    `json:"splits"`
	LargestSplit        int64    `json:"largestSplit"`
	MapWaves            int64    `json:"mapWaves"` // how often all slots are filled
	Reduces             int64    `json:"reduces"`
	ReduceWaves         int64    `json:"reduceWaves"`
	Unsplittable        int64    `json:"unsplittable"` // objects that cannot be cut
	UnsplittableBytes   int64    `json:"unsplittableBytes"`
	LargestUnsplittable []Sized  `json:"largestUnsplittable"` // a few
	Nodes               int64    `json:"nodes"`
	Slots               int64    `json:"slots"`
	SlotsTaken          int64    `json:"slotsTaken"`   // by other jobs
	TasksWaiting        int64    `json:"tasksWaiting"` // of other jobs
	DiskNeeded          int64    `json:"diskNeeded"`   // an estimate
	DiskFree            int64    `json:"diskFree"`
	Limits              []string `json:"limits"` // what limits, for people
}

// Sized is an object and its size.
type Sized struct {
	Path string `json:"path"`
	Size int64  `json:"size"`
}

func ofPlan(p *api.JobPlan) *Plan {
	if p == nil {
		return nil
	}
	v := &Plan{
		Objects: p.GetObjects(), Bytes: p.GetBytes(), Splits: p.GetSplits(), LargestSplit: p.GetLargestSplit(), MapWaves: waves(p.GetSplits(), p.GetSlots()),
		Reduces: p.GetReduces(), ReduceWaves: waves(p.GetReduces(), p.GetSlots()),
		Unsplittable: p.GetUnsplittable(), UnsplittableBytes: p.GetUnsplittableBytes(), LargestUnsplittable: []Sized{},
		Nodes: p.GetNodes(), Slots: p.GetSlots(), SlotsTaken: p.GetSlotsTaken(), TasksWaiting: p.GetTasksWaiting(),
		DiskNeeded: p.GetDiskNeeded(), DiskFree: p.GetDiskFree(), Limits: []string{},
	}
	for _, o := range p.GetLargestUnsplittable() {
		v.LargestUnsplittable = append(v.LargestUnsplittable, Sized{o.GetUrl(), o.GetBytes()})
	}
	return v
}

// waves is how often slots are filled by tasks; 0 without slots.
func waves(tasks, slots int64) int64 {
	if slots < 1 {
		return 0
	}
	return (tasks + slots - 1) / slots
}
