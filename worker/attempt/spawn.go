package attempt

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// spawner starts processes from one niced thread, as niceness is inherited from
// the thread that forks: every thread of the child has it from the first
// instruction on, which setting it afterwards cannot promise.
type spawner struct {
	work chan func()
	done chan struct{}
}

// startSpawner starts one. With tame nothing that it starts gains rights by what it starts in turn (set-user-ID programs).
func startSpawner(nice int, tame bool) *spawner {
	s := &spawner{work: make(chan func()), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if now, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err == nil {
			// The system call gives 20-nice. A refusal costs only the courtesy.
			_ = unix.Setpriority(unix.PRIO_PROCESS, 0, min(20-now+nice, 19))
		}
		if tame {
			_ = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) // refused by kernels before 3.5 alone
		}
		for f := range s.work {
			f()
		}
	}()
	return s
}

// do runs f on the niced thread and waits for it.
func (s *spawner) do(f func()) {
	ran := make(chan struct{})
	s.work <- func() { defer close(ran); f() }
	<-ran
}

// stop may be called when nobody calls do any more.
func (s *spawner) stop() {
	close(s.work)
	<-s.done
}
