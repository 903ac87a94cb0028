package task

import (
	"time"

	"golang.org/x/sys/unix"
)

// usage is a moment's account of this process and the children it has waited for.
type usage struct {
	wall time.Time
	cpu  time.Duration
}

func readUsage() usage {
	u := usage{wall: time.Now()}
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var r unix.Rusage
		if unix.Getrusage(who, &r) == nil {
			u.cpu += time.Duration(r.Utime.Nano() + r.Stime.Nano())
		}
	}
	return u
}

// since gives the wall and CPU milliseconds since u, at least 1 of wall.
func (u usage) since() (wallMs, cpuMs int64) {
	now := readUsage()
	return max(1, now.wall.Sub(u.wall).Milliseconds()), (now.cpu - u.cpu).Milliseconds()
}
