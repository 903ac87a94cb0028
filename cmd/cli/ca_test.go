package cli

import (
	"context"
	"io"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
)

// caMaster is a master whose CA is being changed.
type caMaster struct {
	*fakeMaster
	state api.CAState
}

func (m *caMaster) RotateCA(context.Context, *connect.Request[api.RotateCARequest]) (*connect.Response[api.CAState], error) {
	return connect.NewResponse(&m.state), nil
}

func changing(phase string) *caMaster {
	m := &caMaster{fakeMaster: &fakeMaster{nodes: []*api.Node{{Id: "i-1", Name: "core-1", State: "RUNNING"}, {Id: "i-2", Name: "core-2", State: "LOST"}, {Id: "i-4", Name: "m2", Role: "MASTER", State: "LOST"}}}}
	m.state.Phase, m.state.Fingerprint, m.state.Since = phase, "ab", at("2026-07-01T12:00:00Z")
	if phase != "RETIRING" {
		m.state.Waiting = []string{"i-1", "i-2", "i-3", "i-4"}
	}
	return m
}

func TestNodesThatAChangeOfCAWaitsForAreNamed(t *testing.T) {
	s := newSession(t).serve(changing("SPREADING"))
	o := s.run("ca", "show")
	require.Zero(t, o.code, o.err)
	require.Contains(t, o.out, "all nodes learn to trust the new CA: waiting for core-1, core-2 (lost; if for good: millrace node remove core-2), i-3, m2 (lost; if for good: millrace master remove m2)")
	require.Equal(t, []any{"i-1", "i-2", "i-3", "i-4"}, s.run("ca", "show", "--json").json(t).(map[string]any)["waiting"])
}

func TestAChangeOfCAUnderWayIsNotBegunAgain(t *testing.T) {
	s := newSession(t).serve(changing("RETIRING"))
	for _, args := range [][]string{{"ca", "rotate"}, {"ca", "rotate", "--wait"}} {
		o := s.run(args...)
		require.Zero(t, o.code, o.err)
		require.Contains(t, o.err, "this changes nothing: a change of the CA is under way since 2026-07-01")
		require.Contains(t, o.out, "millrace ca rotate --finish ends that")
	}
	require.Empty(t, s.run("ca", "rotate", "--json").err)
	require.NotContains(t, s.run("ca", "rotate", "--finish").err, "changes nothing")
}

func TestCtrlCUnderWaitLeavesTheChangeOfCAUnderWay(t *testing.T) {
	s := newSession(t).serve(changing("ISSUING"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	pressed := &pressCtrlC{when: "waiting for core-1", cancel: cancel}
	code := Run(ctx, []string{"ca", "rotate", "--wait"}, Env{Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: pressed, Getenv: func(string) string { return "" }, Home: s.home})
	require.Equal(t, 130, code)
	require.Contains(t, pressed.String(), "interrupted; the change of the CA goes on")
	require.Contains(t, pressed.String(), "next: millrace ca rotate --wait follows it, millrace ca show says how far it is")
}
