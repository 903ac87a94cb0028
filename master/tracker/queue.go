package tracker

// queue holds the tasks that want a lease, oldest first. One that no longer
// waits is passed over and dropped when it is met.
type queue struct {
	tasks []*task
	count int
}

func (q *queue) push(k *task) {
	if k.waiting {
		return
	}
	k.waiting = true
	q.count++
	q.tasks = append(q.tasks, k)
}

func (q *queue) drop(k *task) {
	if k.waiting {
		k.waiting = false
		q.count--
	}
}

// first gives up to n waiting tasks that fit.
func (q *queue) first(n int, fits func(*task) bool) []*task {
	if q.count == 0 {
		q.tasks = nil
		return nil
	}
	if len(q.tasks) > 2*q.count+64 {
		kept, have := make([]*task, 0, q.count), map[*task]bool{}
		for _, k := range q.tasks {
			if k.waiting && !have[k] {
				have[k] = true
				kept = append(kept, k)
			}
		}
		q.tasks = kept
	}
	var found []*task
	have := map[*task]bool{}
	for _, k := range q.tasks {
		if len(found) >= n {
			break
		}
		if k.waiting && !have[k] && fits(k) {
			have[k] = true
			found = append(found, k)
		}
	}
	return found
}
