package fleet

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"millrace/master/state"
)

// begin starts calls to providers beside the loop; their results come back into it. A launch has one call at a time.
func (f *Fleet) begin(ctx context.Context, calls []Call) {
	for _, c := range calls {
		l, provider := c.Launch, f.cfg.Providers[c.Launch.Provider]
		if provider == nil || f.underWay[l.Provider] >= callsAtOnce {
			continue
		}
		p := f.progress[l.ID]
		p.Running = true
		f.progress[l.ID] = p
		f.underWay[l.Provider]++
		if c.Terminate {
			f.beside(ctx, launchWithin, func(ctx context.Context) func(context.Context) {
				err := provider.Terminate(ctx, l.ID, l.Machine)
				return func(ctx context.Context) { f.terminated(ctx, l, err) }
			})
			continue
		}
		f.beside(ctx, launchWithin, func(ctx context.Context) func(context.Context) {
			machine, err := f.ask(ctx, provider, l)
			return func(ctx context.Context) { f.launched(ctx, l, machine, err) }
		})
	}
}

// beside runs call beside the loop, within a time, and what it returns in the loop.
func (f *Fleet) beside(ctx context.Context, within time.Duration, call func(context.Context) func(context.Context)) {
	run := func() {
		limited, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("no answer within %s", within))
		defer cancel()
		done := call(limited)
		select {
		case f.results <- done:
		case <-ctx.Done():
		}
	}
	if f.alone {
		run()
		return
	}
	f.calls.Go(run)
}

// ask asks a provider for a node.
func (f *Fleet) ask(ctx context.Context, provider Provider, l *state.Launch) (machine string, err error) {
	v := f.cfg.View()
	site, ok := v.Site()
	c, there := v.Cluster(l.Cluster)
	if !ok || !there {
		return "", fmt.Errorf("cluster %s: %w", l.Cluster, state.ErrNotFound)
	}
	token, err := f.cfg.Seal.Open(l.SealedToken)
	if err != nil {
		return "", fmt.Errorf("join token of launch %s: %w", l.ID, err)
	}
	r := Request{Key: l.ID, Site: site.ID, Cluster: c.ID, ClusterName: c.Name, Group: l.Group, Masters: f.cfg.Masters(), Token: string(token)}
	for _, g := range c.Groups {
		if g.ID == l.Group {
			r.Role = strings.ToLower(g.Role)
		}
	}
	if f.cfg.UserData != nil {
		if r.UserData, err = f.cfg.UserData(r, site); err != nil {
			return "", fmt.Errorf("user data: %w", err)
		}
	}
	return provider.Launch(ctx, r)
}

// ended notes the end of a call. One that failed is repeated after a while that grows.
func (f *Fleet) ended(l *state.Launch, failures int) {
	f.underWay[l.Provider]--
	now := f.cfg.Now()
	p := Progress{Done: now}
	if failures > 0 {
		p.After = now.Add(pause(failures))
	}
	f.progress[l.ID] = p
}

// launched takes up a provider's answer.
func (f *Fleet) launched(ctx context.Context, asked *state.Launch, machine string, err error) {
	now, ok := f.cfg.View().Launch(asked.ID)
	if !ok {
		f.ended(asked, 0)
		return
	}
	l := *now
	if other := f.machineOf(machine, l); err == nil && other != "" {
		err = fmt.Errorf("launch: it says that machine %s is of launch %s, which it has said of %s", machine, l.ID, other)
	}
	if err != nil {
		l.Tries++
		l.Problem = problemText(l.Provider, err)
		f.trouble("provider "+l.Provider+" does not launch", err)
	} else {
		f.well("provider " + l.Provider + " does not launch")
		l.Tries, l.Problem, l.Machine = 0, "", machine
		if l.State == state.LaunchRequested {
			l.State = state.LaunchGiven
		}
	}
	f.ended(asked, l.Tries)
	f.put(ctx, now, l)
}

// machineOf is another launch of the same provider that a machine is said to be of.
func (f *Fleet) machineOf(machine string, l state.Launch) string {
	for _, o := range f.cfg.View().Launches("") {
		if o.Provider == l.Provider && o.Machine == machine && o.ID != l.ID {
			return o.ID
		}
	}
	return ""
}

// put logs how a launch is, if that is anything new. A failure that repeats is new for its count alone: an entry each.
func (f *Fleet) put(ctx context.Context, old *state.Launch, l state.Launch) {
	if old.State == l.State && old.Machine == l.Machine && old.Tries == l.Tries && old.Problem == l.Problem {
		return
	}
	if _, err := f.cfg.Apply(ctx, state.PutLaunch{Launch: l}); err != nil {
		f.trouble("what a provider has answered is not logged", err)
		return
	}
	if l.Problem != "" && l.Problem != old.Problem {
		f.tell(ctx, &l)
	}
}

