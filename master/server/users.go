package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/client"
	"millrace/pkg/security"
)

const (
	defaultCodeLife = 24 * time.Hour
	longestCodeLife = 30 * 24 * time.Hour
	codesNext       = "millrace user create --help"
)

// CreateUser makes a person known, and gives the code that their first login takes.
func (s *millraceService) CreateUser(ctx context.Context, req *connect.Request[api.CreateUserRequest]) (*connect.Response[api.User], error) {
	v, _, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	m, now := req.Msg, s.cfg.Now()
	var mistakes []string
	if (security.Identity{Site: "site", Role: security.RoleUser, ID: m.Name}).Valid() != nil {
		mistakes = append(mistakes, fmt.Sprintf("%q is no name for a user: it takes letters, digits and . _ @ + -, begins with a letter or a digit, and has at most 128", m.Name))
	}
	if m.Name == Admin {
		mistakes = append(mistakes, "the user "+Admin+" is there from the start, and has no record")
	}
	role := strings.ToLower(m.Role)
	if userRoles[role] == 0 {
		mistakes = append(mistakes, fmt.Sprintf("a user's role is admin, submit or read, not %q", m.Role))
	}
	life, err := codeLife(m.CodeTtlMs)
	if err != nil {
		mistakes = append(mistakes, err.Error())
	}
	if len(mistakes) > 0 {
		return nil, usage(codesNext, mistakes...)
	}
	code, err := s.loginCode(ctx, v, m.Name, m.RequestId)
	if err != nil {
		return nil, err
	}
	old, known := v.User(m.Name)
	if known && (m.RequestId == "" || old.CodeID != code.ID) {
		return nil, failure("millrace user code "+m.Name+" makes a further code for somebody who is known; millrace user remove "+m.Name,
			"there is a user %s already, of the role %s", m.Name, old.Role)
	}
	if !known {
		created := now.UTC().Truncate(time.Second).Add(namesakes)
		old = &state.User{Name: m.Name, Role: role, CreatedAt: created, CodeID: code.ID, CodeHash: code.SecretHash(), CodeExpiresAt: now.Add(life).UTC()}
		_, err := s.cfg.Log.Apply(ctx, state.CreateUser{User: *old})
		if errors.Is(err, state.ErrExists) { // another call was faster: this one made before, perhaps, or a namesake's
			return s.CreateUser(ctx, req)
		}
		if err != nil {
			return nil, fmt.Errorf("create user %s: %w", m.Name, err)
		}
		s.log.Info("user created", zap.String("user", m.Name), zap.String("role", role))
	}
	answer := userView(old)
	answer.Code = code.String()
	return connect.NewResponse(answer), nil
}

// namesakes is how much later than it was made a user's record is dated. Certificates are dated to the second: those of a
// namesake who was removed just now must be older than this one's.
const namesakes = time.Second

// CreateLoginCode gives a further code to somebody who is known; the one before is worthless then.
func (s *millraceService) CreateLoginCode(ctx context.Context, req *connect.Request[api.CreateLoginCodeRequest]) (*connect.Response[api.User], error) {
	v, _, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	u, err := user(v, req.Msg.Name)
	if err != nil {
		return nil, err
	}
	life, err := codeLife(req.Msg.CodeTtlMs)
	if err != nil {
		return nil, usage(codesNext, err.Error())
	}
	code, err := s.loginCode(ctx, v, u.Name, req.Msg.RequestId)
	if err != nil {
		return nil, err
	}
	if u.CodeID == code.ID { // the call is made again, for want of an answer
		answer := userView(u)
		answer.Code = code.String()
		return connect.NewResponse(answer), nil
	}
	put := state.PutLoginCode{Name: u.Name, CodeID: code.ID, CodeHash: code.SecretHash(), ExpiresAt: s.cfg.Now().Add(life).UTC()}
	_, err = s.cfg.Log.Apply(ctx, put)
	if errors.Is(err, state.ErrExists) { // this call made before was faster
		return s.CreateLoginCode(ctx, req)
	}
	if err != nil {
		return nil, fmt.Errorf("login code for %s: %w", u.Name, err)
	}
	answer := userView(u)
	answer.Code, answer.CodeExpiresAt = code.String(), stamp(put.ExpiresAt)
	return connect.NewResponse(answer), nil
}

// loginCode makes a code: the same again for a call that is repeated, which its id tells.
func (s *Server) loginCode(ctx context.Context, v *state.View, name, requestID string) (security.Token, error) {
	site, ok := v.Site()
	if !ok {
		return security.Token{}, errNoLeader
	}
	seed, err := s.seedFor("login code", requestID, callOf(ctx).caller.ID, name)
	if err != nil {
		return security.Token{}, err
	}
	return security.CodeOf([]byte(site.CAPEM), seed)
}

// seedFor is what a secret is made from: by chance, or, for a request that has an id, of the site's key and all that names the
// request. A request whose answer was lost can then be made again: the secret is the same, though it is kept nowhere.
func (s *Server) seedFor(what, requestID string, words ...string) ([32]byte, error) {
	if requestID != "" {
		return s.cfg.Seal.Derive(append([]string{what, requestID}, words...)...), nil
	}
	key, err := security.NewSealKey()
	return key, err
}

func codeLife(ms int64) (time.Duration, error) {
	life := time.Duration(ms) * time.Millisecond
	if ms == 0 {
		life = defaultCodeLife
	}
	if ms < 0 || ms > longestCodeLife.Milliseconds() {
		return 0, fmt.Errorf("--ttl: a login code lives between 1s and %s", longestCodeLife)
	}
	return life, nil
}

