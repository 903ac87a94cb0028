package tracker

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	simNodes = flag.Int("sim.nodes", simUsualNodes, "nodes of a simulated site")
	simTasks = flag.Int("sim.tasks", simUsualTasks, "tasks that it runs")
	simSeed  = flag.Uint64("sim.seed", 1, "the first seed")
	simSeeds = flag.Int("sim.seeds", 2, "how many seeds")
)

const simSlots = 4

// outcome is what a run is judged by.
type outcome struct {
	*sim
	slots int
	least time.Duration // no schedule takes less
	worst float64       // of the small jobs: how long one took, in what its fair share would have
	who   string
}

// makespan: one job, 1 % of the nodes fail, all at different times; half of them come back.
func makespan(s *sim, nodes, tasks int) *outcome {
	o := site(s, nodes)
	j := s.submit("huge", tasks, 0, 0, 20*time.Second)
	work, longest := j.work()
	o.least = max(work/time.Duration(o.slots), longest)
	s.strike(max(1, nodes/100), o.least, func(n *simNode) { n.fall(s.r.IntN(2) == 0) })
	s.run(func() bool { return s.check.open == 0 })
	return o
}

// crowd: a huge job, and behind it many small ones. Nodes fail, lose their connection, slow down; attempts
// fail; the leader changes twice.
func crowd(s *sim, nodes, tasks int) *outcome {
	o := site(s, nodes)
	s.check.failing = 0.004
	const mean = 20 * time.Second
	span := time.Duration(tasks/o.slots+1) * mean
	_, hugest := s.submit("huge", tasks/2, min(nodes, 200), 0, mean).work()
	hugest /= 2 // a map's length, about
	left := tasks - tasks/2
	for left > 0 {
		n := min(left, 1+s.r.IntN(max(1, tasks/200)))
		left -= n
		reduces := 0
		if n > 10 && s.r.IntN(2) == 0 {
			reduces = 1 + n/20
		}
		s.in(time.Duration(s.r.Int64N(int64(span))), simWeather, func() { s.submit("small", n-reduces, reduces, 0, mean/2) })
	}
	s.check.closed = func(j *simJob) {
		work, longest := j.work()
		fair := work/time.Duration(max(1, o.slots/j.crowd)) + longest
		bound := 2*hugest + 2*fair
		if j.hurt { // a task had to run again, or was on a slow node: it took five times as long, and so did the one before it
			bound += 6 * hugest
		}
		if took := float64(j.ended-j.at) / float64(bound); j.id != "s-0000000000001" && took > o.worst {
			o.worst, o.who = took, fmt.Sprintf("%s of %d+%d tasks, beside %d others, %s for %s", j.id, j.maps, j.reduces, j.crowd-1, j.ended-j.at, fair)
		}
	}
	s.strike(max(1, nodes/100), span, func(n *simNode) { n.fall(true) })
	s.strike(max(2, nodes/50), span, (*simNode).stumble)
	s.strike(max(2, nodes/50), span, (*simNode).tire)
	for range 2 {
		s.in(span/4+time.Duration(s.r.Int64N(int64(span/2))), simWeather, s.change)
	}
	s.run(func() bool { return s.check.open == 0 && s.now > span })
	return o
}

// site has a leader and nodes.
func site(s *sim, nodes int) *outcome {
	for i := range nodes {
		s.join(i, simSlots)
	}
	s.lead()
	return &outcome{sim: s, slots: nodes * simSlots}
}

// strike has something happen to some nodes within a while.
func (s *sim) strike(nodes int, within time.Duration, what func(*simNode)) {
	for range nodes {
		n := s.nodes[s.r.IntN(len(s.nodes))]
		s.in(time.Duration(s.r.Int64N(int64(within))), n.number, func() {
			if n.up {
				what(n)
			}
		})
	}
}

// fall ends a node, perhaps for good.
func (n *simNode) fall(back bool) {
	n.die()
	if back {
		n.s.in(time.Duration(1+n.s.r.IntN(60))*time.Second, n.number, func() {
			if !n.up {
				n.boot()
			}
		})
	}
}

// stumble breaks a node's connection for a moment, or for longer than its lease.
func (n *simNode) stumble() {
	n.unlink()
	n.s.in(time.Duration(100+n.s.r.IntN(5000))*time.Millisecond, n.number, n.link)
}

