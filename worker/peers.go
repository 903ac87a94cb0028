package worker

import (
	"context"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"millrace/hdfs/wire"
	"millrace/pkg/api"
	"millrace/pkg/security"
)

// need is what a request to the node's port takes.
type need uint8

const (
	needMaster need = iota // to be a master
	needFellow             // to be a node of the same cluster
	needRead               // to read blocks: fellows, nodes whose jobs are about files here, people, masters
	needWrite              // to write blocks: as needRead, but of people those who may change files
	needMember             // to be a master, or a node that has to do with this one
)

// access is who may ask for what on the node's port, by what the path begins with. What is not in it nobody may; TLS lets
// nobody in who has no certificate of the site.
var access = map[string]need{
	"/v1/shuffle/":    needFellow,
	"/v1/segments/":   needFellow,
	wire.PipelinePath: needWrite,
	wire.BlocksPath:   needRead,
	"/v1/logs/":       needMaster,
	"/v1/health":      needMember,
	execPrefix:        needMaster,
}

// admin is the user who has no record: the site's first administrator.
const admin = "admin"

// membersPause is the least time between two questions about somebody who is not known.
const membersPause = 100 * time.Millisecond

// peers knows who may speak to this node, as the leader says: newPeers. While no master answers what it said last holds.
type peers struct {
	ask  func(ctx context.Context) (*api.MembersResponse, error)
	log  *zap.Logger
	news chan struct{} // capacity 1

	mu     sync.Mutex
	id     string // of the answer; "" = there is none yet
	nodes  map[string]*api.MemberNode
	users  map[string]*api.MemberUser
	asked  time.Time     // last
	busy   chan struct{} // closed when the question that is under way is answered; nil: none is
	byRole bool          // the masters are of a version that does not say: a certificate's role is all there is
}

func newPeers(ask func(ctx context.Context) (*api.MembersResponse, error), log *zap.Logger) *peers {
	return &peers{ask: ask, log: log, news: make(chan struct{}, 1)}
}

// heard takes in what names the leader's present answer, and has that fetched if it is news.
func (p *peers) heard(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if id == "" || id == p.id {
		return
	}
	select {
	case p.news <- struct{}{}:
	default: // it is to be, anyway
	}
}

// run fetches what is news, until ctx ends.
func (p *peers) run(ctx context.Context) {
	for {
		select {
		case <-p.news:
			p.refresh(ctx, 0)
		case <-ctx.Done():
			return
		}
	}
}

// refresh asks the leader, once for all who want that at a time, and not again within a pause.
func (p *peers) refresh(ctx context.Context, pause time.Duration) {
	p.mu.Lock()
	if busy := p.busy; busy != nil {
		p.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
		}
		return
	}
	if time.Since(p.asked) < pause {
		p.mu.Unlock()
		return
	}
	busy := make(chan struct{})
	p.busy = busy
	p.mu.Unlock()
	m, err := p.ask(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy, p.asked = nil, time.Now()
	close(busy)
	switch {
	case err == nil:
		p.take(m)
	case connect.CodeOf(err) == connect.CodeUnimplemented:
		p.byRole = true
	default:
		p.log.Info("the masters do not say who is of the site; what is known holds", zap.Error(err))
	}
}

func (p *peers) take(m *api.MembersResponse) {
	p.id, p.byRole = m.Id, false
	p.nodes, p.users = map[string]*api.MemberNode{}, map[string]*api.MemberUser{}
	for _, n := range m.Nodes {
		p.nodes[n.Node] = n
	}
	for _, u := range m.Users {
		p.users[u.Name] = u
	}
}

// may says whether somebody with a certificate of the site may have what a request takes.
func (p *peers) may(ctx context.Context, who security.Identity, issued time.Time, n need) bool {
	for asked := false; ; asked = true {
		p.mu.Lock()
		known, ok := p.judge(who, issued, n)
		p.mu.Unlock()
		if known || asked {
			return ok
		}
		p.refresh(ctx, membersPause) // it may have come a moment ago
	}
}

// judge is may as far as is known. mu is held.
func (p *peers) judge(who security.Identity, issued time.Time, n need) (known, ok bool) {
	if p.byRole {
		return true, byRole(who.Role, n)
	}
	switch who.Role {
	case security.RoleUser:
		if who.ID == admin {
			return true, n == needRead || n == needWrite
		}
		u := p.users[who.ID]
		if u == nil || issued.Unix() < u.SinceUnix {
			return false, false
		}
		return true, n == needRead || n == needWrite && (u.Role == "admin" || u.Role == "submit")
	case security.RoleMaster:
		m := p.nodes[who.ID]
		return m != nil, m.GetMaster() && n != needFellow
	}
	m := p.nodes[who.ID]
	ok = m != nil && !m.Master && (m.Fellow && n != needMaster || m.Files && n != needMaster && n != needFellow)
	return ok, ok // its place, or what its jobs are about, may have changed a moment ago
}

// byRole is all that can be said without the masters' word.
func byRole(r security.Role, n need) bool {
	switch n {
	case needMaster:
		return r == security.RoleMaster
	case needFellow:
		return r == security.RoleWorker
	case needMember:
		return r != security.RoleUser
	}
	return true
}

// guard lets through whoever may have what the handler gives.
func (p *peers) guard(site string, n need, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, ok := security.PeerIdentity(r.TLS)
		if !ok || id.Site != site || !p.may(r.Context(), id, security.PeerIssued(r.TLS), n) {
			http.Error(w, "this is not for "+string(id.Role)+" "+id.ID, http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// guarded is a mux that has only what the table names.
type guarded struct {
	*http.ServeMux
	peers *peers
	site  string
}

func (g guarded) handle(prefix string, h http.Handler) {
	if n, ok := access[prefix]; ok {
		g.Handle(prefix, g.peers.guard(g.site, n, h))
	}
}
