//go:build race

package tracker

// The detector takes its time.
const (
	simUsualNodes = 100
	simUsualTasks = 4_000
)
