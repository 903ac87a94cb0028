package history

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
)

func TestJobsMoveWhole(t *testing.T) {
	w := newWorld(t)
	for n := range 25 {
		w.ended(n)
	}
	require.NoError(t, w.keeper(10, 0).Round(t.Context()))
	require.Equal(t, 10, w.inState())
	require.Equal(t, 15, w.inHistory())
	w.whole()
	for _, j := range w.state.View().EndedJobs() {
		require.GreaterOrEqual(t, j.ID, "s-015", "those that ended last stay")
	}

	before := w.keys()
	require.NoError(t, w.keeper(10, 0).Round(t.Context()))
	require.Equal(t, before, w.keys(), "there is nothing left to do")
}

func TestJobsThatRunStay(t *testing.T) {
	w := newWorld(t)
	w.ended(1)
	w.ended(2)
	v := w.state.View()
	require.NoError(t, w.keeper(0, 0).Round(t.Context()))
	require.Equal(t, 2, w.inHistory())
	require.Len(t, v.Jobs(""), 2, "a view from before keeps them")
}

// TestWhateverBreaksOff: each request to the store and each entry in turn fails, or is carried out and its
// answer is lost; then another leader goes on.
func TestWhateverBreaksOff(t *testing.T) {
	const keep = 2
	for name, inject := range map[string]func(w *world, f func() error){
		"the store refuses":          func(w *world, f func() error) { w.store.Fault = func(_, _, _ string) error { return f() } },
		"the store's answer is lost": func(w *world, f func() error) { w.store.Lost = func(_, _, _ string) error { return f() } },
		"the log refuses":            func(w *world, f func() error) { w.refuse = f },
		"the log's answer is lost":   func(w *world, f func() error) { w.lost = f },
	} {
		t.Run(name, func(t *testing.T) {
			for n := 0; ; n++ {
				w := newWorld(t)
				for i := 1; i <= 6; i++ {
					w.ended(i)
				}
				var failed atomic.Bool
				fault := nth(n, &failed)
				round := func() {
					t.Helper()
					inject(w, fault)
					err := w.keeper(keep, time.Hour).Round(t.Context())
					w.store.Fault, w.store.Lost, w.refuse, w.lost = nil, nil, nil, nil
					w.whole()
					if err != nil {
						require.ErrorIs(t, err, errBroken)
						require.NoError(t, w.keeper(keep, time.Hour).Round(t.Context()))
						w.whole()
					}
				}
				round() // four of six move
				require.Equal(t, keep, w.inState())
				require.Equal(t, 4, w.inHistory())

				w.now = t0.Add(time.Hour + 2500*time.Millisecond) // two of four are too old
				delete(w.was, "s-001")
				delete(w.was, "s-002")
				round()
				require.Equal(t, 2, w.inHistory())
				for _, key := range w.keys() {
					require.NotContains(t, key, "s-001")
					require.NotContains(t, key, "s-002")
				}
				if !failed.Load() {
					require.Greater(t, n, 1)
					return // n is past the last request
				}
			}
		})
	}
}

func TestNothingMovesWhileAMasterIsOlder(t *testing.T) {
	w := newWorld(t)
	w.ended(1)
	w.old = true
	k := w.keeper(0, 0)
	require.ErrorIs(t, k.Round(t.Context()), errUnknown)
	require.Empty(t, w.keys())
	w.old = false
	require.NoError(t, k.Round(t.Context()))
	require.Equal(t, 1, w.inHistory())
}