func (s *millraceService) ListUsers(ctx context.Context, _ *connect.Request[api.ListUsersRequest]) (*connect.Response[api.ListUsersResponse], error) {
	v, _, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	resp := &api.ListUsersResponse{}
	for _, u := range v.Users() {
		resp.Users = append(resp.Users, userView(u))
	}
	return connect.NewResponse(resp), nil
}

// RemoveUser forgets a person: their certificates are worthless from then on.
func (s *millraceService) RemoveUser(ctx context.Context, req *connect.Request[api.RemoveUserRequest]) (*connect.Response[api.User], error) {
	v, _, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	if req.Msg.Name == Admin {
		return nil, usage("millrace user list", "the user "+Admin+" cannot be removed: the masters' own; who must not have its certificate any more is what millrace ca rotate is for")
	}
	u, err := user(v, req.Msg.Name)
	if err != nil {
		return nil, err
	}
	if _, err := s.cfg.Log.Apply(ctx, state.RemoveUser{Name: u.Name}); err != nil {
		return nil, fmt.Errorf("remove user %s: %w", u.Name, err)
	}
	s.log.Info("user removed", zap.String("user", u.Name))
	return connect.NewResponse(userView(u)), nil
}

func user(v *state.View, name string) (*state.User, error) {
	if u, ok := v.User(name); ok {
		return u, nil
	}
	return nil, notFound("millrace user list", "no such user: %s", name)
}

// userView never has the code: it is not kept. For people a user was created when that was asked for: before any login.
func userView(u *state.User) *api.User {
	m := &api.User{Name: u.Name, Role: u.Role, LastLoginAt: stamp(u.LastLoginAt)}
	if !u.CreatedAt.IsZero() {
		m.CreatedAt = stamp(u.CreatedAt.Add(-namesakes))
	}
	if len(u.CodeHash) > 0 {
		m.CodeExpiresAt = stamp(u.CodeExpiresAt)
	}
	return m
}

// Login trades a person's code for a certificate. The code is used up with it: should the answer be lost, there is another
// one to be asked for.
func (s *joinService) Login(ctx context.Context, req *connect.Request[api.LoginRequest]) (*connect.Response[api.LoginResponse], error) {
	v, _, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	code, err := security.ParseCode(req.Msg.Code)
	if err != nil {
		return nil, err
	}
	u, ok := v.UserOfCode(code.ID)
	now := s.cfg.Now()
	switch {
	case !ok || !code.Matches(u.CodeHash):
		return nil, badCode("the login code is not known here: it was used before, a newer one has taken its place, or the user was removed")
	case !now.Before(u.CodeExpiresAt):
		return nil, badCode("the login code of user %s has expired at %s", u.Name, u.CodeExpiresAt.Format(time.RFC3339))
	}
	answer, err := s.login(v, u.Name, u.Role, u.CreatedAt, req.Msg.CsrDer)
	if err != nil {
		return nil, err
	}
	_, err = s.cfg.Log.Apply(ctx, state.LoginUser{CodeID: code.ID, Now: now.UTC()})
	switch {
	case errors.Is(err, state.ErrToken): // somebody was faster
		return nil, badCode("%s", err)
	case err != nil:
		return nil, fmt.Errorf("login: %w", err)
	}
	s.log.Info("login", zap.String("user", answer.User), zap.String("peer", callOf(ctx).peer))
	return connect.NewResponse(answer), nil
}

func badCode(format string, args ...any) error {
	return &problem{code: connect.CodeUnauthenticated, exit: client.ExitUnreachable, errs: []string{fmt.Sprintf(format, args...)},
		next: "ask an administrator for a new one: millrace user code NAME"}
}

// RenewLogin gives a person who has a certificate a fresh one, and what the site trusts by now.
func (s *millraceService) RenewLogin(ctx context.Context, req *connect.Request[api.RenewLoginRequest]) (*connect.Response[api.LoginResponse], error) {
	v, _, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	c := callOf(ctx)
	created := time.Time{} // of who has no record
	if u, ok := v.User(c.caller.ID); ok && c.caller.ID != Admin {
		created = u.CreatedAt
	}
	answer, err := s.login(v, c.caller.ID, whoNames[c.who], created, req.Msg.CsrDer)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(answer), nil
}

// login makes a person's certificate, dated not before the person was made known.
func (s *Server) login(v *state.View, name, role string, created time.Time, csr []byte) (*api.LoginResponse, error) {
	site, ok := v.Site()
	if !ok {
		return nil, errNoLeader
	}
	ca, _, err := s.secrets(site)
	if err != nil {
		return nil, err
	}
	now := s.cfg.Now()
	if now.Before(created) {
		now = created
	}
	cert, _, err := ca.Sign(csr, security.Identity{Site: site.ID, Role: security.RoleUser, ID: name}, nil, now, security.CertLifetime)
	if err != nil {
		return nil, err
	}
	store, err := s.storeFor(v, role == state.UserAdmin)
	if err != nil {
		return nil, err
	}
	return &api.LoginResponse{CertificatePem: cert, CaPem: ca.CertPEM(), Site: site.ID, User: name, Role: role, Masters: masterAddresses(v), Store: store}, nil
}

// storeFor is the site's object store, with its keys for an administrator only.
func (s *Server) storeFor(v *state.View, keys bool) (*api.ObjectStore, error) {
	_, settings, err := s.siteStore(v)
	if err != nil || keys {
		return settings, err
	}
	return &api.ObjectStore{Endpoint: settings.Endpoint, Region: settings.Region, CaPem: settings.CaPem}, nil
}
