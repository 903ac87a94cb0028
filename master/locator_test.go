package master

import (
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
)

func TestWhoHoldsARange(t *testing.T) {
	block := func(offset, size int64, nodes ...string) hdfs.Located {
		b := hdfs.Located{Block: hdfs.Block{Size: size}, Offset: offset}
		for _, n := range nodes {
			b.Nodes = append(b.Nodes, hdfs.Node{ID: n})
		}
		return b
	}
	blocks := []hdfs.Located{block(0, 100, "i-a", "i-b"), block(100, 100, "i-b", "i-c"), block(200, 50)}
	require.Equal(t, map[string]int64{"i-a": 10, "i-b": 110, "i-c": 100}, heldBy(blocks, 90, 130))
	require.Equal(t, map[string]int64{"i-b": 100, "i-c": 100}, heldBy(blocks, 100, 100))
	require.Empty(t, heldBy(nil, 0, 100))
}
