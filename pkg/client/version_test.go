package client

import (
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
	"millrace/pkg/api/apiconnect"
	"millrace/pkg/protocol"
	"millrace/pkg/security"
)

// A program that no longer serves what an old master speaks says so by itself: the master cannot know.
func TestAMasterThatIsTooOldIsRefused(t *testing.T) {
	p := newPKI(t)
	server := p.serve(t, &fakeMaster{name: "old"}) // which says nothing of what it speaks
	config, err := p.issue(t, security.RoleUser, "alice").ClientTLS(security.MasterName)
	require.NoError(t, err)
	addresses, err := addressesOf([]string{server})
	require.NoError(t, err)
	ch := newChannel(config, addresses)
	t.Cleanup(ch.close)
	for own, refused := range map[protocol.Speaker]bool{
		{Name: "millrace/v9", Speaks: 9, Oldest: 8}: true,
		{Name: "millrace/v2", Speaks: 2, Oldest: 1}: false,
	} {
		c := apiconnect.NewMillraceServiceClient(ch.http(), baseURL, connect.WithInterceptors(introduced{own}))
		_, unary := c.GetSite(t.Context(), connect.NewRequest(&api.GetSiteRequest{}))
		require.Equal(t, refused, unary != nil, "%v: %v", own, unary)
		if !refused {
			continue
		}
		said := Problems(unary)
		require.Equal(t, []string{"the master speaks protocol 1, and millrace/v9 serves protocols 8 to 9: they cannot work together"}, said.Errors)
		require.Contains(t, said.Next, "upgrade the master to the version of millrace/v9")
		require.EqualValues(t, ExitUnreachable, said.ExitCode)
		require.False(t, passing(t.Context(), unary), "asking again does not help")
	}
}
