package fleet

import (
	"cmp"

	"millrace/master/state"
	"millrace/pkg/api"
)

// Plan is what it would take to bring groups of a cluster to the targets given: which nodes come and which go. What is on those
// that go is not in it.
func (f *Fleet) Plan(cluster string, groups []state.Group) []*api.GroupPlan {
	w := World{Providers: f.kinds, Default: f.cfg.Default, Rules: f.cfg.Rules, Burdens: map[string]Burden{}}
	f.facts(&w, f.cfg.View())
	f.farewells(&w)
	w.carry(f.cfg.Jobs.Load(cluster, true))
	for i := range groups {
		if g := &groups[i]; g.Role == state.RoleCore {
			f.weigh(&w, membersOf(&w, g.ID))
		}
	}
	return Preview(&w, groups)
}

// Preview is Plan in a world.
func Preview(w *World, groups []state.Group) (plans []*api.GroupPlan) {
	p := newPlanner(w)
	for _, l := range w.Launches {
		p.launch(l)
	}
	free := len(p.free)
	for i := range groups {
		g := &groups[i]
		s := p.census(g)
		plan := &api.GroupPlan{Role: g.Role, From: int64(len(s.counted)), To: int64(g.Target)}
		switch diff := g.Target - s.have(); {
		case diff > 0:
			plan.Add = int64(diff)
			kind, known := w.Providers[cmp.Or(g.Provider, w.Default)]
			back := 0
			for _, n := range s.leaving {
				if _, ends := w.Farewells[n.ID]; w.Up[n.ID] && !ends {
					back++
				}
			}
			asked := max(0, diff-back)
			switch {
			case !known:
				plan.Missing = int64(asked)
			case kind.Pool:
				plan.Missing = int64(max(0, asked-free))
				free -= min(free, asked)
			}
		case diff < 0:
			surplus := max(0, -diff-len(s.asked))
			for _, n := range p.victims(s.counted)[:min(surplus, len(s.counted))] {
				plan.Drain = append(plan.Drain, n.ID)
			}
		}
		plans = append(plans, plan)
	}
	return plans
}
