package master

import (
	"context"
	"net"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
	"millrace/pkg/joining"
)

// Whoever may end a master for good finds out first what the others need it for: from the site if anybody answers there, else from its folder.
func TestFindSeat(t *testing.T) {
	s := newSite(t, 3)
	seat := func(m *Master) *Seat {
		t.Helper()
		found, err := FindSeat(t.Context(), m.cfg.Dir, "test", s.masters[0].Address(), s.masters[1].Address(), s.masters[2].Address())
		require.NoError(t, err)
		require.Equal(t, m.ID(), found.ID)
		require.Equal(t, m.id.Site, found.Site)
		return found
	}
	for _, m := range s.masters {
		got := seat(m)
		require.True(t, got.Votes)
		require.Equal(t, 2, got.Others)
	}

	// One that is silent is not waited for once the leader has spoken.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	who, err := joining.Who(s.masters[0].cfg.Dir)
	require.NoError(t, err)
	voters, err := askVoters(ctx, time.Hour, s.masters[0].cfg.Dir, who, []string{"https://" + silent.Addr().String(), s.leader().Address()})
	require.NoError(t, err)
	require.Len(t, voters, 3)
	require.NoError(t, ctx.Err())

	last := s.masters[2]
	_, err = s.anywhere(s.masters[0]).API().RemoveMaster(t.Context(), connect.NewRequest(&api.RemoveMasterRequest{Id: last.ID()}))
	require.NoError(t, err)
	got := seat(last)
	require.False(t, got.Votes, "whatever it says itself")
	require.NoError(t, last.Close())
	require.False(t, seat(last).Votes)

	for _, m := range s.masters[:2] {
		require.NoError(t, m.Close())
	}
	got = seat(s.masters[0])
	require.True(t, got.Votes, "by its own log")
	require.Equal(t, 1, got.Others)

	d, err := openDirectory(s.masters[1].cfg.Dir, "test")
	require.NoError(t, err)
	_, err = FindSeat(t.Context(), s.masters[1].cfg.Dir, "test")
	require.ErrorContains(t, err, "in use")
	require.NoError(t, d.Close())
	_, err = FindSeat(t.Context(), t.TempDir(), "test")
	require.ErrorIs(t, err, ErrNoMaster)
}
