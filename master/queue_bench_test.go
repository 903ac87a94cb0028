package master

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// quietMaster is a master without a log, over a store that holds one line of input.
func quietMaster(b *testing.B) (*Master, *objectstore.Memory) {
	b.Helper()
	store := objectstore.NewMemory()
	c := testConfig(b, b.TempDir(), store)
	c.Log = zap.NewNop()
	m := openMaster(b, c)
	for _, bucket := range []string{"input", "out"} {
		require.NoError(b, store.MakeBucket(b.Context(), bucket))
	}
	_, err := store.Put(b.Context(), "input", "line", strings.NewReader("some text\n"), 10, objectstore.PutOptions{})
	require.NoError(b, err)
	return m, store
}

// BenchmarkQueue submits ten thousand jobs, eight at a time, to a site without workers, and lists them. What a submit
// takes must not grow with the queue.
func BenchmarkQueue(b *testing.B) {
	const jobs, measured, together = 10_000, 1_000, 8
	for b.Loop() {
		m, _ := quietMaster(b)
		api_ := admin(b, m).API()
		began := time.Now()
		took := make([]time.Duration, 0, jobs/measured)
		for from := 0; from < jobs; from += measured {
			var g errgroup.Group
			g.SetLimit(together)
			for i := from; i < from+measured; i++ {
				g.Go(func() error {
					_, err := api_.SubmitJob(b.Context(), connect.NewRequest(&api.SubmitJobRequest{Spec: &api.JobSpec{
						Program: &api.Program{Kind: api.ProgramKind_PROGRAM_KIND_BUILTIN, Name: "wordcount"},
						Input:   []string{"s3://input/line"}, Output: fmt.Sprintf("s3://out/%d/", i),
					}}))
					return err
				})
			}
			require.NoError(b, g.Wait())
			took = append(took, time.Since(began))
			began = time.Now()
		}
		perSubmit := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 / measured * together }
		b.ReportMetric(perSubmit(took[0]), "first-submit-ms")
		b.ReportMetric(perSubmit(took[len(took)-1]), "last-submit-ms")

		began = time.Now()
		planned := 0
		for planned < jobs {
			resp, err := api_.ListJobs(b.Context(), connect.NewRequest(&api.ListJobsRequest{}))
			require.NoError(b, err)
			planned = 0
			for _, j := range resp.Msg.Jobs {
				if j.PlannedAt != nil {
					planned++
				}
			}
		}
		b.ReportMetric(time.Since(began).Seconds(), "until-planned-s")
		measure := func(name string, f func() error) {
			began := time.Now()
			require.NoError(b, f())
			b.ReportMetric(float64(time.Since(began).Microseconds())/1000, name+"-ms")
		}
		measure("list", func() error {
			_, err := api_.ListJobs(b.Context(), connect.NewRequest(&api.ListJobsRequest{}))
			return err
		})
		measure("list-page", func() error {
			_, err := api_.ListJobs(b.Context(), connect.NewRequest(&api.ListJobsRequest{Limit: 100}))
			return err
		})
		measure("show", func() error {
			_, err := api_.GetJob(b.Context(), connect.NewRequest(&api.GetJobRequest{Job: "last"}))
			return err
		})
		measure("cluster", func() error {
			_, err := api_.GetCluster(b.Context(), connect.NewRequest(&api.GetClusterRequest{}))
			return err
		})
		measure("cancel", func() error {
			_, err := api_.CancelJob(b.Context(), connect.NewRequest(&api.CancelJobRequest{Job: "last"}))
			return err
		})
		runtime.GC()
		var mem runtime.MemStats
		runtime.ReadMemStats(&mem)
		b.ReportMetric(float64(mem.HeapAlloc)/1e6, "heap-MB")
	}
}

