package server

import (
	"context"
	"errors"
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
	seed, err := s.seedFor("join token", req.Msg.RequestId, callOf(ctx).caller.ID)
	if err != nil {
		return nil, err
	}
	token, err := security.TokenOf([]byte(site.CAPEM), seed)
	if err != nil {
		return nil, err
	}
	record.ID, record.SecretHash = token.ID, token.SecretHash()
	if old, ok := v.Token(token.ID); ok { // the call is made again, for want of an answer
		if old.Role != record.Role || old.Cluster != record.Cluster {
			return nil, usage("choose another request id, or none", "the request id has made another join token: "+old.ID)
		}
		record = old
	} else if _, err := s.cfg.Log.Apply(ctx, state.CreateToken{Token: *record}); errors.Is(err, state.ErrExists) { // that one was faster
		return s.CreateJoinToken(ctx, req)
	} else if err != nil {
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
	if joinAs[role] == "" {
		mistakes = append(mistakes, fmt.Sprintf("a join token is for the role core, task, master or pool, not %q", m.Role))
	}
	life := time.Duration(m.TtlMs) * time.Millisecond
	if m.TtlMs == 0 {
		life = defaultTokenLife
	}
	if m.TtlMs < 0 || m.TtlMs > longestTokenLife.Milliseconds() {
		mistakes = append(mistakes, fmt.Sprintf("--ttl: a join token lives between 1s and %s", longestTokenLife))
	}
	uses := int(m.Uses)
	if uses == 0 {
		uses = -1
	}
	if m.Uses < 0 {
		mistakes = append(mistakes, fmt.Sprintf("a join token cannot have %d uses", m.Uses))
	}
	in, next := "", "millrace join-token create --help"
	if role != state.RoleMaster && role != state.RolePool { // which are the site's
		switch c, ok := v.Cluster(m.Cluster); {
		case !ok && len(mistakes) == 0:
			return nil, notFound("millrace cluster list names them", "no such cluster: %s", m.Cluster)
		case !ok:
			mistakes = append(mistakes, "no such cluster: "+m.Cluster)
		case c.Ending():
			mistakes = append(mistakes, "cluster "+c.Name+" takes no nodes any more: it is "+c.State)
			next = "name one that does: millrace join-token create --cluster NAME (millrace cluster list), or make one: millrace cluster create --name NAME"
		default:
			in = c.ID
		}
	}
	if len(mistakes) > 0 {
		return nil, usage(next, mistakes...)
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
	_, err := s.cfg.Log.Apply(ctx, state.RevokeToken{ID: req.Msg.Id})
	switch {
	case errors.Is(err, state.ErrNotFound):
		return nil, notFound("millrace join-token list", "no such join token: %s", req.Msg.Id)
	case err != nil:
		return nil, fmt.Errorf("revoke join token: %w", err)
	}
	return connect.NewResponse(&api.RevokeJoinTokenResponse{}), nil
}

// tokenView never has the secret: it is not kept.
func tokenView(v *state.View, t *state.Token) *api.JoinToken {
	name := t.Cluster
	if c, ok := v.Cluster(t.Cluster); ok && t.Cluster != "" {
		name = c.Name
	}
	return &api.JoinToken{Id: t.ID, Role: t.Role, Cluster: name, ExpiresAt: stamp(t.ExpiresAt), UsesLeft: int32(t.UsesLeft)}
}
