package hdfs

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheBlockSizeOfAFileOfKnownSize(t *testing.T) {
	const unknown, mib = -1, 1 << 20
	for _, c := range []struct{ size, usual, want int64 }{
		{unknown, 0, DefaultBlockSize},
		{unknown, mib, mib},
		{0, 0, ChunkSize},
		{1, 0, ChunkSize},
		{ChunkSize, 0, ChunkSize},
		{ChunkSize + 1, 0, 2 * ChunkSize},
		{DefaultBlockSize - 1, 0, DefaultBlockSize},
		{DefaultBlockSize, 0, DefaultBlockSize},
		{DefaultBlockSize + 1, 0, DefaultBlockSize},
		{1, mib, ChunkSize},
		{mib + 1, mib, mib},
		{5, 3, 3}, // not what a name space takes, and for it to say
	} {
		require.Equal(t, c.want, BlockSizeFor(c.size, c.usual), "%+v", c)
	}
}
