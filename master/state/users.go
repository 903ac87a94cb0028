package state

import "fmt"

// codeError is why a login code was refused. It is ErrToken: both are secrets that are good for one thing.
type codeError string

func (e codeError) Error() string { return "login code refused: " + string(e) }
func (codeError) Unwrap() error   { return ErrToken }

// user returns a copy of a person's record, to change and put.
func (t *txn) user(name string) (*User, error) {
	old, ok := first[User](t.Txn, tableUser, byID, name)
	if !ok {
		return nil, fmt.Errorf("user %q: %w", name, ErrNotFound)
	}
	u := *old
	return &u, nil
}

func (t *txn) createUser(c CreateUser) (*User, error) {
	u := c.User
	if u.Name == "" || u.Role != UserAdmin && u.Role != UserSubmit && u.Role != UserRead {
		return nil, fmt.Errorf("%w: a user needs a name and the role %s, %s or %s", ErrInvalid, UserAdmin, UserSubmit, UserRead)
	}
	if _, ok := first[User](t.Txn, tableUser, byID, u.Name); ok {
		return nil, fmt.Errorf("user %q: %w", u.Name, ErrExists)
	}
	if err := t.freeCode(u.CodeID); err != nil {
		return nil, err
	}
	return &u, t.Insert(tableUser, &u)
}

// freeCode refuses a login code that somebody has.
func (t *txn) freeCode(id string) error {
	if id == "" {
		return nil
	}
	if u, ok := first[User](t.Txn, tableUser, byCode, id); ok {
		return fmt.Errorf("login code %s of user %q: %w", id, u.Name, ErrExists)
	}
	return nil
}

func (t *txn) putLoginCode(c PutLoginCode) (*User, error) {
	u, err := t.user(c.Name)
	if err != nil {
		return nil, err
	}
	if c.CodeID == "" || len(c.CodeHash) == 0 {
		return nil, fmt.Errorf("%w: a login code needs an id and the hash of its secret", ErrInvalid)
	}
	if err := t.freeCode(c.CodeID); err != nil {
		return nil, err
	}
	u.CodeID, u.CodeHash, u.CodeExpiresAt = c.CodeID, c.CodeHash, c.ExpiresAt
	return u, t.Insert(tableUser, u)
}

func (t *txn) removeUser(c RemoveUser) (*User, error) {
	u, err := t.user(c.Name)
	if err != nil {
		return nil, err
	}
	return u, t.Delete(tableUser, u)
}

func (t *txn) loginUser(c LoginUser) (*User, error) {
	old, ok := first[User](t.Txn, tableUser, byCode, c.CodeID)
	switch {
	case !ok || c.CodeID == "":
		return nil, codeError("it is not known here: it was used, or a newer one was made")
	case !c.Now.Before(old.CodeExpiresAt):
		return nil, codeError("it has expired")
	}
	u := User{Name: old.Name, Role: old.Role, CreatedAt: old.CreatedAt, LastLoginAt: c.Now}
	return &u, t.Insert(tableUser, &u)
}

// Users returns all people that are known, in order of their names.
func (v *View) Users() []*User { return collect(each[User](v.txn, tableUser, byID)) }

// User finds a person by name.
func (v *View) User(name string) (*User, bool) { return first[User](v.txn, tableUser, byID, name) }

// UserOfCode finds the person whose next login takes a code, by its id.
func (v *View) UserOfCode(id string) (*User, bool) { return first[User](v.txn, tableUser, byCode, id) }
