package membership

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAKnockIsForOneAddressAndAWhile(t *testing.T) {
	key, other := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	from, now := netip.MustParseAddr("10.0.0.5"), time.Unix(1_800_000_000, 0)
	knock, err := NewKnock(key, from, now)
	require.NoError(t, err)
	require.True(t, knocks(key, knock, from, now.Add(KnockLife)))
	require.True(t, knocks(key, knock, netip.MustParseAddr("::ffff:10.0.0.5"), now), "the same address, as a socket of both families names it")
	require.True(t, knocks(key, append(bytes.Clone(knock), "and a few bytes"...), from, now))
	for what, is := range map[string]bool{
		"too late":               knocks(key, knock, from, now.Add(KnockLife+time.Second)),
		"from somebody else":     knocks(key, knock, netip.MustParseAddr("10.0.0.6"), now),
		"of another site":        knocks(other, knock, from, now),
		"cut off":                knocks(key, knock[:len(knock)-1], from, now),
		"changed":                knocks(key, append(bytes.Clone(knock[:len(knock)-1]), knock[len(knock)-1]^1), from, now),
		"nothing but its prefix": knocks(key, []byte(knockMagic), from, now),
		"too long":               knocks(key, append(bytes.Clone(knock), make([]byte, mostAfter+1)...), from, now),
		"empty":                  knocks(key, nil, from, now),
	} {
		require.False(t, is, what)
	}
}

func TestAMemberSendsAKnockBackAndNothingElse(t *testing.T) {
	m := open(t, "i-a", RoleMaster, 1)
	conn, err := net.Dial("udp", m.Addr())
	require.NoError(t, err)
	defer conn.Close()
	knock, err := NewKnock(bytes.Repeat([]byte{1}, 32), netip.MustParseAddr("127.0.0.1"), time.Now())
	require.NoError(t, err)
	require.NoError(t, Knock(conn, knock, 10*time.Second))

	foreign, err := NewKnock(bytes.Repeat([]byte{2}, 32), netip.MustParseAddr("127.0.0.1"), time.Now())
	require.NoError(t, err)
	require.ErrorIs(t, Knock(conn, foreign, 100*time.Millisecond), ErrNoEcho)

	b := open(t, "i-b", "worker", 1, m.Addr())
	await(t, b, map[string]bool{"i-a": true, "i-b": true})
}
