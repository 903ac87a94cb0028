package client

import (
	"context"
	"net"
	"net/http"
	"net/netip"

	"connectrpc.com/connect"

	"millrace/pkg/api"
	"millrace/pkg/api/apiconnect"
	"millrace/pkg/security"
)

// Reach asks one master, for who holds a token, how it reaches this machine and what this machine must be able to reach; from is the address
// that it calls from, the zero one means any. Nothing is repeated. The master must be of the token's site.
func Reach(ctx context.Context, server, token string, from netip.Addr, req *api.ReachRequest) (*api.ReachResponse, error) {
	t, err := security.ParseToken(token)
	if err != nil {
		return nil, err
	}
	addresses, err := addressesOf([]string{server})
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: dialTimeout}
	if from.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	config := forHTTP(security.JoinTLS(t))
	transport := &http.Transport{ForceAttemptHTTP2: true, DialTLSContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dialTLS(ctx, dialer, network, addresses[0], config)
	}}
	defer transport.CloseIdleConnections()
	req.Token = t.String()
	resp, err := apiconnect.NewJoinServiceClient(plainClient{&http.Client{Transport: transport}}, baseURL).Reach(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}
