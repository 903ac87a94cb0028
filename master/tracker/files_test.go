package tracker

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
	"millrace/pkg/objectstore/objectstoretest"
)

const filesOut = "hdfs://j-1/out/"

// filesSettings adds to jobs that write to an object store the same ones that write to a block store.
func filesSettings(list map[string]setting) map[string]setting {
	all := map[string]setting{}
	for name, s := range list {
		all[name] = s
		f := s
		f.change = func(j *state.Job, spec *api.JobSpec) {
			if s.change != nil {
				s.change(j, spec)
			}
			j.Output, spec.Output = filesOut, "hdfs:///out/"
		}
		f.prepare = func(w *world) {
			if s.prepare == nil {
				return
			}
			for _, name := range []string{"_SUCCESS", "part-r-00001", "part-r-00002", "deeper/x"} {
				w.files.Write(filesOut+name, "old")
			}
		}
		f.check = func(w *world) {
			j := w.job()
			switch {
			case strings.HasPrefix(name, "a failing"):
				require.Equal(w.t, state.JobFailed, j.State, j.Reason)
				w.noFiles()
			case strings.HasPrefix(name, "cancelled") && j.State != state.JobCompleted:
				require.Equal(w.t, state.JobCancelled, j.State, j.Reason)
				w.noFiles()
			default:
				w.filesCommitted()
			}
		}
		all[name+" in hdfs"] = f
	}
	return all
}

// upload is an attempt's: whole, and sealed where that is the way.
func (w *world) upload(to *api.Output, text string) error {
	ctx := context.Background()
	if !objectstore.IsHDFS(to.Bucket) {
		_, err := w.mem.UploadPart(ctx, to.Bucket, to.Key, to.UploadId, 1, []byte(text))
		return err
	}
	if _, err := w.files.UploadPart(ctx, to.Bucket, to.Key, to.UploadId, 1, []byte(text)); err != nil {
		return err
	}
	return w.files.SealUpload(ctx, to.Bucket, to.Key, to.UploadId)
}

// filesCommitted checks the whole output set in the block store: exactly once each, and nothing else.
func (w *world) filesCommitted() Success {
	w.t.Helper()
	j := w.job()
	require.Equal(w.t, state.JobCompleted, j.State, j.Reason)
	text, _ := w.files.Read(filesOut + "_SUCCESS")
	var s Success
	require.NoError(w.t, json.Unmarshal([]byte(text), &s))
	n, kind := j.Reduces, state.Reduce
	if j.MapOnly() {
		n, kind = j.Maps, state.Map
	}
	require.Len(w.t, s.Parts, n)
	want := []string{filesOut + "_SUCCESS"}
	for i, p := range s.Parts {
		require.Equal(w.t, fmt.Sprintf("out/part-%s-%05d", kind, i), p.Key)
		head, err := w.files.Head(w.t.Context(), "hdfs://j-1", p.Key)
		require.NoError(w.t, err)
		require.Equal(w.t, head.ETag, p.ETag)
		require.Equal(w.t, head.Size, p.Size)
		text, _ := w.files.Read("hdfs://j-1/" + p.Key)
		require.Equal(w.t, partText(kind, i, j.Maps), text)
		want = append(want, "hdfs://j-1/"+p.Key)
	}
	slices.Sort(want)
	require.Equal(w.t, want, w.files.Names(""))
	require.Empty(w.t, w.files.Hidden(""))
	require.Equal(w.t, n, j.Parts)
	return s
}

// noFiles checks that a job left nothing in the block store.
func (w *world) noFiles() {
	w.t.Helper()
	require.Empty(w.t, w.files.Names(""))
	require.Empty(w.t, w.files.Hidden(""))
}

// leaderFiles is the block store as a leader sees it.
type leaderFiles struct {
	*objectstoretest.Files
	l *leader
}

