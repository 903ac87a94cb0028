package tracker

// queue holds the tasks that want a lease, oldest first; what could not be leased yet, as it has no upload, is counted
// alone. One that no longer waits is passed over, and dropped when half of them are such, or all before the first that waits.
type queue struct {
	tasks []*task
	count int
	looks uint64 // how often it was looked through
}

func (q *queue) push(k *task, ready bool) {
	if k.waiting {
		return
	}
	k.waiting = true
	q.count++
	if ready {
		q.tasks = append(q.tasks, k)
	}
}

// ready is for a task that waits and can be leased now.
func (q *queue) ready(k *task) {
	if k.waiting {
		q.tasks = append(q.tasks, k)
	}
}

func (q *queue) drop(k *task) {
	if k.waiting {
		k.waiting = false
		q.count--
	}
}

// tidy drops what no longer waits. What that costs was paid by those that were dropped.
func (q *queue) tidy() {
	for len(q.tasks) > 0 && !q.tasks[0].waiting {
		q.tasks = q.tasks[1:]
	}
	if len(q.tasks) > 2*q.count+64 {
		kept := make([]*task, 0, q.count)
		q.each(func(k *task) bool {
			kept = append(kept, k)
			return true
		})
		q.tasks = kept
	}
}

// each goes through the tasks that wait, each once, until f returns false.
func (q *queue) each(f func(*task) bool) {
	q.looks++
	for _, k := range q.tasks {
		if k.waiting && k.look != q.looks {
			if k.look = q.looks; !f(k) {
				return
			}
		}
	}
}

// first gives up to n waiting tasks that fit.
func (q *queue) first(n int, fits func(*task) bool) (found []*task) {
	if q.count == 0 {
		q.tasks = nil
	}
	if n <= 0 || len(q.tasks) == 0 {
		return nil
	}
	q.tidy()
	q.each(func(k *task) bool {
		if fits(k) {
			found = append(found, k)
		}
		return len(found) < n
	})
	return found
}
