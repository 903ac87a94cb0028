package fleet

import (
	"fmt"
	"strings"

	"millrace/master/state"
)

// PoolProvider is the name of the provider that is always there: machines that joined the site for no cluster.
const PoolProvider = "pool"

// assign gives a group free nodes of the pool, as many as there are. What is missing comes when more nodes join the pool.
func (p *planner) assign(c *state.Cluster, g *state.Group, lacking int, st *Status) {
	n := min(lacking, len(p.free))
	for _, node := range p.free[:n] {
		p.do(c, state.AssignNode{ID: node.ID, Cluster: c.ID, Group: g.ID}, "NODE", node.ID, "%s comes from the pool as a %s node", called(node), strings.ToLower(g.Role))
	}
	p.free = p.free[n:]
	if st.Missing = lacking - n; st.Missing == 0 {
		return
	}
	st.Reason = fmt.Sprintf("the pool has no free node: %d more of it would be needed (millrace join-token create --role pool)", st.Missing)
	p.do(c, nil, "GROUP", g.ID, "the %s group lacks %s: the pool has none that is free", strings.ToLower(g.Role), countOf(st.Missing, "node"))
}

// countOf is "1 node", "2 nodes".
func countOf(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
