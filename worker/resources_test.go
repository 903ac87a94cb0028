package worker

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhichLimitsOfMemoryThereAre(t *testing.T) {
	for name, c := range map[string]struct {
		membership string
		files      []string
	}{
		"a unit":             {"0::/system.slice/m.service\n", []string{"/r/system.slice/m.service/memory.max", "/r/system.slice/memory.max", "/r/memory.max"}},
		"a container":        {"0::/\n", []string{"/r/memory.max"}},
		"version 1, besides": {"4:memory:/docker/x\n3:cpuset:/\n0::/\n", []string{"/r/memory/docker/x/memory.limit_in_bytes", "/r/memory/docker/memory.limit_in_bytes", "/r/memory/memory.limit_in_bytes", "/r/memory.max"}},
		"above the root":     {"0::/../other\n", []string{"/r/other/memory.max", "/r/memory.max"}},
		"none":               {"", nil},
		"something else":     {"what\n", nil},
	} {
		require.Equal(t, c.files, memoryLimits("/r", c.membership), name)
	}
	total, ok := memTotal("MemTotal: 2 kB\nMemFree: 1 kB\n")
	require.True(t, ok)
	require.EqualValues(t, 2048, total)
}
