package site

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/cmd/chaos/schedule"
	"millrace/pkg/objectstore/faultproxy"
)

// TestEveryMoodOfTheStoreSpoilsSomething, and passes the rest.
func TestEveryMoodOfTheStoreSpoilsSomething(t *testing.T) {
	for _, kind := range []schedule.Kind{schedule.StoreSlow, schedule.StoreErrors, schedule.StoreLost, schedule.StoreLate, schedule.StoreTwice, schedule.StoreCuts, schedule.StoreHangs, schedule.StoreCommits} {
		t.Run(string(kind), func(t *testing.T) {
			m := moodOf(schedule.Fault{Kind: kind, Roll: 1}, make(chan struct{}))
			spoilt, passed := 0, 0
			for range 100 {
				for _, op := range []faultproxy.Op{faultproxy.Get, faultproxy.UploadPart, faultproxy.CompleteUpload} {
					f := m(faultproxy.Request{Op: op})
					if f.Before == nil && f.After == nil && f.Late == nil && f.Status == 0 && !f.ResetBefore && !f.ResetAfter && !f.Twice && f.CutAfter == 0 {
						passed++
					} else {
						spoilt++
					}
				}
			}
			require.NotZero(t, spoilt)
			require.NotZero(t, passed)
		})
	}
	require.Nil(t, moodOf(schedule.Fault{Kind: schedule.Kill}, nil))
}

// TestDamageIsDamage: a spoilt file is never what it was.
func TestDamageIsDamage(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	was := bytes.Repeat([]byte("segment"), 50)
	how := map[string]bool{}
	for range 50 {
		path := filepath.Join(t.TempDir(), "x.seg")
		require.NoError(t, os.WriteFile(path, was, 0o600))
		what, err := spoil(path, r)
		require.NoError(t, err)
		how[what[:3]] = true
		now, err := os.ReadFile(path)
		require.True(t, errors.Is(err, os.ErrNotExist) || !bytes.Equal(was, now), what)
	}
	require.Len(t, how, 3, "flipped, cut short, removed")
}

// TestWhatIsNotThereCannotBeDamaged: a node without segments, a folder without anything.
func TestWhatIsNotThereCannotBeDamaged(t *testing.T) {
	n := &node{name: "core-1", disk: t.TempDir()}
	_, err := n.damage(1)
	require.ErrorIs(t, err, ErrNothing)
	require.NoError(t, os.MkdirAll(filepath.Join(n.data(), "segments", "s-1"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(n.data(), "segments", "s-1", "a.seg"), []byte("x"), 0o600))
	what, err := n.damage(1)
	require.NoError(t, err)
	require.Contains(t, what, "a.seg")
	_, err = n.wipe("")
	require.NoError(t, err)
	require.NoDirExists(t, n.data())
}
