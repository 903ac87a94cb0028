package tracker

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"millrace/master/state"
)

// wind takes a failing or cancelled job down: nothing of it runs, nothing of
// it is left in the store, then it has ended.
func (t *Tracker) wind(j *job) {
	if j.quit != nil && j.busy != "clean" {
		j.quit()
	}
	if j.lastBatch != nil {
		j.lastBatch()
	}
	held := j.held
	j.held = nil
	for _, f := range held {
		f()
	}
	for _, a := range j.live {
		t.kill(a, j.rec.Reason)
	}
	switch {
	case j.busy != "" || j.creating > 0 || len(j.live) > 0:
		return // each of them comes back
	case j.inherited && !t.returned(j.rec.Cluster):
		return // a node may come back with attempts
	}
	w := t.cleanWork(j)
	if err := t.open(j); err != nil {
		j.note(t.cfg.Now(), err)
		if len(w.uploads) > 0 || w.committing || w.uncertain {
			j.busy = "wait for the store"
			t.after(time.Second, func() { j.busy = ""; t.touch(j) })
			return
		}
	}
	t.step(j, "clean", func(ctx context.Context) func() {
		var err error
		if j.committer != nil {
			err = j.committer.clean(ctx, w)
		}
		return func() {
			if err != nil {
				if errors.Is(err, context.Canceled) {
					return
				}
				j.log.Warn("the object store could not be cleaned up after the job", zap.Error(err))
			}
			t.endJob(j, leftBehind(err))
		}
	})
}

// leftBehind says for people what a clean-up could not remove.
func leftBehind(err error) string {
	if err == nil {
		return ""
	}
	return "the store did not let it be cleaned up: " + oneLine(err)
}

func oneLine(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	if len(text) > maxLeft {
		text = strings.ToValidUTF8(text[:maxLeft], "") + "…"
	}
	return text
}

// maxLeft bounds what an entry of the log says of it, in bytes.
const maxLeft = 1 << 10

func (t *Tracker) endJob(j *job, left string) {
	j.busy = "end"
	t.propose(j.id, state.EndJob{Job: j.id, At: t.cfg.Now(), Left: left, Retries: j.ownRetries()}, func(_ any, err error) {
		j.busy = ""
		if err != nil {
			j.log.Warn("end refused", zap.Error(err))
		}
		t.touch(j)
	})
}

// cleanWork is all that a clean-up needs to know.
type cleanWork struct {
	rec        *state.Job
	uploads    []upload
	parts      []commitPart // of the whole output, made or not
	uncertain  bool         // there may be uploads that are not in the log
	committing bool         // there may be objects
}

func (t *Tracker) cleanWork(j *job) cleanWork {
	w := cleanWork{rec: j.rec, uploads: slices.Clone(j.unlogged)}
	for _, u := range t.cfg.View().Uploads(j.id) {
		w.uploads = append(w.uploads, upload{id: u.ID, key: u.Key})
	}
	if j.rec.Planned() {
		w.uncertain, w.committing = j.uncertain, j.rec.Phase == state.PhaseCommitting
		for _, k := range j.outputs() {
			w.parts = append(w.parts, commitPart{task: k.id, key: j.partKey(k.id.Index)})
		}
	}
	return w
}
