package ports

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

const low, high = 20000, 32000

func TestWhatOneReservedNoOtherGets(t *testing.T) {
	var one, other Reserved
	t.Cleanup(other.Close)
	port, err := one.Take(low, high)
	require.NoError(t, err)
	require.True(t, one.Reserve(port), "it still has it")
	require.False(t, other.Reserve(port), "nobody listens there yet")
	_, err = other.Take(port, port+1)
	require.ErrorContains(t, err, "no free port between")
	_, err = one.Take(port, port+1)
	require.Error(t, err, "it has been given")
	one.Close()
	require.True(t, other.Reserve(port))
}

func TestAPortWhereSomebodyListensIsNotFree(t *testing.T) {
	var r Reserved
	t.Cleanup(r.Close)
	port, err := r.Take(low, high)
	require.NoError(t, err)
	l, err := net.Listen("tcp", Address(port))
	require.NoError(t, err)
	require.False(t, r.Reserve(port))
	require.NoError(t, l.Close())
	u, err := net.ListenPacket("udp", Address(port))
	require.NoError(t, err)
	require.False(t, r.Reserve(port))
	require.NoError(t, u.Close())
	require.True(t, r.Reserve(port))
}
