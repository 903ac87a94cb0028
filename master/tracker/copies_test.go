package tracker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/jobs"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/objectcopy"
)

// copy is what a task of distcp does.
func (w *world) copy(l *api.Lease, res *api.AttemptResult) error {
	for _, p := range l.Split.Pieces {
		if err := w.copyFile(p.Key, l.Output.Bucket, l.Output.Key+p.Name); err != nil {
			return err
		}
		res.OutputRecords++
		res.OutputBytes += p.ObjectSize
	}
	return nil
}

func (w *world) copyFile(from, bucket, key string) error {
	text := w.read(from)
	if strings.HasPrefix(bucket, "hdfs://") {
		w.files.Write(bucket+"/"+key, text)
		return nil
	}
	if w.loses == nil || !w.loses(key) {
		w.put(key, text)
	}
	return nil
}

// submitCopy logs a job that copies ten files, in tasks of two.
func (w *world) submitCopy(output string) {
	for i := range 10 {
		w.put(fmt.Sprintf("in/_%d", i), fmt.Sprintf("file %d", i))
	}
	w.submit(1, 0, func(j *state.Job, spec *api.JobSpec) {
		spec.Program.Name, spec.InputFormat, spec.OutputFormat = jobs.Distcp, jobs.FormatFiles, jobs.FormatFiles
		spec.SplitSize, spec.Output, j.Output, j.Program = 12, output, output, jobs.Distcp
		_ = w.mem.Delete(w.t.Context(), "data", "in/text")
	})
}

// copiedAll checks that all files are there, and nothing else.
func (w *world) copiedAll(output string) {
	w.t.Helper()
	j := w.job()
	require.Equal(w.t, state.JobCompleted, j.State, j.Reason)
	require.Equal(w.t, []int64{10, 60, 0}, []int64{j.OutputRecords, j.OutputBytes, int64(j.Parts)})
	for i := range 10 {
		name, want := fmt.Sprintf("_%d", i), fmt.Sprintf("file %d", i)
		if strings.HasPrefix(output, "hdfs://") {
			got, _ := w.files.Read(output + name)
			require.Equal(w.t, want, got)
		} else {
			require.Equal(w.t, want, w.read("out/"+name))
		}
	}
	require.Len(w.t, append(w.files.Names(""), w.keys("out/")...), 10, "no _SUCCESS and no parts")
}

// Whole files are copied, whoever dies meanwhile.
func TestCopies(t *testing.T) {
	for _, output := range []string{"s3://data/out/", filesOut} {
		for _, dies := range []string{"nobody", "the leader", "a worker"} {
			t.Run(output+" "+dies, func(t *testing.T) {
				inWorld(t, func(t *testing.T, w *world) {
					a := w.join("i-a", state.RoleCore, 1)
					w.join("i-b", state.RoleCore, 1)
					w.lead()
					w.submitCopy(output)
					w.until("a task is done", func() bool { return w.job().MapsDone > 0 })
					switch dies {
					case "the leader":
						w.depose()
						w.lead()
					case "a worker":
						a.die(false)
						time.Sleep(time.Minute)
						a.reconnect()
					}
					w.await()
					w.copiedAll(output)
					require.Equal(t, 5, w.job().Maps)
				})
			})
		}
	}
}

// A file that is not there in the end is copied again; one that never is fails the job, and what is there stays.
func TestAFileIsMissingInTheEnd(t *testing.T) {
	for _, often := range []int{1, 100} {
		inWorld(t, func(t *testing.T, w *world) {
			k := w.join("i-a", state.RoleCore, 2)
			times := 0
			k.play = func(l *api.Lease) *api.Failure {
				w.mu.Lock()
				defer w.mu.Unlock()
				if l.Index == 2 {
					times++
				}
				return nil
			}
			w.loses = func(key string) bool { return key == "out/_5" && times <= often }
			w.lead()
			w.submitCopy("s3://data/out/")
			w.await()
			if often == 1 {
				w.copiedAll("s3://data/out/")
				require.Equal(t, 2, times)
				return
			}
			require.Equal(t, state.JobFailed, w.job().State)
			require.Contains(t, w.job().Reason, "lost the output of task 2 again and again")
			require.Len(t, w.keys("out/"), 9)
		})
	}
}

// What a killed attempt has begun of a big file is aborted, whether the job fails or not.
func TestUnfinishedUploadsOfCopies(t *testing.T) {
	for _, fails := range []bool{false, true} {
		inWorld(t, func(t *testing.T, w *world) {
			k := w.join("i-a", state.RoleCore, 1)
			first := true
			k.play = func(l *api.Lease) *api.Failure {
				if !first && !fails {
					return nil
				}
				first = false
				_, err := w.mem.CreateUpload(t.Context(), "data", "out/big", nil)
				require.NoError(t, err)
				return &api.Failure{Kind: api.FailureKind_FAILURE_KIND_PROGRAM, Message: "it was killed"}
			}
			w.put("in/big", strings.Repeat("x", objectcopy.Small+1))
			w.lead()
			w.submit(1, 0, func(j *state.Job, spec *api.JobSpec) {
				spec.Program.Name, spec.InputFormat, spec.OutputFormat, j.Program = jobs.Distcp, jobs.FormatFiles, jobs.FormatFiles, jobs.Distcp
				_ = w.mem.Delete(w.t.Context(), "data", "in/text")
			})
			w.await()
			require.Equal(t, fails, w.job().State == state.JobFailed, w.job().Reason)
			w.noUploads()
		})
	}
}