// BenchmarkManySplits plans a job of 200,000 splits on a site without workers, has all but one of its maps done as far as the log
// knows, and asks for it.
func BenchmarkManySplits(b *testing.B) {
	const maps, perEntry = 200_000, 128
	for b.Loop() {
		m, store := quietMaster(b)
		api_ := admin(b, m).API()
		text := strings.Repeat("some text\n", maps)
		_, err := store.Put(b.Context(), "input", "lines", strings.NewReader(text), int64(len(text)), objectstore.PutOptions{})
		require.NoError(b, err)
		measure := func(name string, f func() error) {
			began := time.Now()
			require.NoError(b, f())
			b.ReportMetric(float64(time.Since(began).Microseconds())/1000, name+"-ms")
		}
		var id string
		measure("submit", func() error {
			resp, err := api_.SubmitJob(b.Context(), connect.NewRequest(&api.SubmitJobRequest{Spec: &api.JobSpec{
				Program: &api.Program{Kind: api.ProgramKind_PROGRAM_KIND_BUILTIN, Name: "wordcount"},
				Input:   []string{"s3://input/lines"}, Output: "s3://out/", SplitSize: 10,
			}}))
			id = resp.Msg.GetId()
			return err
		})
		measure("plan", func() error {
			for {
				v := m.store.View()
				if j, _ := v.Job(id); j.Planned() {
					require.Equal(b, maps, j.Maps)
					return nil
				}
				<-v.Watch(id)
			}
		})
		ask := func(when string) {
			measure("show-"+when, func() error {
				_, err := api_.GetJob(b.Context(), connect.NewRequest(&api.GetJobRequest{Job: id}))
				return err
			})
			measure("why-"+when, func() error {
				_, err := api_.ExplainJob(b.Context(), connect.NewRequest(&api.GetJobRequest{Job: id}))
				return err
			})
			measure("tasks-"+when, func() error {
				resp, err := api_.ListTasks(b.Context(), connect.NewRequest(&api.ListTasksRequest{Job: id}))
				require.Len(b, resp.Msg.GetTasks(), maps+1)
				return err
			})
		}
		ask("planned")
		measure("maps-end", func() error {
			for from := 0; from < maps-1; from += perEntry {
				var c state.EndTasks
				for i := from; i < min(from+perEntry, maps-1); i++ {
					win := &state.Completion{Attempt: fmt.Sprintf("%s-m-%05d-2-%d", id, i, i), Node: "i-1", SegmentNode: "i-1", InputBytes: 10}
					for _, name := range []string{"mapInputRecords", "mapInputBytes", "mapOutputRecords", "mapOutputBytes", "segmentRecords", "segmentBytes", "slotMs", "cpuMs"} {
						win.Counters = append(win.Counters, state.Counter{Group: "millrace", Name: name, Value: 10})
					}
					c.Items = append(c.Items, state.EndTask{Job: id, Task: state.TaskID{Kind: state.Map, Index: i}, Win: win})
				}
				if _, err := m.entries.Apply(b.Context(), c); err != nil {
					return err
				}
			}
			return nil
		})
		ask("done")
		measure("snapshot", func() error {
			var size counter
			err := m.store.View().Persist(&size)
			b.ReportMetric(float64(size)/1e6, "snapshot-MB")
			return err
		})
		measure("end", func() error {
			if _, err := api_.CancelJob(b.Context(), connect.NewRequest(&api.CancelJobRequest{Job: id})); err != nil {
				return err
			}
			for {
				v := m.store.View()
				if j, _ := v.Job(id); j.Ended() {
					return nil
				}
				<-v.Watch(id)
			}
		})
		ask("ended")
		measure("retire", func() error {
			_, err := m.entries.Apply(b.Context(), state.RetireJobs{Page: "p", Jobs: []string{id}})
			return err
		})
	}
}

// BenchmarkHistory ends ten thousand jobs of ten tasks, waits until all but the newest thousand have moved, and asks for them.
func BenchmarkHistory(b *testing.B) {
	const jobs, maps = 10_000, 10
	for b.Loop() {
		m, _ := quietMaster(b)
		api_ := admin(b, m).API()
		cluster, _ := m.store.View().Cluster("")
		apply := func(c state.Command) error {
			_, err := m.entries.Apply(b.Context(), c)
			return err
		}
		end := func(i int) error {
			id := fmt.Sprintf("s-%013d", i)
			c := state.EndTasks{}
			for k := range maps {
				win := &state.Completion{Attempt: fmt.Sprintf("%s-m-%05d-2-%d", id, k, k), Node: "i-1"}
				for _, name := range []string{"mapInputRecords", "mapInputBytes", "mapOutputRecords", "mapOutputBytes", "outputBytes", "slotMs", "cpuMs"} {
					win.Counters = append(win.Counters, state.Counter{Group: "millrace", Name: name, Value: int64(i * k)})
				}
				c.Items = append(c.Items, state.EndTask{Job: id, Task: state.TaskID{Kind: state.Map, Index: k}, Win: win})
			}
			for _, c := range []state.Command{
				state.SubmitJob{Job: state.Job{ID: id, Cluster: cluster.ID, Name: "job", Program: "cat", User: "admin", Spec: make([]byte, 200), SubmittedAt: time.Now(), Input: []string{"s3://input/line"}, Output: "s3://out/" + id + "/"}},
				state.PlanJob{Job: id, Maps: maps, At: time.Now()}, c, state.BeginCommit{Job: id, At: time.Now()}, state.CompleteJob{Job: id, At: time.Now(), Parts: maps},
			} {
				if err := apply(c); err != nil {
					return err
				}
			}
			return nil
		}
		var g errgroup.Group
		g.SetLimit(32)
		for i := range jobs {
			g.Go(func() error { return end(i) })
		}
		require.NoError(b, g.Wait())
		began := time.Now()
		for v := m.store.View(); len(v.EndedJobs()) >= 1100; v = m.store.View() {
			<-v.WatchJobs()
		}
		b.ReportMetric(time.Since(began).Seconds(), "still-moving-s")
		measure := func(name string, f func() error) {
			began := time.Now()
			require.NoError(b, f())
			b.ReportMetric(float64(time.Since(began).Microseconds())/1000, name+"-ms")
		}
		measure("list", func() error {
			resp, err := api_.ListJobs(b.Context(), connect.NewRequest(&api.ListJobsRequest{}))
			require.Len(b, resp.Msg.GetJobs(), jobs)
			require.Empty(b, resp.Msg.GetBrief())
			return err
		})
		measure("list-100", func() error {
			_, err := api_.ListJobs(b.Context(), connect.NewRequest(&api.ListJobsRequest{Limit: 100}))
			return err
		})
		measure("show-oldest", func() error {
			_, err := api_.GetJob(b.Context(), connect.NewRequest(&api.GetJobRequest{Job: fmt.Sprintf("s-%013d", 0)}))
			return err
		})
		measure("snapshot", func() error {
			var size counter
			err := m.store.View().Persist(&size)
			b.ReportMetric(float64(size)/1e6, "snapshot-MB")
			return err
		})
	}
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