func TestAnOldJobGoesWithAllThatIsItsOwn(t *testing.T) {
	w := newWorld(t)
	for n := 1; n <= 250; n++ { // more than one entry's
		w.ended(n)
	}
	for _, job := range []string{"s-001", "s-250"} {
		w.put(prefix + "plans/" + job + "-digest.plan")
		w.put(prefix + "logs/" + job + "/" + job + "-m-0.log")
	}
	others := []string{prefix + "programs/abc", prefix + "logs/s-0010/x.log", "logs/s-001/of-another-site.log", "history/s-001.json.zst"}
	for _, key := range others {
		w.put(key)
	}
	require.NoError(t, w.keeper(0, 24*time.Hour).Round(t.Context()))
	require.Equal(t, 250, w.inHistory())

	w.now = w.now.Add(365 * 24 * time.Hour)
	require.NoError(t, w.keeper(0, 0).Round(t.Context()))
	require.Equal(t, 250, w.inHistory(), "a retention of 0 keeps all")

	require.NoError(t, w.keeper(0, 24*time.Hour).Round(t.Context()))
	require.Zero(t, w.inHistory())
	slices.Sort(others)
	require.Equal(t, others, w.keys())
}

func TestPagesThatNobodyNamesAreSwept(t *testing.T) {
	w := newWorld(t)
	w.ended(1)
	w.refuse = func() error { return errBroken }
	require.ErrorIs(t, w.keeper(0, 0).Round(t.Context()), errBroken)
	w.refuse = nil
	w.ended(2) // the page of both is another one
	require.NoError(t, w.keeper(0, 0).Round(t.Context()))
	require.Len(t, pagesOf(w), 2, "it may be a leader's who is about to log it")

	w.now = time.Now().Add(2 * time.Hour) // as the store counts
	require.NoError(t, w.keeper(0, 0).Round(t.Context()))
	require.Len(t, pagesOf(w), 1)
	w.whole()
}

func pagesOf(w *world) []string {
	return slices.DeleteFunc(w.keys(), func(k string) bool { return !strings.HasPrefix(k, prefix+pages) })
}

func TestANewSiteHasNoBucketYet(t *testing.T) {
	w := newWorld(t)
	require.NoError(t, w.store.RemoveBucket(t.Context(), bucket))
	require.NoError(t, w.keeper(0, time.Hour).Round(t.Context()))
}

// TestRunMovesWhatEnds: soon after it ended, and again after trouble with the store.
func TestRunMovesWhatEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		k := w.keeper(0, 0)
		go func() { k.Run(ctx); close(done) }()
		synctest.Wait()
		time.Sleep(10 * time.Minute)
		w.ended(1)
		time.Sleep(2 * restPause)
		require.Equal(t, 1, w.inHistory())

		var away atomic.Bool
		away.Store(true)
		w.store.Fault = func(_, _, _ string) error {
			if away.Load() {
				return objectstore.ErrUnreachable
			}
			return nil
		}
		w.ended(2)
		time.Sleep(time.Minute)
		require.Equal(t, 1, w.inHistory())
		require.Equal(t, 1, w.inState())
		away.Store(false)
		time.Sleep(2 * troublePause)
		require.Equal(t, 2, w.inHistory())
		cancel()
		<-done
		w.whole()
	})
}

