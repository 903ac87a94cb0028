package membership

import (
	"bytes"
	"net"
	"testing"

	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"
)

// FuzzSeen: whatever a node says of itself, the table keeps members with an id only.
func FuzzSeen(f *testing.F) {
	f.Add([]byte(`{"id":"i-a","role":"master","address":"https://a"}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, meta []byte) {
		m, err := New(Config{ID: "i-self", Role: RoleMaster, Address: "https://self", Listen: "127.0.0.1:0", Key: bytes.Repeat([]byte{1}, 32), Log: zap.NewNop()})
		if err != nil {
			t.Fatal(err)
		}
		for _, alive := range []bool{true, false, true} {
			m.seen(&memberlist.Node{Name: "n", Addr: net.IPv4(127, 0, 0, 1), Port: 1, Meta: meta}, alive)
		}
		for _, x := range m.Members() {
			if x.ID == "" {
				t.Fatalf("%q makes a member without an id: %+v", meta, x)
			}
		}
	})
}

func FuzzSplitPort(f *testing.F) {
	f.Add("127.0.0.1:7071")
	f.Add("[::1]:65536")
	f.Fuzz(func(t *testing.T, addr string) {
		if _, port, err := splitPort(addr); err == nil && (port < 0 || port > 65535) {
			t.Fatalf("%q has port %d", addr, port)
		}
	})
}
