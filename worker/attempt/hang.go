package attempt

import (
	"fmt"
	"os"
	"time"

	"millrace/pkg/api"
)

// enoughIO is how many bytes a child moves within the limit that is a sign of life: a merge or a long
// output moves more in a second, its messages to the worker less in ten minutes.
const enoughIO = 4 << 20

// hang watches for an attempt that gets no further: it reads no input, repeats no request to the store, counts nothing, says
// nothing on standard error, and moves next to no bytes.
type hang struct {
	limit time.Duration // 0 = never
	now   func() time.Time
	io    func() int64 // bytes that the child has read and written so far

	seen  signs
	since time.Time
	moved int64 // at that time
}

type signs struct{ bytes, records, retries, alive, said int64 }

// over takes what the child reports and says whether that is the end of patience. waiting means that it is not for the
// attempt to get on: it waits for others.
func (h *hang) over(p *api.ChildProgress, said int64, waiting bool) bool {
	if h.limit <= 0 {
		return false
	}
	s := signs{p.GetBytesDone(), p.GetRecordsDone(), p.GetStoreRetries(), p.GetAlive(), said}
	moved := h.io()
	if waiting || h.since.IsZero() || s != h.seen || moved-h.moved > enoughIO {
		h.seen, h.since, h.moved = s, h.now(), moved
		return false
	}
	return h.now().Sub(h.since) > h.limit
}

func (h *hang) message() string {
	return fmt.Sprintf("no progress for %s: no input read, next to nothing written, nothing counted or said on standard error (-D mapreduce.task.timeout=MILLISECONDS sets another limit, 0 none)", h.limit)
}

// ioOf is what a process has read and written, in bytes, by /proc/PID/io; 0 if it cannot be read.
func ioOf(pid int) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0
	}
	var read, written int64
	if _, err := fmt.Sscanf(string(data), "rchar: %d\nwchar: %d", &read, &written); err != nil {
		return 0
	}
	return read + written
}
