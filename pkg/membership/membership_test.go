package membership

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
)

func open(t *testing.T, id, role string, key byte, peers ...string) *Membership {
	t.Helper()
	m, err := New(Config{ID: id, Role: role, Address: "https://" + id, Listen: "127.0.0.1:0",
		Key: bytes.Repeat([]byte{key}, 32), Peers: peers, Log: zap.NewNop()})
	require.NoError(t, err)
	require.NoError(t, m.Open(context.Background()))
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

// await waits until the members of m are as wanted: id to alive.
func await(t *testing.T, m *Membership, want map[string]bool) {
	t.Helper()
	late := time.After(time.Minute)
	for {
		got := map[string]bool{}
		for _, x := range m.Members() {
			got[x.ID] = x.Alive
		}
		if len(got) == len(want) {
			same := true
			for id, alive := range want {
				a, ok := got[id]
				same = same && ok && a == alive
			}
			if same {
				return
			}
		}
		select {
		case <-m.Changes():
		case <-late:
			t.Fatalf("members are %v, want %v", got, want)
		}
	}
}

func TestNodesFindEachOtherThroughOnePeer(t *testing.T) {
	a := open(t, "i-a", RoleMaster, 1)
	b := open(t, "i-b", "worker", 1, a.Addr())
	c := open(t, "i-c", "worker", 1, a.Addr())
	all := map[string]bool{"i-a": true, "i-b": true, "i-c": true}
	for _, m := range []*Membership{a, b, c} {
		await(t, m, all)
	}
	require.Equal(t, "https://i-a", b.Members()[0].Address)
	require.Equal(t, RoleMaster, b.Members()[0].Role)

	require.NoError(t, c.Close())
	await(t, a, map[string]bool{"i-a": true, "i-b": true})
	require.NoError(t, c.Close(), "close is idempotent")
}

func TestAWorkerWaitsForItsMasterAndFindsItAgain(t *testing.T) {
	a := open(t, "i-a", RoleMaster, 1)
	addr := a.Addr()
	w := open(t, "i-w", "worker", 1, addr)
	await(t, w, map[string]bool{"i-a": true, "i-w": true})

	// The master dies without a word and comes back elsewhere, under its own id.
	a.mu.Lock()
	list := a.list
	a.list = nil // nothing left to close in good order
	a.mu.Unlock()
	require.NoError(t, list.Shutdown())
	await(t, w, map[string]bool{"i-a": false, "i-w": true})
	again := open(t, "i-a", RoleMaster, 1, w.Addr())
	await(t, w, map[string]bool{"i-a": true, "i-w": true})
	for _, x := range w.Members() {
		if x.ID == "i-a" {
			require.Equal(t, again.Addr(), x.Gossip)
		}
	}
}

// TestTheAddressWhileNewsComes: a member's own address can be asked for while memberlist, under its own lock, tells of a change.
func TestTheAddressWhileNewsComes(t *testing.T) {
	m := open(t, "i-a", RoleMaster, 1)
	m.mu.Lock()
	list := m.list
	m.mu.Unlock()
	told := make(chan struct{})
	go func() {
		defer close(told)
		for i := range 2000 {
			m.mu.Lock()
			m.self.Started = int64(i) // what makes it news
			m.mu.Unlock()
			if err := list.UpdateNode(0); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	late := time.After(time.Minute)
	for asked := make(chan string, 1); ; {
		go func() { asked <- m.Addr() }()
		select {
		case address := <-asked:
			require.NotEmpty(t, address)
		case <-late:
			t.Fatal("it is waited for: two locks in two orders")
		}
		select {
		case <-told:
			return
		default:
		}
	}
}

func TestAStrangerWithoutTheKeyIsNotAMember(t *testing.T) {
	a := open(t, "i-a", RoleMaster, 1)
	s := open(t, "i-s", "worker", 2, a.Addr())
	_, err := s.list.Join([]string{a.Addr()})
	require.Error(t, err)
	await(t, a, map[string]bool{"i-a": true})
}

func TestConfigIsChecked(t *testing.T) {
	good := Config{ID: "i-a", Role: "worker", Listen: "127.0.0.1:0", Key: make([]byte, 32)}
	for name, spoil := range map[string]func(*Config){
		"id":     func(c *Config) { c.ID = "" },
		"role":   func(c *Config) { c.Role = "" },
		"key":    func(c *Config) { c.Key = c.Key[:31] },
		"listen": func(c *Config) { c.Listen = "nowhere" },
		"port":   func(c *Config) { c.Listen = "127.0.0.1:70000" },
		"meta":   func(c *Config) { c.Address = string(bytes.Repeat([]byte("a"), 600)) },
	} {
		c := good
		spoil(&c)
		_, err := New(c)
		require.Error(t, err, name)
	}
	_, err := New(good)
	require.NoError(t, err)
}

func TestLogLinesKeepTheirLevel(t *testing.T) {
	for _, c := range []struct{ in, level, text string }{
		{"[WARN] memberlist: who is this\n", "WARN", "who is this"},
		{"[DEBUG] memberlist: a [b] c", "DEBUG", "a [b] c"},
		{"plain", "", "plain"},
		{"[broken", "", "[broken"},
		{"", "", ""},
	} {
		level, text := parseLine([]byte(c.in))
		require.Equal(t, c.level, level)
		require.Equal(t, c.text, text)
	}
}