// tire makes a node slow for a while.
func (n *simNode) tire() {
	n.slow = 2 + 3*n.s.r.Float64()
	n.hurt(n.queue...)
	n.s.in(time.Duration(30+n.s.r.IntN(120))*time.Second, n.number, func() { n.slow = 1 })
}

// change replaces the leader. The nodes find the new one within two seconds, in any order.
func (s *sim) change() {
	if s.leader.dead {
		return // there is none just now
	}
	s.check.remember()
	s.depose()
	s.in(time.Duration(300+s.r.IntN(1000))*time.Millisecond, simWeather, func() {
		s.lead()
		for _, n := range s.nodes {
			s.in(time.Duration(s.r.IntN(2000))*time.Millisecond, n.number, n.link)
		}
	})
}

var simScenarios = []struct {
	name string
	run  func(s *sim, nodes, tasks int) *outcome
}{{"makespan", makespan}, {"crowd", crowd}}

// A large site in virtual time: nothing that must hold of it breaks, at any moment. In the end each job is COMPLETED,
// each task of it was committed once, and nothing is left in the store. -sim.nodes, -sim.tasks, -sim.seed and -sim.seeds say how large.
func TestSimulation(t *testing.T) {
	for _, sc := range simScenarios {
		for seed := *simSeed; seed < *simSeed+uint64(*simSeeds); seed++ {
			t.Run(fmt.Sprintf("%s/%d", sc.name, seed), func(t *testing.T) {
				began := time.Now()
				o := sc.run(newSim(seed), *simNodes, *simTasks)
				o.judge(t)
				t.Log(o)
				t.Logf("%s of wall time; %d rounds of the leader's loop, %s each; the slowest entry of the log was %s with %s",
					time.Since(began).Round(time.Millisecond), o.rounds, o.busy/time.Duration(o.rounds), o.slow, o.slowest)
				if t.Failed() {
					t.Logf("to repeat it: go test -count=1 -run '^TestSimulation$/^%s$/^%d$' ./master/tracker -sim.nodes %d -sim.tasks %d -sim.seed %d -sim.seeds 1",
						sc.name, seed, *simNodes, *simTasks, seed)
				}
			})
		}
	}
}

// judge fails the test for what has gone wrong.
func (o *outcome) judge(t *testing.T) {
	o.check.finish()
	for _, b := range o.check.broken {
		t.Error(b)
	}
	if o.least > 0 && float64(o.now) > 1.2*float64(o.least) {
		t.Errorf("it took %s; %s is the least that is possible", o.now, o.least)
	}
	if o.worst > 1 {
		t.Errorf("a small job took %.2f times what it may: %s", o.worst, o.who)
	}
}

// String says what happened, all of it in virtual time.
func (o *outcome) String() string {
	c := o.check
	s := fmt.Sprintf("%s of virtual time; %d leases, %d starts, %d second attempts; ended early %v; trace %016x", o.now, c.leases, c.starts, c.seconds, c.kills, o.trace.Sum64())
	if o.least > 0 {
		s += fmt.Sprintf("; %.3f of what is possible", float64(o.now)/float64(o.least))
	}
	if o.who != "" {
		s += fmt.Sprintf("; the worst small job took %.2f of what it may: %s", o.worst, o.who)
	}
	return s
}

// The same seed gives the same run, message by message; another seed gives another one.
func TestSimulationRepeats(t *testing.T) {
	for _, sc := range simScenarios {
		t.Run(sc.name, func(t *testing.T) {
			run := func(seed uint64) string { return sc.run(newSim(seed), 40, 1500).String() }
			first := run(*simSeed)
			require.Equal(t, first, run(*simSeed))
			require.NotEqual(t, first, run(*simSeed+1))
		})
	}
}

// Reduces get slots, though another job has maps for all of them: none would be free, ever, if those were leased ahead.
func TestReducesDoNotWaitForOtherJobsMaps(t *testing.T) {
	s := newSim(*simSeed)
	site(s, 4)
	huge := s.submit("huge", 2000, 1, 0, 20*time.Second)
	s.run(func() bool { return s.now > time.Minute })
	small := s.submit("small", 3, 2, 0, 20*time.Second)
	s.run(func() bool { return small.ended > 0 })
	require.Zero(t, huge.ended)
	require.Less(t, small.ended-small.at, 5*30*time.Second, "a map before its map, its map, a map before its reduce, its reduce, and one to spare")
}
