//go:build !race

package tracker

// The size of a simulation that is run with the other tests.
const (
	simUsualNodes = 200
	simUsualTasks = 20_000
)
