//go:build cluster

package clustertest

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMachinesJoinPastALostMaster: one of three masters is off. Others join, and are told that it is lost; once it is removed nobody
// hears of it any more, and when it comes back its service ends.
func TestMachinesJoinPastALostMaster(t *testing.T) {
	l := newLab(t)
	m1 := l.site()
	join := func(name string, n int, role string) (*labHost, result) {
		t.Helper()
		h := l.host(name, n)
		h.bring(binary(t), "/root/millrace")
		h.put("/root/token", m1.do("millrace join-token create --role "+role))
		r := h.try("./millrace join 10.0.0.1 @token")
		require.Zero(t, r.code, r.err)
		return h, r
	}
	votes := func(n int) {
		t.Helper()
		waitFor(t, "masters vote", func() (bool, string) {
			list := m1.do("millrace master list --json")
			return strings.Count(list, `"VOTER"`) == n, list
		})
	}
	_, r := join("m2", 2, "master")
	require.NotContains(t, r.err, "lost")
	m3, _ := join("m3", 3, "master")
	votes(3)

	m3.network(false)
	waitFor(t, "m3 is lost", func() (bool, string) {
		list := m1.do("millrace master list")
		return strings.Contains(list, "LOST"), list
	})
	_, r = join("m4", 4, "core")
	require.Contains(t, r.err, "mind: master m3 (https://10.0.0.3:7400) is lost: it was not tried whether this machine and it reach each other\n")
	m1.awaitNode("m4")

	require.Contains(t, m1.do("millrace master remove m3"), "was lost: it is out of the set and of the site for good")
	require.NotContains(t, m1.do("millrace node list"), "m3")
	require.NotContains(t, m1.do("millrace cluster user-data --role task"), "10.0.0.3")
	_, r = join("m5", 5, "master")
	require.NotContains(t, r.err, "lost")
	votes(3)

	m3.network(true)
	waitFor(t, "the removed master ends", func() (bool, string) {
		r := m3.try("cat /var/lib/millrace/master.log")
		return strings.Contains(r.out, "the master was removed from its site"), r.out
	})
	votes(3)
}
