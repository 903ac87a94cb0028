package site

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// newDisks are three core nodes that all have these replicas.
func newDisks(t *testing.T, replicas ...string) *Site {
	s := &Site{}
	for _, name := range []string{"core-1", "core-2", "core-3"} {
		n := &node{name: name, role: "core", disk: t.TempDir()}
		s.nodes = append(s.nodes, n)
		for _, r := range replicas {
			write(t, filepath.Join(n.data(), "blocks", r), "content")
		}
	}
	return s
}

func write(t *testing.T, dir, content string) {
	require.NoError(t, os.MkdirAll(dir, 0o755))
	for _, file := range replicaFiles {
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600))
	}
}

// TestABlockIsNeverDamagedEverywhere: however often nodes are struck, one whole replica of each block stays.
func TestABlockIsNeverDamagedEverywhere(t *testing.T) {
	for roll := range uint64(40) {
		s := newDisks(t, "blocks/01/b-1.1", "blocks/02/b-2.5")
		for i := range 12 {
			_, err := s.damageBlocks(s.nodes[i%3], roll*100+uint64(i))
			if err != nil {
				require.ErrorIs(t, err, ErrNothing)
			}
		}
		for _, r := range []string{"blocks/01/b-1.1", "blocks/02/b-2.5"} {
			whole := 0
			for _, n := range s.nodes {
				data, _ := os.ReadFile(filepath.Join(n.data(), "blocks", r, "data"))
				sums, _ := os.ReadFile(filepath.Join(n.data(), "blocks", r, "sums"))
				if string(data) == "content" && string(sums) == "content" {
					whole++
				}
			}
			require.Positive(t, whole, "%s, roll %d", r, roll)
		}
	}
}

// TestWhatIsReplacedIsSpoiltNoMore: a new file in its place, or none.
func TestWhatIsReplacedIsSpoiltNoMore(t *testing.T) {
	s := newDisks(t, "blocks/01/b-1.1")
	for roll := uint64(1); len(s.Spoilt()) == 0; roll++ { // until one is not removed whole
		_, err := s.damageBlocks(s.nodes[0], roll)
		require.NoError(t, err)
		dir := filepath.Join(s.nodes[0].data(), "blocks", "blocks", "01", "b-1.1")
		if _, err := os.Stat(dir); err != nil {
			require.Empty(t, s.Spoilt())
			write(t, dir, "content")
		}
	}
	require.Equal(t, []string{"b-1"}, s.Spoilt())
	dir := filepath.Join(s.nodes[0].data(), "blocks", "blocks", "01", "b-1.1")
	require.NoError(t, os.Rename(dir, dir+".old"))
	write(t, dir, "content")
	require.Empty(t, s.Spoilt())
}

// TestOnlyWhatOthersHaveIsWiped, and what is unfinished counts for nothing.
func TestOnlyWhatOthersHaveIsWiped(t *testing.T) {
	s := newDisks(t, "blocks/01/b-1.1", "writing/b-3.1")
	only := filepath.Join(s.nodes[0].data(), "blocks", "blocks", "03", "b-3.1")
	write(t, only, "content")
	_, _, err := s.wipeSafely(s.nodes[0], blocksDir)
	require.ErrorIs(t, err, ErrNothing)
	require.ErrorContains(t, err, "core-1 alone has b-3 whole")
	_, _, err = s.wipeSafely(s.nodes[1], blocksDir)
	require.NoError(t, err)
	require.NoDirExists(t, filepath.Join(s.nodes[1].data(), "blocks"))
	lie, err := s.Replicas()
	require.NoError(t, err)
	require.Len(t, lie, 5)
}
