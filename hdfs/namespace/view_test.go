package namespace

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Any number of goroutines may read a tree while commands are applied to it: under the race detector this would tell.
func TestReadersWhileCommandsAreApplied(t *testing.T) {
	b := everything(t)
	for i := range 500 {
		b.write(fmt.Sprintf("/many/%03d", i), 1)
	}
	var readers sync.WaitGroup
	for i := range 40 {
		view, was := b.Tree, whole(b.Tree)
		readers.Go(func() {
			for range 3 {
				if whole(view) != was {
					t.Error("a tree has changed")
				}
				_, _ = view.Stat("/many/007")
				_, _ = view.List("/many", "1", 10)
				_, _ = view.Usage("/")
				for block := range view.Blocks(0) {
					_, _ = view.Block(block.ID)
				}
			}
		})
		b.do(Remove{Path: fmt.Sprintf("/many/%03d", 7*i)})
		b.write(fmt.Sprintf("/more/%03d", i), 1)
		b.do(SetReplication{Path: "/many/003", Replication: i + 1})
		b.do(Rename{From: "/many/001", To: fmt.Sprintf("/moved/%03d", i), At: t0})
		b.do(Rename{From: fmt.Sprintf("/moved/%03d", i), To: "/many/001", At: t0})
	}
	readers.Wait()
}

// What the views say of what is not there.
func TestNothingThere(t *testing.T) {
	b := newBench(t)
	_, known := b.Block(1)
	require.False(t, known)
	_, known = b.Hidden(rootID)
	require.False(t, known)
	require.Empty(t, b.FileBlocks(9))
	require.Empty(t, b.Uploads("g"))
	require.False(t, b.Published("g"))
	root, err := b.Stat("/")
	require.NoError(t, err)
	require.True(t, root.Directory)
	require.Equal(t, rootID, root.ID)
}
