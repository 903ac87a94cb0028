package state

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestUsers(t *testing.T) {
	b := newBench(t)
	ann := User{Name: "ann", Role: UserAdmin, CreatedAt: t0, CodeID: "c-1", CodeHash: []byte{1}, CodeExpiresAt: at(60)}
	b.do(CreateUser{ann})
	b.refuse(ErrExists, CreateUser{User{Name: "ann", Role: UserRead}})
	b.refuse(ErrExists, CreateUser{User{Name: "bob", Role: UserRead, CodeID: "c-1"}})
	b.refuse(ErrInvalid, CreateUser{User{Role: UserRead}})
	b.refuse(ErrInvalid, CreateUser{User{Name: "bob", Role: "root"}})
	b.do(CreateUser{User{Name: "bob", Role: UserRead}})
	if got := ids(b.View().Users(), func(u *User) string { return u.Name }); got != "ann bob " {
		t.Error(got)
	}
	if u, ok := b.View().UserOfCode("c-1"); !ok || u.Name != "ann" {
		t.Error("the code's user is not found")
	}
	if _, ok := b.View().UserOfCode(""); ok {
		t.Error("no code is somebody's")
	}
	b.do(RemoveUser{"bob"})
	b.refuse(ErrNotFound, RemoveUser{"bob"})
	if _, ok := b.View().User("bob"); ok {
		t.Error("a user that was removed is there")
	}
}

func TestALoginCodeIsGoodOnce(t *testing.T) {
	b := newBench(t)
	b.do(CreateUser{User{Name: "ann", Role: UserAdmin, CreatedAt: t0, CodeID: "c-1", CodeHash: []byte{1}, CodeExpiresAt: at(60)}})
	b.refuse(ErrToken, LoginUser{"c-1", at(60)})
	b.refuse(ErrToken, LoginUser{"", t0})
	u := b.do(LoginUser{"c-1", at(59)}).(*User)
	if u.Role != UserAdmin || !u.LastLoginAt.Equal(at(59)) || u.CodeID != "" || u.CodeHash != nil || !u.CreatedAt.Equal(t0) {
		t.Errorf("%+v", u)
	}
	err := b.refuse(ErrToken, LoginUser{"c-1", at(59)})
	if !strings.HasPrefix(err.Error(), "login code refused: ") || errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	b.do(PutLoginCode{"ann", "c-2", []byte{2}, at(60)})
	b.do(PutLoginCode{"ann", "c-3", []byte{3}, at(60)})
	b.refuse(ErrToken, LoginUser{"c-2", t0}) // a newer one was made
	b.refuse(ErrExists, PutLoginCode{"ann", "c-3", []byte{3}, at(60)})
	b.refuse(ErrInvalid, PutLoginCode{"ann", "c-4", nil, at(60)})
	b.refuse(ErrNotFound, PutLoginCode{"bob", "c-4", []byte{3}, at(60)})
	b.do(RemoveUser{"ann"})
	b.refuse(ErrToken, LoginUser{"c-3", t0})
}

func TestTheSitesSettings(t *testing.T) {
	b := newBench(t)
	if s := b.do(SetSite{NoExec: new(true)}).(*Site); !s.NoExec || s.SystemPrefix != "s3://sys/" {
		t.Errorf("%+v", s)
	}
	if s := b.do(SetSite{}).(*Site); !s.NoExec {
		t.Errorf("%+v", s)
	}
	spread := PutCA{Phase: CASpreading, Since: at(1), CAPEM: "old new", SealedCAKey: []byte{1}, NextCAPEM: "new", SealedNextKey: []byte{2}}
	s := b.do(spread).(*Site)
	if s.CAPhase != CASpreading || !s.CASince.Equal(at(1)) || s.CAPEM != "old new" || s.NextCAPEM != "new" || s.SealedCAKey[0] != 1 || s.SealedNextKey[0] != 2 {
		t.Errorf("%+v", s)
	}
	b.refuse(ErrTooLate, spread) // somebody was first
	b.refuse(ErrInvalid, PutCA{From: CASpreading, CAPEM: "new"})
	if s := b.do(PutCA{From: CASpreading, CAPEM: "new", SealedCAKey: []byte{2}}).(*Site); s.CAPhase != CASteady || s.NextCAPEM != "" || s.SealedNextKey != nil || !s.CASince.Equal(time.Time{}) {
		t.Errorf("%+v", s)
	}
	b = &bench{failer: t, Store: New()}
	b.refuse(ErrNotFound, SetSite{})
	b.refuse(ErrNotFound, spread)
}
