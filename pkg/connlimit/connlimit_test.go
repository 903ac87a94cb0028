package connlimit

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func listen(t *testing.T, total, perHost int) (l *Listener, accepted chan net.Conn) {
	t.Helper()
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l = New(raw, total, perHost)
	accepted = make(chan net.Conn, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l, accepted
}

func dial(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestWhatIsTooMuchIsClosed(t *testing.T) {
	for name, limits := range map[string][2]int{"of one host": {100, 3}, "in all": {3, 100}} {
		t.Run(name, func(t *testing.T) {
			l, accepted := listen(t, limits[0], limits[1])
			var open []net.Conn
			for range 3 {
				dial(t, l)
				open = append(open, <-accepted)
			}
			require.NoError(t, dial(t, l).SetDeadline(time.Now().Add(time.Minute)))
			more := dial(t, l)
			_, err := more.Read(make([]byte, 1))
			require.ErrorIs(t, err, io.EOF)
			require.Empty(t, accepted)

			require.NoError(t, open[0].Close())
			require.Error(t, open[0].Close(), "twice, which counts once")
			dial(t, l)
			require.NotNil(t, <-accepted)
			_, err = dial(t, l).Read(make([]byte, 1))
			require.ErrorIs(t, err, io.EOF)
		})
	}
}

func TestHostsAreForgotten(t *testing.T) {
	l, accepted := listen(t, 10, 10)
	dial(t, l)
	require.NoError(t, (<-accepted).Close())
	require.Empty(t, l.hosts)
	require.Zero(t, l.open)
}