// tell has people know why a launch does not get on.
func (f *Fleet) tell(ctx context.Context, l *state.Launch) {
	c, ok := f.cfg.View().Cluster(l.Cluster)
	e := state.Event{At: f.cfg.Now().UTC(), Kind: "GROUP", Subject: l.Group, Message: l.Problem}
	if !ok || said(c, &e) {
		return
	}
	if _, err := f.cfg.Apply(ctx, state.AddEvents{Cluster: l.Cluster, Events: []state.Event{e}}); err != nil {
		f.trouble("events are not kept", err)
	}
}

// terminated takes up that a machine is gone, or why it is not.
func (f *Fleet) terminated(ctx context.Context, asked *state.Launch, err error) {
	now, ok := f.cfg.View().Launch(asked.ID)
	if !ok {
		f.ended(asked, 0)
		return
	}
	if err == nil {
		f.ended(asked, 0)
		if _, err := f.cfg.Apply(ctx, state.DropLaunch{ID: asked.ID}); err != nil && !errors.Is(err, state.ErrNotFound) {
			f.trouble("what a provider has answered is not logged", err)
			return
		}
		f.dropped[asked.ID] = dropped{provider: asked.Provider, at: f.cfg.Now()}
		f.well("provider " + asked.Provider + " does not terminate")
		return
	}
	f.trouble("provider "+asked.Provider+" does not terminate", err)
	l := *now
	l.Tries++
	l.Problem = problemText(l.Provider, err)
	f.ended(asked, l.Tries)
	f.put(ctx, now, l)
}

// dropped is a launch whose machine was ended.
type dropped struct {
	provider string
	at       time.Time // when the provider said so last
	running  bool      // it is being asked again
}

// ghosts ends machines that have come up though they were ended: of launches that were dropped just now. Those of others, which nobody here
// knows, may be another site's.
func (f *Fleet) ghosts(ctx context.Context, provider string, l Listing) {
	for key, machine := range l.Machines {
		d, ok := f.dropped[key]
		if !ok || d.provider != provider || d.running || !l.At.After(d.at) {
			continue
		}
		f.log.Warn("a machine that was ended runs: it is ended again", zap.String("provider", provider), zap.String("key", key), zap.String("machine", machine))
		d.running = true
		f.dropped[key] = d
		f.beside(ctx, launchWithin, func(ctx context.Context) func(context.Context) {
			err := f.cfg.Providers[provider].Terminate(ctx, key, machine)
			return func(context.Context) {
				if err != nil {
					f.trouble("provider "+provider+" does not terminate", err)
				}
				f.dropped[key] = dropped{provider: provider, at: f.cfg.Now()}
			}
		})
	}
}

// list asks providers which machines run, those alone of which there should be any, or might be.
func (f *Fleet) list(ctx context.Context) {
	has := map[string]bool{}
	for _, l := range f.cfg.View().Launches("") {
		has[l.Provider] = true
	}
	now := f.cfg.Now()
	for key, d := range f.dropped {
		if has[d.provider] = true; now.Sub(d.at) > ghostsWithin {
			delete(f.dropped, key)
		}
	}
	for name, provider := range f.cfg.Providers {
		due := f.listing[name]
		if due.IsZero() || now.Before(due) || !has[name] {
			continue
		}
		f.listing[name] = time.Time{}
		f.beside(ctx, listWithin, func(ctx context.Context) func(context.Context) {
			machines, err := provider.List(ctx)
			return func(ctx context.Context) { f.listed(ctx, name, now, machines, err) }
		})
	}
}

func (f *Fleet) listed(ctx context.Context, name string, asked time.Time, machines map[string]string, err error) {
	every := listEvery
	if f.kinds[name].Revives {
		every = reviveEvery
	}
	f.listing[name] = f.cfg.Now().Add(every)
	if err != nil {
		f.trouble("provider "+name+" does not list", err)
		return
	}
	f.well("provider " + name + " does not list")
	f.listings[name] = Listing{At: asked, Machines: machines}
	f.ghosts(ctx, name, f.listings[name])
	f.unasked(name, machines)
}

// unasked logs, once, of each machine that is listed without a launch.
func (f *Fleet) unasked(provider string, machines map[string]string) {
	v, now := f.cfg.View(), map[string]bool{}
	for key, machine := range machines {
		if _, ok := v.Launch(key); ok {
			continue
		}
		now[key] = true
		if !f.strangers[provider][key] {
			f.log.Warn("provider "+provider+" lists a machine that nobody asked for", zap.String("key", key), zap.String("machine", machine))
		}
	}
	f.strangers[provider] = now
}
