package engine

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"millrace/pkg/record"
)

// Records wait a little before they go into the hash table. Nobody can tell:
// each is folded once, in order of arrival, whatever its length.
func TestPendingRecordsAreFoldedInOrder(t *testing.T) {
	concat := func(acc, value []byte) []byte { return append(acc, value...) }
	rapid.Check(t, func(r *rapid.T) {
		c, err := NewCollector(Config{Partitions: 3, Memory: 8 << 20, Fold: concat})
		require.NoError(r, err)
		defer c.Close()
		for range rapid.IntRange(1, 2).Draw(r, "outputs") { // a Collector is used again
			n := rapid.IntRange(0, 3*pendingRecords).Draw(r, "records")
			want := map[string]string{}
			for i := range n {
				p := rapid.IntRange(0, 2).Draw(r, "partition")
				key := rapid.SampledFrom([]string{"", "a", "b", "key"}).Draw(r, "key")
				size := rapid.SampledFrom([]int{0, 1, 10, pendingBytes / 3, pendingBytes, pendingBytes + 1}).Draw(r, "size")
				value := strings.Repeat(fmt.Sprint(i%10), size)
				require.NoError(r, c.Collect(p, []byte(key), []byte(value)))
				want[fmt.Sprint(p, key)] += value
			}
			var out bytes.Buffer
			index, err := c.Finish(t.Context(), &out)
			require.NoError(r, err)
			require.EqualValues(r, n, c.Stats().CombineInputRecords)
			got := map[string]string{}
			for p, x := range index.Partitions {
				run := record.NewPartitionReader(bytes.NewReader(out.Bytes()), p, x)
				for key, value, err := run.Next(); err == nil; key, value, err = run.Next() {
					got[fmt.Sprint(p, string(key))] = string(value)
				}
			}
			require.Equal(r, want, got)
		}
	})
}

// What a pending record does wrong comes out at Finish at the latest.
func TestAPendingRecordsErrorIsNotLost(t *testing.T) {
	disk := &pendingDisk{}
	c, err := NewCollector(Config{Partitions: 1, Memory: minMemory, Fold: func(acc, _ []byte) []byte { return acc }, disk: disk})
	require.NoError(t, err)
	for i := range pendingRecords {
		require.NoError(t, c.Collect(0, bytes.Repeat([]byte{byte(i)}, 100), nil))
	}
	_, err = c.Finish(t.Context(), &bytes.Buffer{})
	require.ErrorIs(t, err, errPendingDisk)
	require.ErrorIs(t, c.Collect(0, []byte("x"), nil), errPendingDisk, "it stays")
	require.NoError(t, c.Close())
}

var errPendingDisk = fmt.Errorf("no disk today")

type pendingDisk struct{ osDisk }

func (*pendingDisk) create(string) (file, error) { return nil, errPendingDisk }

func TestLargePagesAreAskedForWhereThereIsRoom(t *testing.T) {
	mem := make([]byte, 9<<20)
	for _, n := range []int{0, 1, 4096, 2<<20 - 1, 2 << 20, 4<<20 + 1, len(mem)} {
		for _, skip := range []int{0, 1, 16, 4096} {
			part := mem[min(skip, n):n]
			preferHugePages(part)
			for i := range part {
				part[i] = 7
			}
		}
	}
	require.Equal(t, bytes.Repeat([]byte{7}, len(mem)), mem)
}
