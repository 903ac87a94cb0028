package worker

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"millrace/pkg/api"
	"millrace/pkg/security"
)

// everybody is who a node of a cluster may have to do with.
func everybody() *api.MembersResponse {
	return &api.MembersResponse{Id: "1", Nodes: []*api.MemberNode{
		{Node: "i-m", Master: true}, {Node: "i-fellow", Fellow: true, Files: true}, {Node: "i-guest", Files: true},
	}, Users: []*api.MemberUser{{Name: "ann", Role: "admin", SinceUnix: 1000}, {Name: "sue", Role: "submit"}, {Name: "ray", Role: "read"}}}
}

// TestWhoMayAskANode walks everything that a node's port has with every kind of caller there is.
func TestWhoMayAskANode(t *testing.T) {
	p := newPeers(func(context.Context) (*api.MembersResponse, error) { return everybody(), nil }, zap.NewNop())
	who := func(role security.Role, id string) security.Identity {
		return security.Identity{Site: "s", Role: role, ID: id}
	}
	const (
		segments = 1 << iota
		reads
		writes
		masters
		health
	)
	kinds := map[string]int{"/v1/shuffle/": segments, "/v1/segments/": segments, "/v1/blocks/": reads, "/v1/pipeline": writes, "/v1/logs/": masters, execPrefix: masters, "/v1/health": health}
	for name, c := range map[string]struct {
		is   security.Identity
		have int
	}{
		"a master":                                {who(security.RoleMaster, "i-m"), reads | writes | masters | health},
		"a node of the same cluster":              {who(security.RoleWorker, "i-fellow"), segments | reads | writes | health},
		"a node of a cluster with a job here":     {who(security.RoleWorker, "i-guest"), reads | writes | health},
		"a node of another cluster, or removed":   {who(security.RoleWorker, "i-other"), 0},
		"a master that was removed":               {who(security.RoleMaster, "i-gone"), 0},
		"a worker's certificate of a master's id": {who(security.RoleWorker, "i-m"), 0},
		"a master's certificate of a worker's id": {who(security.RoleMaster, "i-fellow"), 0},
		"the first administrator":                 {who(security.RoleUser, admin), reads | writes},
		"an administrator":                        {who(security.RoleUser, "ann"), reads | writes},
		"a user of the role submit":               {who(security.RoleUser, "sue"), reads | writes},
		"a user of the role read":                 {who(security.RoleUser, "ray"), reads},
		"a user who was removed":                  {who(security.RoleUser, "bob"), 0},
	} {
		for prefix, need := range access {
			kind, ok := kinds[prefix]
			require.True(t, ok, "the test does not know %s", prefix)
			require.Equal(t, c.have&kind != 0, p.may(t.Context(), c.is, time.Unix(2000, 0), need), "%s, %s", name, prefix)
		}
	}
	require.False(t, p.may(t.Context(), who(security.RoleUser, "ann"), time.Unix(999, 0), needRead), "a certificate of a namesake of before")
}

// Who is not known may have come a moment ago: that is asked, but not for each request of a stranger.
func TestWhoIsNotKnownIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, answer, fails := 0, everybody(), error(nil)
		p := newPeers(func(context.Context) (*api.MembersResponse, error) { asked++; return answer, fails }, zap.NewNop())
		may := func(id string) bool {
			return p.may(t.Context(), security.Identity{Role: security.RoleWorker, ID: id}, time.Now(), needFellow)
		}
		require.True(t, may("i-fellow"))
		require.True(t, may("i-fellow"))
		require.Equal(t, 1, asked)
		for range 100 {
			require.False(t, may("i-new"))
		}
		require.Equal(t, 1, asked, "not so soon again")
		time.Sleep(membersPause)
		answer = &api.MembersResponse{Id: "2", Nodes: append(answer.Nodes, &api.MemberNode{Node: "i-new", Fellow: true})}
		require.True(t, may("i-new"))
		require.Equal(t, 2, asked)

		fails = errors.New("no leader")
		time.Sleep(membersPause)
		require.False(t, may("i-other"))
		require.True(t, may("i-fellow"), "what was said last holds")

		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan struct{})
		go func() { defer close(ran); p.run(ctx) }()
		fails, answer = nil, &api.MembersResponse{Id: "3"}
		p.heard("2")
		synctest.Wait()
		require.True(t, may("i-fellow"), "that is no news")
		p.heard("3")
		synctest.Wait()
		require.False(t, may("i-fellow"), "it was removed")
		cancel()
		<-ran
	})
}

func TestMastersThatDoNotSayWhoIsWho(t *testing.T) {
	p := newPeers(func(context.Context) (*api.MembersResponse, error) {
		return nil, connect.NewError(connect.CodeUnimplemented, errors.New("old"))
	}, zap.NewNop())
	for role, have := range map[security.Role][]need{
		security.RoleMaster: {needMaster, needMember, needRead, needWrite},
		security.RoleWorker: {needFellow, needMember, needRead, needWrite},
		security.RoleUser:   {needRead, needWrite},
	} {
		for _, n := range []need{needMaster, needFellow, needMember, needRead, needWrite} {
			ok := false
			for _, h := range have {
				ok = ok || h == n
			}
			require.Equal(t, ok, p.may(t.Context(), security.Identity{Role: role, ID: "x"}, time.Now(), n), "%s %d", role, n)
		}
	}
}
