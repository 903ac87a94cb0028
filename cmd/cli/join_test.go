package cli

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/pkg/security"
)

func TestAClockThatIsOff(t *testing.T) {
	master := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	for off, says := range map[time.Duration]string{
		0:                      "",
		mostSkew:               "",
		-mostSkew:              "",
		24 * time.Hour:         "this machine's clock is 24h0m0s ahead of the master's: at most 5m0s are allowed",
		-6 * time.Minute:       "this machine's clock is 6m0s behind the master's: at most 5m0s are allowed",
		365 * 24 * time.Hour:   "8760h0m0s ahead",
		mostSkew + time.Second: "5m1s ahead",
	} {
		// The answer took two seconds, and was made in the middle of them.
		err := clockFault(master, master.Add(off-time.Second), master.Add(off+time.Second))
		if says == "" {
			require.NoError(t, err, off)
			continue
		}
		require.ErrorContains(t, err, says)
		var passing *againError
		require.True(t, errors.As(err, &passing), "a clock is set while join --wait waits")
	}
}

func TestAMastersAddress(t *testing.T) {
	for typed, url := range map[string]string{
		"10.0.0.1": "https://10.0.0.1:7400", "https://m1.example.org": "https://m1.example.org:7400", "m1:7500": "https://m1:7500",
		"https://[fd00::1]:7400/": "https://[fd00::1]:7400", "http://10.0.0.1:7400": "", "https://10.0.0.1/x": "", "https://": "", "::": "",
	} {
		got, err := masterURL(typed)
		if url == "" {
			require.Error(t, err, typed)
		} else {
			require.NoError(t, err, typed)
		}
		require.Equal(t, url, got)
	}
}

func TestSeveralFaultsAreOne(t *testing.T) {
	require.NoError(t, allFaults(nil))
	passing, final := again("wait", "the port is shut"), usagef("mend it", "the token is another's")
	var r *againError
	err := allFaults([]error{passing, again("", "and another")})
	require.True(t, errors.As(err, &r))
	err = allFaults([]error{passing, final})
	require.False(t, errors.As(err, &r), "waiting mends only one of them")
	var f *fault
	require.True(t, errors.As(err, &f))
	require.Equal(t, []string{"the port is shut", "the token is another's"}, f.lines)
	require.Equal(t, exitUnreachable, f.code)
}

func TestTheAddressOfThisMachine(t *testing.T) {
	host, local, err := hostAddress("lo", "")
	require.NoError(t, err)
	require.True(t, local)
	require.True(t, host.IsLoopback())
	host, local, err = hostAddress("192.0.2.7", "")
	require.NoError(t, err)
	require.False(t, local, "translated on the way: nobody can send from it")
	require.Equal(t, netip.MustParseAddr("192.0.2.7"), host)
	host, _, err = hostAddress("", "127.0.0.1:7400")
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1", host.String())
	_, _, err = hostAddress("no-such-interface.invalid", "")
	require.ErrorContains(t, err, "neither an address, nor an interface, nor a host name")
}

func TestPortsOfThisMachineAreTried(t *testing.T) {
	d, err := openDoors(nodePorts{"127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"}, netip.Addr{})
	require.NoError(t, err)
	taken := d.tcp[0].Addr().String()
	_, err = openDoors(nodePorts{api: taken, gossip: "127.0.0.1:0"}, netip.Addr{})
	require.ErrorContains(t, err, "port "+taken[strings.LastIndexByte(taken, ':')+1:]+"/tcp of this machine is in use")
	d.close()
}

func TestJoinAndItsLike(t *testing.T) {
	if os.Geteuid() != 0 {
		require.Contains(t, newSession(t).run("join", "10.0.0.1", "x").err, "it has to run as root")
		t.Skip("the rest needs root")
	}
	ca, err := security.NewCA("site")
	require.NoError(t, err)
	token, err := security.NewToken(ca.CertPEM())
	require.NoError(t, err)
	dir := t.TempDir()
	for line, says := range map[string]string{
		"join 10.0.0.1":                                        "needs URL… TOKEN",
		"join 10.0.0.1 mr1.x.y.z --dir " + dir:                 "not a join token",
		"join http://10.0.0.1 " + token.String():               "is no address of a master",
		"join 10.0.0.1 @/no/such/file --dir " + dir:            "TOKEN: open /no/such/file",
		"join 10.0.0.1 " + token.String() + " --ca-sha256 00":  "whose CA has the fingerprint",
		"join 10.0.0.1 " + token.String() + " --listen 7410":   "--listen 7410: not of the form HOST:PORT",
		"join 127.0.0.1:1 " + token.String() + " --dir " + dir: "cannot reach 127.0.0.1:1/tcp: open the port, or --advertise (connection refused)",
		"init --role core --dir " + dir:                        "--role core: the first machine is master, or master,core",
		"init --advertise lo --dir " + dir:                     "a site needs an object store",
		"node add -oProxyCommand=x":                            "has no flag -oProxyCommand",
		"node add -- -oProxyCommand=x":                         "is no host for ssh",
		"cluster user-data --role master --ttl 0s --uses -1":   "--role master is not one of core, task, pool",
		"supervise": "name one service, or give --all",
		"supervise --stop --start millrace-worker":    "name one service, or give --all",
		"supervise --status millrace-no-such-service": "millrace-no-such-service is not kept running",
		"supervise --start millrace-no-such-service":  "service millrace-no-such-service: ",
	} {
		o := newSession(t).run(strings.Fields(line)...)
		require.NotZero(t, o.code, line)
		require.Contains(t, o.err, says, line)
		require.NotContains(t, o.err, token.Secret)
	}
}
