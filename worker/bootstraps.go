package worker

import (
	"context"
	"os"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"millrace/pkg/api"
	"millrace/pkg/objectstore"
	"millrace/worker/bootstrap"
	"millrace/worker/command"
)

// bootstraps is the bootstrap actions of the node's cluster, in one life: run before the first task, and told to every leader.
type bootstraps struct {
	w      *Worker
	runner *bootstrap.Runner
	told   chan bootstrap.Set // what is to be run; capacity 1

	mu     sync.Mutex
	digest string // of what was told
}

func newBootstraps(w *Worker) *bootstraps {
	b := &bootstraps{w: w, told: make(chan bootstrap.Set, 1)}
	b.runner = bootstrap.New(bootstrap.Config{Dir: w.dir.Path("bootstrap"), Log: w.log.Named("bootstrap"), Keep: b.keep,
		Source: func() (bootstrap.Source, error) {
			store, _, err := w.site.get()
			return store, err
		}})
	return b
}

// welcome takes up what a leader says is to be run: what is told first in a life. If the cluster gets other actions before these have ended, the
// node makes way for another.
func (b *bootstraps) welcome(m *api.SessionWelcome) {
	if m.BootstrapDigest == "" {
		return
	}
	b.mu.Lock()
	again := b.digest != ""
	b.digest = m.BootstrapDigest
	b.mu.Unlock()
	if again {
		if s := b.runner.Status(); s.Digest == m.BootstrapDigest {
			b.say(s)
		}
		return
	}
	set := bootstrap.Set{Digest: m.BootstrapDigest, Env: b.environ(m)}
	for _, a := range m.BootstrapActions {
		set.Actions = append(set.Actions, bootstrap.Action{Name: a.Name, URL: a.Url, Args: a.Args, SHA256: a.Sha256,
			Timeout: time.Duration(a.TimeoutMs) * time.Millisecond})
	}
	b.w.slots.hold(true)
	b.told <- set
}

// run runs them when they are told, until they have ended or ctx does.
func (b *bootstraps) run(ctx context.Context) {
	select {
	case <-ctx.Done():
	case set := <-b.told:
		b.runner.Run(ctx, set, func(s bootstrap.Status) {
			if s.State == bootstrap.Failed {
				b.w.log.Error("a bootstrap action failed: the node takes no tasks", zap.Int("action", s.Action), zap.String("name", s.Name), zap.String("reason", s.Reason))
			} else {
				b.w.log.Info("bootstrap actions", zap.String("state", s.State), zap.Int("action", s.Action), zap.Int("of", s.Of), zap.String("name", s.Name))
			}
			if s.State == bootstrap.Done {
				b.w.slots.hold(false)
			}
			b.say(s)
		})
	}
}

// say tells the leader. If there is none now, the next welcome has it told again.
func (b *bootstraps) say(s bootstrap.Status) {
	b.w.slots.say(&api.WorkerMessage{Message: &api.WorkerMessage_Bootstrap{Bootstrap: &api.BootstrapReport{
		Digest: s.Digest, State: s.State, Action: int32(s.Action), Name: s.Name, Reason: s.Problem(),
	}}})
	b.w.slots.heartbeat(b.w.diskFree(), b.w.problem())
}

// done is the digest of what has been run to its end.
func (b *bootstraps) done() string {
	if s := b.runner.Status(); s.State == bootstrap.Done {
		return s.Digest
	}
	return ""
}

// environ is what scripts know of the node.
func (b *bootstraps) environ(m *api.SessionWelcome) []string {
	return command.Environ(append(b.w.environ(), "MILLRACE_CLUSTER_NAME="+m.ClusterName)...)
}

// environ is what an administrator's programs on this node know of it.
func (w *Worker) environ() []string {
	w.idMu.Lock()
	defer w.idMu.Unlock()
	return []string{
		"MILLRACE_SITE=" + w.id.Site, "MILLRACE_MASTERS=" + strings.Join(w.id.Masters, ","),
		"MILLRACE_CLUSTER_ID=" + w.id.Cluster, "MILLRACE_NODE_ID=" + w.id.ID, "MILLRACE_NODE_NAME=" + w.id.Name,
		"MILLRACE_NODE_ROLE=" + strings.ToLower(w.id.Role),
	}
}

// keep brings an action's output to the site's own prefix.
func (b *bootstraps) keep(ctx context.Context, name string, output *os.File, size int64) error {
	store, prefix, err := b.w.site.get()
	if err != nil {
		return err
	}
	key := prefix.Key + "bootstrap/" + b.w.id.Cluster + "/" + b.w.id.ID + "/" + name
	_, err = store.Put(ctx, prefix.Bucket, key, output, size, objectstore.PutOptions{ContentType: "text/plain; charset=utf-8"})
	return err
}