func TestARecordThatIsNotThereOrNotWhole(t *testing.T) {
	w := newWorld(t)
	w.ended(1)
	require.NoError(t, w.keeper(0, 0).Round(t.Context()))
	p := w.place()
	key := p.recordKey("s-001")
	body, err := w.store.Get(t.Context(), bucket, key, 0, -1, "")
	require.NoError(t, err)
	z, err := zstd.NewReader(body)
	require.NoError(t, err)
	text, err := io.ReadAll(z)
	require.NoError(t, err)
	lines := strings.SplitAfter(string(text), "\n")

	for name, c := range map[string]struct {
		text string
		says string
	}{
		"cut":                     {strings.Join(lines[:3], ""), "damaged"},
		"a line is missing":       {lines[0] + lines[1] + lines[3] + lines[4], "damaged: 2 lines of 3"},
		"of another kind":         {"{\"millrace\":\"snapshot\"}\n", "damaged"},
		"no JSON":                 {"nonsense", "damaged"},
		"an empty line":           {lines[0] + "{}\n", "damaged: line 1"},
		"of another job":          {strings.ReplaceAll(string(text), "s-001", "s-002"), "not of job s-001"},
		"of a newer master":       {strings.Replace(string(text), `"version":1`, `"version":2`, 1), "version 2, this master reads up to 1"},
		"with a field of a newer": {strings.Replace(string(text), `{"job":{`, `{"job":{"mood":"good",`, 1), ""},
	} {
		t.Run(name, func(t *testing.T) {
			var data bytes.Buffer
			z, err := zstd.NewWriter(&data)
			require.NoError(t, err)
			_, err = z.Write([]byte(c.text))
			require.NoError(t, errors.Join(err, z.Close()))
			require.NoError(t, p.put(t.Context(), key, data.Bytes()))
			_, err = p.Record(t.Context(), "s-001")
			if c.says == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.says)
			require.ErrorContains(t, err, "s3://system/here/history/s-001.json.zst")
		})
	}
	require.NoError(t, p.put(t.Context(), key, []byte("no zstd at all")))
	_, err = p.Record(t.Context(), "s-001")
	require.ErrorIs(t, err, errDamaged)

	require.NoError(t, w.store.Delete(t.Context(), bucket, key))
	_, err = p.Record(t.Context(), "s-001")
	require.ErrorIs(t, err, ErrGone)
	_, err = p.Job(t.Context(), "s-001")
	require.ErrorIs(t, err, ErrGone)
	_, err = p.Page(t.Context(), "none")
	require.ErrorIs(t, err, ErrGone)
}

func FuzzDecode(f *testing.F) {
	var data bytes.Buffer
	if err := encode(&data, func(func(line) bool) {}); err != nil {
		f.Fatal(err)
	}
	f.Add(data.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = decode(bytes.NewReader(data), func(l line) bool { return l.Job != nil || l.Task != nil })
	})
}

// A master whose clock is far from the store's deletes nothing for its age.
func TestAClockThatIsWrongDeletesNothing(t *testing.T) {
	w := newWorld(t)
	for n := range 5 {
		w.ended(n)
	}
	require.NoError(t, w.keeper(1, time.Hour).Round(t.Context()))
	require.Equal(t, 4, w.inHistory())
	w.now, w.ahead = t0.Add(1000*time.Hour), -999*time.Hour
	require.ErrorContains(t, w.keeper(1, time.Hour).Round(t.Context()), "999h0m0s apart: nothing is deleted")
	require.Equal(t, 4, w.inHistory())
	w.whole()
	w.ahead = time.Hour
	clear(w.was)
	require.NoError(t, w.keeper(1, time.Hour).Round(t.Context()))
	require.Zero(t, w.inHistory())

	before := time.Now().Add(-time.Minute)
	now, err := storeNow(t.Context(), Place{Store: w.store, Bucket: bucket, Prefix: prefix})
	require.NoError(t, err)
	require.True(t, now.After(before))
}

// An object that cannot be deleted keeps no other job from being deleted, and is said.
func TestOneThatStaysKeepsNoOther(t *testing.T) {
	w := newWorld(t)
	for n := range 5 {
		w.ended(n)
	}
	require.NoError(t, w.keeper(1, time.Hour).Round(t.Context()))
	w.now = t0.Add(1000 * time.Hour)
	w.store.Fault = func(op, _, key string) error {
		if op == "Delete" && strings.Contains(key, "s-001") {
			return objectstore.ErrDenied
		}
		return nil
	}
	err := w.keeper(1, time.Hour).Round(t.Context())
	require.ErrorContains(t, err, "of the jobs in the history that are too old 1 cannot be deleted")
	require.ErrorIs(t, err, objectstore.ErrDenied)
	require.Equal(t, 1, w.inHistory())
	w.store.Fault = nil
	require.NoError(t, w.keeper(1, time.Hour).Round(t.Context()))
	require.Zero(t, w.inHistory())
}