func (s *leaderFiles) around(name string, f func() error) error {
	if s.l.w.deny != nil {
		if err := s.l.w.deny(name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	err := s.l.around(name, f)
	if name != "DeleteIf" { // what a commit that failed had shown goes file by file
		s.l.w.wholeOrNothing()
	}
	if err == nil && s.l.w.mute != nil && s.l.w.mute(name) {
		return fmt.Errorf("%s: %w", name, objectstore.ErrUnreachable)
	}
	return err
}

// wholeOrNothing: at no moment is a part of an output to be seen without all others, or beside an older one.
func (w *world) wholeOrNothing() {
	text, there := w.files.Read(filesOut + "_SUCCESS")
	names := w.files.Names(filesOut)
	switch {
	case slices.Contains(names, filesOut+"somebody"): // to whom none of this applies
	case !there && len(names) > 0:
		w.t.Errorf("parts without _SUCCESS: %v", names)
	case text == "old" && len(names) != 4:
		w.t.Errorf("something of the old set is not there, or more than that: %v", names)
	case there && text != "old":
		var s Success
		if err := json.Unmarshal([]byte(text), &s); err != nil || len(s.Parts)+1 != len(names) {
			w.t.Errorf("_SUCCESS says %s, and there are %v", text, names)
		}
	}
}

func (s *leaderFiles) Head(ctx context.Context, b, k string) (o objectstore.Object, err error) {
	err = s.around("Head", func() (err error) { o, err = s.Files.Head(ctx, b, k); return err })
	return o, err
}

func (s *leaderFiles) Get(ctx context.Context, b, k string, off, n int64, m string) (r io.ReadCloser, err error) {
	err = s.around("Get", func() (err error) { r, err = s.Files.Get(ctx, b, k, off, n, m); return err })
	return r, err
}

func (s *leaderFiles) CreateUpload(ctx context.Context, b, k string, m map[string]string) (id string, err error) {
	err = s.around("CreateUpload", func() (err error) { id, err = s.Files.CreateUpload(ctx, b, k, m); return err })
	return id, err
}

func (s *leaderFiles) UploadPart(ctx context.Context, b, k, id string, n int, data []byte) (p objectstore.Part, err error) {
	err = s.around("UploadPart", func() (err error) { p, err = s.Files.UploadPart(ctx, b, k, id, n, data); return err })
	return p, err
}

func (s *leaderFiles) SealUpload(ctx context.Context, b, k, id string) error {
	return s.around("SealUpload", func() error { return s.Files.SealUpload(ctx, b, k, id) })
}

func (s *leaderFiles) DeleteIf(ctx context.Context, b, k, etag string) error {
	return s.around("DeleteIf", func() error { return s.Files.DeleteIf(ctx, b, k, etag) })
}

func (s *leaderFiles) Hidden(_ context.Context, _, group string) (list []Hidden, err error) {
	err = s.around("Hidden", func() error {
		for _, h := range s.Files.Hidden(group) {
			list = append(list, Hidden{ID: h.ID, Key: h.Key, Size: int64(len(h.Data)), Sealed: h.Sealed, ETag: h.ID})
		}
		return nil
	})
	return list, err
}

func (s *leaderFiles) Abort(_ context.Context, _, group string, ids ...string) error {
	return s.around("Abort", func() error { s.Files.Abort(group, ids...); return nil })
}

func (s *leaderFiles) Publish(_ context.Context, bucket, group, prefix string, count int, replace bool, at time.Time) error {
	return s.around("Publish", func() error { return s.Files.Publish(bucket, group, prefix, count, replace, at) })
}

// filesJob has a job write to the block store.
func filesJob(j *state.Job, spec *api.JobSpec) { j.Output, spec.Output = filesOut, "hdfs:///out/" }

// What has come to lie there meanwhile is not mixed with the output, nor replaced.
func TestFilesThatCameInBetween(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.join("i-a", state.RoleCore, 2)
		w.files.Write(filesOut+"somebody", "else's") // the check at submit saw nothing yet
		w.lead()
		w.submit(2, 2, filesJob)
		j := w.await()
		require.Equal(t, state.JobFailed, j.State)
		require.Contains(t, j.Reason, "output hdfs://j-1/out/ is not empty any more")
		require.Equal(t, []string{filesOut + "somebody"}, w.files.Names(""))
		require.Empty(t, w.files.Hidden(""))
	})
}

// An upload that is gone, or not what the attempt said, is made again.
func TestFilesThatAreLost(t *testing.T) {
	for name, spoil := range map[string]func(w *world, id string){
		"gone":  func(w *world, id string) { w.files.Abort(testJob, id) },
		"short": func(w *world, id string) { w.files.Truncate(id) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.join("i-a", state.RoleCore, 2)
				spoilt := false
				w.before = func(_ int, op string) bool {
					if op == "BeginCommit" && !spoilt {
						spoilt = true
						spoil(w, w.files.Hidden(testJob)[0].ID)
					}
					return false
				}
				w.lead()
				w.submit(2, 2, filesJob)
				w.await()
				require.True(t, spoilt)
				w.filesCommitted()
			})
		})
	}
}

// What an earlier leader, or a lost attempt, has left hidden does not get into the output, nor does it stay.
func TestStrayFiles(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.join("i-a", state.RoleCore, 2)
		strays := 0
		w.before = func(_ int, op string) bool {
			if op == "BeginCommit" || op == "Publish" && strays < 2 { // it comes in the midst of the commit, too
				strays++
				id, err := w.files.CreateUpload(t.Context(), "hdfs://j-1", "out/part-r-00001", metadata(testJob, state.TaskID{Kind: state.Reduce, Index: 1}))
				require.NoError(t, err)
				require.NoError(t, w.files.SealUpload(t.Context(), "hdfs://j-1", "out/part-r-00001", id))
			}
			return false
		}
		w.lead()
		w.submit(2, 2, filesJob)
		w.await()
		require.Equal(t, 2, strays)
		w.filesCommitted()
	})
}

// A commit that fails after it was carried out, though nobody knows, is taken back.
func TestPublishedButFailed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.join("i-a", state.RoleCore, 2)
		published := false
		w.mute = func(name string) bool {
			published = published || name == "Publish"
			return name == "Publish"
		}
		w.deny = func(name string) error {
			if published && name == "Hidden" {
				return objectstore.ErrDenied
			}
			return nil
		}
		w.lead()
		w.submit(2, 2, filesJob)
		require.Equal(t, state.JobFailed, w.await().State)
		require.True(t, published)
		w.noFiles()
	})
}
