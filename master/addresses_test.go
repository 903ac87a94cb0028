package master

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAddressOf(t *testing.T) {
	name, err := os.Hostname()
	require.NoError(t, err)
	for _, c := range []struct{ listen, advertise, want string }{
		{"127.0.0.1:7400", "", "https://127.0.0.1:7400"},
		{":7400", "", "https://" + name + ":7400"},
		{":7400", "10.0.0.1", "https://10.0.0.1:7400"},
		{":7400", "m1:443", "https://m1:443"},
		{"127.0.0.1:0", "", ""},
		{":0", "10.0.0.1", ""},
		{":0", "10.0.0.1:7400", "https://10.0.0.1:7400"},
		{"7400", "", ""},
	} {
		require.Equal(t, c.want, AddressOf(c.listen, c.advertise), c)
	}
}
