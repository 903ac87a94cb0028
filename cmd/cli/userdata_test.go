package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
	"millrace/pkg/security"
)

// tokenMaster gives real tokens, and hands out programs.
type tokenMaster struct {
	*fakeMaster
	ca *security.CA
}

func (f *tokenMaster) token() (*api.JoinToken, error) {
	t, err := security.NewToken(f.ca.CertPEM())
	return &api.JoinToken{Id: t.ID, Token: t.String(), Role: "TASK", Cluster: "nightly"}, err
}

func withTokens(t *testing.T) *fakeMaster {
	ca, err := security.NewCA("site")
	require.NoError(t, err)
	f := &fakeMaster{nodes: []*api.Node{
		{Id: "i-3", Role: "MASTER", State: "LOST", Member: "VOTER", Address: "https://10.0.0.3:7400"}, {Id: "i-4", Role: "MASTER", State: "LOST", Member: "NONE", Address: "https://10.0.0.4:7400"},
		{Id: "i-1", Role: "MASTER", State: "RUNNING", Member: "VOTER", Address: "https://10.0.0.1:7400"}, {Id: "i-2", Role: "CORE", State: "RUNNING", Address: "https://10.0.0.2:7410"},
	}}
	f.makeToken = (&tokenMaster{f, ca}).token
	f.binaries = &api.ListBinariesResponse{CaPem: ca.CertPEM(), Binaries: []*api.Binary{{Os: "linux", Arch: "amd64", Sha256: strings.Repeat("a", 64)}, {Os: "linux", Arch: "arm64", Sha256: strings.Repeat("b", 64)}}}
	return f
}

func (f *fakeMaster) ListBinaries(context.Context, *connect.Request[api.ListBinariesRequest]) (*connect.Response[api.ListBinariesResponse], error) {
	return connect.NewResponse(f.binaries), nil
}

func TestUserDataIsAScript(t *testing.T) {
	f := withTokens(t)
	s := newSession(t).serve(f)
	o := s.run("cluster", "user-data", "--role", "task", "--cluster", "nightly", "--ttl", "2h", "--uses", "5")
	require.Zero(t, o.code, o.err)
	require.True(t, strings.HasPrefix(o.out, "#!/bin/sh\n# Makes this machine a task node of cluster nightly"), o.out)
	require.Contains(t, o.out, "masters='https://10.0.0.1:7400 https://10.0.0.3:7400'\n", "one that is lost now may be the one that is there then; one that is out of the set is not")
	require.Contains(t, o.out, "arch=arm64 sum="+strings.Repeat("b", 64))
	require.Equal(t, "nightly", f.tokens[0].GetCluster())
	require.EqualValues(t, 5, f.tokens[0].GetUses())
	require.EqualValues(t, 7200_000, f.tokens[0].GetTtlMs())

	view := s.run("cluster", "user-data", "--role", "pool", "--json").json(t).(map[string]any)
	require.Contains(t, view["script"], "a node of the site's pool")
	require.NotEmpty(t, view["tokenId"])
	require.Empty(t, f.tokens[1].GetCluster())
}

// fakeSSH is a program in place of ssh that runs what it is given here, with the machine's answers as the test wants them.
func fakeSSH(t *testing.T, script string) string {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ssh"), []byte("#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\nhost=$2 line=$3\necho \"$host: $line\" >> "+dir+"/calls\n"+script), 0o755))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return filepath.Join(dir, "calls")
}

func TestNodesAreAddedOverSSH(t *testing.T) {
	calls := fakeSSH(t, `case $host in
*off) echo "ssh: connect to host off port 22: No route to host" >&2; exit 255 ;;
esac
case $line in
uname*) echo Linux; uname -m; [ "$host" = root@good ] && echo 0 || echo 1000 ;;
*cat*) cat > /dev/null ;;
*join*) read -r token; [ "${#token}" -gt 80 ] || exit 9
	case $host in
	root@good) echo '{"id":"i-7","role":"CORE","already":false,"tasksAsRoot":"no useradd"}' ;;
	*) echo '{"error":"no","errors":["cannot reach 10.0.0.1:7402/udp: open the port"],"next":"x","exitCode":3}' >&2; exit 3 ;;
	esac ;;
esac
`)
	f := withTokens(t)
	o := newSession(t).serve(f).run("node", "add", "--role", "core", "--slots", "3", "--task-user", "jobs", "root@good", "me@shut", "me@off")
	require.Equal(t, 1, o.code)
	require.Equal(t, "root@good: i-7, joined as core; mind: jobs' programs run as root there: no useradd\nme@shut: failed: cannot reach 10.0.0.1:7402/udp: open the port\nme@off: failed: ssh: connect to host off port 22: No route to host\n", o.out)
	require.Contains(t, o.err, "millrace: 2 of 3 machines were not added\nnext: ")
	require.EqualValues(t, 1, f.tokens[0].GetUses(), "each has a token of its own")
	text, err := os.ReadFile(calls)
	require.NoError(t, err)
	require.Regexp(t, `me@shut: sudo -n /tmp/millrace-[0-9a-f]{16} join --json --slots '3' --task-user 'jobs' https://10.0.0.1:7400 https://10.0.0.3:7400 -\n`, string(text))
	require.NotContains(t, string(text), "mr1.", "no token in the arguments of anything")
	require.Contains(t, string(text), "root@good: rm -f /tmp/millrace-")
}
