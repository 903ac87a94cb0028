package server

import (
	"context"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"

	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/security"
)

const (
	defaultTokenLife = 24 * time.Hour
	longestTokenLife = 365 * 24 * time.Hour
)

func (s *millraceService) CreateJoinToken(ctx context.Context, req *connect.Request[api.CreateJoinTokenRequest]) (*connect.Response[api.JoinToken], error) {
	v, _, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	site, ok := v.Site()
	if !ok {
		return nil, errNoLeader
	}
	record, err := s.tokenRecord(v, req.Msg)
	if err != nil {
		return nil, err
	}
	token, err := security.NewToken([]byte(site.CAPEM))
	if err != nil {
		return nil, err
	}
	record.ID, record.SecretHash = token.ID, token.SecretHash()
	if _, err := s.cfg.Log.Apply(ctx, state.CreateToken{Token: *record}); err != nil {
		return nil, fmt.Errorf("create join token: %w", err)
	}
	answer := tokenView(v, record)
	answer.Token = token.String()
	return connect.NewResponse(answer), nil
}

// tokenRecord checks what a token is asked for.
func (s *Server) tokenRecord(v *state.View, m *api.CreateJoinTokenRequest) (*state.Token, error) {
	var mistakes []string
	role := strings.ToUpper(m.Role)
	if role != state.RoleCore && role != state.RoleTask && role != state.RoleMaster {
		mistakes = append(mistakes, fmt.Sprintf("a join token is for the role core, task or master, not %q", m.Role))
	}
	life := time.Duration(m.TtlMs) * time.Millisecond
	if m.TtlMs == 0 {
		life = defaultTokenLife
	}
	if m.TtlMs < 0 || m.TtlMs > longestTokenLife.Milliseconds() {
		mistakes = append(mistakes, fmt.Sprintf("a join token lives between 1ms and %s", longestTokenLife))
	}
	uses := int(m.Uses)
	if uses == 0 {
		uses = -1
	}
	if m.Uses < 0 {
		mistakes = append(mistakes, fmt.Sprintf("a join token cannot have %d uses", m.Uses))
	}
	in := ""
	if role != state.RoleMaster { // masters are the site's
		c, ok := v.Cluster(m.Cluster)
		if !ok {
			mistakes = append(mistakes, "no such cluster: "+m.Cluster)
		} else {
			in = c.ID
		}
	}
	if len(mistakes) > 0 {
		return nil, usage("millrace join-token create --help", mistakes...)
	}
	return &state.Token{Role: role, Cluster: in, ExpiresAt: s.cfg.Now().Add(life).UTC(), UsesLeft: uses}, nil
}

func (s *millraceService) ListJoinTokens(ctx context.Context, _ *connect.Request[api.ListJoinTokensRequest]) (*connect.Response[api.ListJoinTokensResponse], error) {
	v, _, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	resp := &api.ListJoinTokensResponse{}
	for _, t := range v.Tokens() {
		resp.Tokens = append(resp.Tokens, tokenView(v, t))
	}
	return connect.NewResponse(resp), nil
}

func (s *millraceService) RevokeJoinToken(ctx context.Context, req *connect.Request[api.RevokeJoinTokenRequest]) (*connect.Response[api.RevokeJoinTokenResponse], error) {
	if _, _, err := s.read(ctx); err != nil {
		return nil, err
	}
	if _, err := s.cfg.Log.Apply(ctx, state.RevokeToken{ID: req.Msg.Id}); err != nil {
		return nil, fmt.Errorf("revoke join token: %w", err)
	}
	return connect.NewResponse(&api.RevokeJoinTokenResponse{}), nil
}

// tokenView never has the secret: it is not kept.
func tokenView(v *state.View, t *state.Token) *api.JoinToken {
	name := t.Cluster
	if c, ok := v.Cluster(t.Cluster); ok {
		name = c.Name
	}
	return &api.JoinToken{Id: t.ID, Role: t.Role, Cluster: name, ExpiresAt: stamp(t.ExpiresAt), UsesLeft: int32(t.UsesLeft)}
}
