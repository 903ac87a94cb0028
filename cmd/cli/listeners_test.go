package cli

import (
	"fmt"
	"net"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestListener(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	require.Contains(t, listener(tcp.Addr().String()), fmt.Sprintf("pid %d, ", os.Getpid()))
	require.Contains(t, listener(udp.LocalAddr().String()), fmt.Sprintf("pid %d, ", os.Getpid()))
	free := udp.LocalAddr().String()
	require.NoError(t, udp.Close())
	for _, nobody := range []string{free, "nonsense", ":http", ":0"} {
		require.Empty(t, listener(nobody), nobody)
	}
}
