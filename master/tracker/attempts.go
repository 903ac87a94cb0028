package tracker

// attempts is a set of attempts: a job's, a task's or a node's. Its order follows from what was added and
// removed, and from nothing else, so that a run of the tracker can be repeated exactly.
type attempts []*attempt

// The sets an attempt is in, each of which has its place there.
const (
	ofJob = iota
	ofTask
	ofNode
	sets
)

func (s *attempts) add(a *attempt, set int) {
	a.at[set] = len(*s)
	*s = append(*s, a)
}

// remove takes an attempt out; the last one takes its place.
func (s *attempts) remove(a *attempt, set int) {
	i, last := a.at[set], len(*s)-1
	if i > last || (*s)[i] != a {
		return
	}
	(*s)[i] = (*s)[last]
	(*s)[i].at[set] = i
	(*s)[last] = nil
	*s = (*s)[:last]
}
