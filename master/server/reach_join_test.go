package server

import (
	"net"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"millrace/master/session"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/api/apiconnect"
	"millrace/pkg/client"
	"millrace/pkg/security"
)

// asks is a machine that asks how it is reached, with no more than a token.
func (w *world) asks(token string, m *api.ReachRequest) (*api.ReachResponse, error) {
	w.t.Helper()
	trust, err := security.NewToken(w.ca.CertPEM())
	require.NoError(w.t, err)
	m.Token = token
	join := apiconnect.NewJoinServiceClient(httpsClient(w.t, security.JoinTLS(trust)), w.http.URL)
	resp, err := join.Reach(w.t.Context(), connect.NewRequest(m))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// echo sends back what comes in.
func echo(t *testing.T) string {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 100)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			conn.WriteTo(buf[:n], from)
		}
	}()
	return conn.LocalAddr().String()
}

func TestReachSaysWhatCannotBeReached(t *testing.T) {
	w := newWorld(t)
	token := w.token(&api.CreateJoinTokenRequest{Role: "task", Uses: 1})
	open, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer open.Close()
	shut, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, shut.Close())
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()

	resp, err := w.asks(token.Token, &api.ReachRequest{
		Tcp: []string{open.Addr().String(), shut.Addr().String(), "127.0.0.2:22", "example.org:443"}, Udp: []string{echo(t), silent.LocalAddr().String()},
	})
	require.NoError(t, err)
	require.Equal(t, []string{
		shut.Addr().String() + "/tcp: connection refused",
		"127.0.0.2:22/tcp: not tried: the machine calls from 127.0.0.1",
		"example.org:443/tcp: not of the form IP:PORT",
		silent.LocalAddr().String() + "/udp: no answer within 4s",
	}, resp.Unreachable)
	require.Equal(t, []string{"TASK", "default", site, "m"}, []string{resp.Role, resp.Cluster, resp.Site, resp.Name})
	require.Equal(t, w.time().UnixMilli(), resp.NowMs)
	require.Contains(t, resp.Tcp, w.http.Listener.Addr().String())
	require.Equal(t, []string{"127.0.0.1:1"}, resp.Udp)

	_, err = w.join(machine(t, workerID), token.Token)
	require.NoError(t, err, "asking has not used it up")
	_, err = w.asks(token.Token, &api.ReachRequest{})
	requireProblems(t, err, client.ExitUnreachable, "used up")
}

func TestReachTakesAGoodTokenOnly(t *testing.T) {
	w := newWorld(t)
	token := w.token(&api.CreateJoinTokenRequest{Role: "core", TtlMs: 60_000})
	_, err := w.asks(token.Token[:len(token.Token)-3], &api.ReachRequest{})
	requireProblems(t, err, client.ExitUsage, "not a join token")
	_, err = w.asks(token.Token, &api.ReachRequest{Tcp: make([]string, reachPorts+1)})
	requireProblems(t, err, client.ExitUsage, "9 ports to connect to: at most 8")
	w.later(time.Hour)
	_, err = w.asks(token.Token, &api.ReachRequest{})
	requireProblems(t, err, client.ExitUnreachable, "expired")

	master := w.token(&api.CreateJoinTokenRequest{Role: "master"})
	w.server.Lead(nil) // a follower answers, too
	resp, err := w.asks(master.Token, &api.ReachRequest{})
	require.NoError(t, err)
	require.Equal(t, []string{"MASTER", ""}, []string{resp.Role, resp.Cluster})
	w.apply(state.RevokeToken{ID: master.Id})
	_, err = w.asks(master.Token, &api.ReachRequest{})
	require.Equal(t, connect.CodeUnavailable, connect.CodeOf(err), "the leader may know it")
}

func TestReachNamesTheNodeThatHasTheAddress(t *testing.T) {
	w := newWorld(t)
	token := w.token(&api.CreateJoinTokenRequest{Role: "core"})
	_, err := w.join(machine(t, workerID), token.Token)
	require.NoError(t, err)
	w.sessions.nodes = []session.Node{{ID: workerID, Address: "https://10.0.0.5:7410"}}
	for address, by := range map[string]string{
		"https://10.0.0.5:7410": "node host (" + workerID + ")",
		"https://10.0.0.6:7410": "",
		w.http.URL:              "master m (" + masterID + ")",
	} {
		resp, err := w.asks(token.Token, &api.ReachRequest{Address: address})
		require.NoError(t, err)
		require.Equal(t, by, resp.Taken, address)
	}
	resp, err := w.asks(token.Token, &api.ReachRequest{Address: "https://10.0.0.5:7410", NodeId: workerID})
	require.NoError(t, err)
	require.Empty(t, resp.Taken, "it is its own")
}

// masters are further masters of the site: one that is up, one that is lost, one that was taken out, and one that was removed.
func (w *world) masters() (up, lost, out, ended state.Node) {
	w.t.Helper()
	of := func(id, name string) state.Node {
		n := state.Node{ID: id, Name: name, Role: state.RoleMaster, Address: "https://" + name + ".test:7400", Raft: name + ".test:7401"}
		n.Spare = name == "out"
		w.apply(state.PutNode{Node: n})
		return n
	}
	up, lost, out, ended = of("i-0000000000000000a", "up"), of("i-0000000000000000b", "lost"), of("i-0000000000000000c", "out"), of("i-0000000000000000d", "ended")
	w.apply(state.RemoveNode{ID: ended.ID})
	w.cluster.alive = map[string]bool{up.ID: true, out.ID: true, ended.ID: true}
	return up, lost, out, ended
}

// Who joins has to reach the masters of the set that are up. One that is lost keeps nobody out, and is named; of one that is
// out of the set nobody hears.
func TestReachAsksForTheMastersThatAreUp(t *testing.T) {
	w := newWorld(t)
	w.masters()
	resp, err := w.asks(w.token(&api.CreateJoinTokenRequest{Role: "master"}).Token, &api.ReachRequest{})
	require.NoError(t, err)
	require.ElementsMatch(t, []string{w.http.URL, "https://up.test:7400"}, resp.Masters)
	require.ElementsMatch(t, []string{"127.0.0.1:1", w.http.Listener.Addr().String(), "up.test:7400", "up.test:7401"}, resp.Tcp)
	require.Equal(t, []string{"lost (https://lost.test:7400)"}, resp.Lost)

	joined, err := w.join(machine(t, workerID), w.token(&api.CreateJoinTokenRequest{Role: "core"}).Token)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{w.http.URL, "https://up.test:7400", "https://lost.test:7400"}, joined.Masters, "one that is lost may come back")
}
