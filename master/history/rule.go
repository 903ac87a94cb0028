package history

import (
	"slices"

	"millrace/master/state"
)

// How jobs are taken together. A page has at most pageJobs of them; one entry of the log, which deletes the tasks of all of its jobs
// at once, about entryTasks tasks (a job with more of them has an entry of its own).
const (
	pageJobs   = 100
	entryTasks = 50_000
	// tasksPerJob times the jobs that are kept is how many tasks they may have together.
	tasksPerJob = 100
)

// due gives those of the ended jobs (the first that ended first) that are to move together now. The keep that ended last stay, but
// for those with whose tasks there would be more than keep × 100 of them; the very last one stays whatever its size.
// The others move when a tenth of keep of them, or of their tasks, has come together, so that pages are full.
func due(ended []*state.Job, keep int) []*state.Job {
	var moving []*state.Job // the last that ended first
	stay, tasks, waiting := 0, 0, 0
	for i := len(ended) - 1; i >= 0; i-- {
		j := ended[i]
		last := i == len(ended)-1
		if stay < keep && (last || tasks+size(j) <= keep*tasksPerJob) {
			stay++
			if !last {
				tasks += size(j)
			}
			continue
		}
		moving = append(moving, j)
		waiting += size(j)
	}
	step := max(1, min(keep/10, pageJobs))
	if len(moving) < step && waiting < step*tasksPerJob {
		return nil
	}
	slices.Reverse(moving)
	n, together := 0, 0
	for n < len(moving) && n < pageJobs {
		together += size(moving[n])
		if n > 0 && together > entryTasks {
			break
		}
		n++
	}
	return moving[:n]
}

// size is how many tasks a job has.
func size(j *state.Job) int { return j.Maps + j.Reduces }
