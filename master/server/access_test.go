package server

import (
	"bytes"
	"encoding/binary"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/reflect/protoreflect"

	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/api/apiconnect"
	"millrace/pkg/client"
	"millrace/pkg/security"
)

// services are the files whose services a master has.
var services = []protoreflect.FileDescriptor{api.File_user_proto, api.File_worker_proto, api.File_files_proto}

// methods are all procedures of the services.
func methods() map[string]protoreflect.MethodDescriptor {
	all := map[string]protoreflect.MethodDescriptor{}
	for _, f := range services {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				m := s.Methods().Get(j)
				all["/"+string(s.FullName())+"/"+string(m.Name())] = m
			}
		}
	}
	return all
}

func TestTheTableNamesEveryProcedureAndNothingElse(t *testing.T) {
	all := slices.Sorted(maps.Keys(methods()))
	require.Equal(t, all, slices.Sorted(maps.Keys(procedures)), "pkg/api has procedures of which access.go does not say who may call them, or the other way round")
	for p, a := range procedures {
		require.NotZero(t, a.may, "nobody may call %s", p)
		if a.may&stranger != 0 {
			require.True(t, strings.HasPrefix(p, "/"+apiconnect.JoinServiceName+"/"), "only what takes a token or a code is for strangers: %s", p)
		}
		require.Equal(t, a.may&reader != 0 || a.may&submitter != 0, a.may&submitter != 0, p)
		if a.may&(reader|submitter) != 0 {
			require.NotZero(t, a.may&admin, "an administrator may do what others may: %s", p)
		}
	}
}

// ask makes a call with an empty message, as the method takes it, and gives the answer's code: "" for what is not Connect's.
func ask(t *testing.T, c *http.Client, url, procedure string) (status int, said string) {
	t.Helper()
	kind, body := "application/json", []byte("{}")
	if m := methods()[procedure]; m != nil && (m.IsStreamingClient() || m.IsStreamingServer()) {
		kind = "application/connect+json"
		body = binary.BigEndian.AppendUint32([]byte{0}, 2)
		body = append(body, "{}"...)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+procedure, bytes.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", kind)
	resp, err := c.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	require.NoError(t, err)
	return resp.StatusCode, string(answer)
}

// refusedAs says with which of the two words a call was turned away, "" if it was not.
func refusedAs(status int, said string) string {
	for word, code := range map[string]int{"unauthenticated": http.StatusUnauthorized, "permission_denied": http.StatusForbidden} {
		if status == code || strings.Contains(said, `"code":"`+word+`"`) {
			return word
		}
	}
	return ""
}

// TestWhoMayCallWhat walks every procedure and page with every kind of caller there is.
func TestWhoMayCallWhat(t *testing.T) {
	w := newWorld(t)
	w.leader.Files = nil // calls that pass come to nothing soon
	put := func(id, role, cluster string) string {
		w.apply(state.PutNode{Node: state.Node{ID: id, Role: role, Cluster: cluster, Pooled: role == state.RolePool}})
		return id
	}
	core := put("i-000000000000000c1", state.RoleCore, "j-DEFAULT")
	task := put("i-000000000000000c2", state.RoleTask, "j-DEFAULT")
	free := put("i-000000000000000c3", state.RolePool, "")
	gone := put("i-000000000000000c4", state.RoleCore, "j-DEFAULT")
	w.apply(state.RemoveNode{ID: gone})
	goneMaster := put("i-000000000000000c5", state.RoleMaster, "")
	w.apply(state.RemoveNode{ID: goneMaster})
	other := put("i-000000000000000c6", state.RoleMaster, "")
	for name, role := range map[string]string{"ann": state.UserAdmin, "sue": state.UserSubmit, "ray": state.UserRead} {
		w.apply(state.CreateUser{User: state.User{Name: name, Role: role}})
	}
	w.apply(state.CreateUser{User: state.User{Name: "again", Role: state.UserAdmin, CreatedAt: time.Now().Add(time.Minute)}})
	theirs, err := security.NewCA("theirs")
	require.NoError(t, err)
	foreign := issue(t, theirs, security.RoleMaster, masterID)
	foreign.CAPEM = w.ca.CertPEM()
	sameName, err := security.NewCA(site) // another CA of the same name
	require.NoError(t, err)
	forged := issue(t, sameName, security.RoleUser, Admin)
	forged.CAPEM = w.ca.CertPEM()

	with := func(c security.Credential) *http.Client {
		config, err := c.ClientTLS(security.MasterName)
		require.NoError(t, err)
		return httpsClient(t, config)
	}
	as := func(role security.Role, id string) *http.Client { return with(w.credential(role, id)) }
	expired := func(role security.Role, id string) security.Credential {
		return issueAt(t, w.ca, role, id, time.Now().Add(-2*time.Hour))
	}
	nobody := who(0) // not even a stranger: it shows something that is not right
	callers := map[string]struct {
		client *http.Client
		is     who
	}{
		"a stranger":                              {w.stranger(), stranger},
		"another site's master":                   {with(foreign), stranger}, // TLS takes its certificate for none
		"a certificate of a CA of the same name":  {with(forged), 0xff},
		"a user of the role read":                 {as(security.RoleUser, "ray"), reader},
		"a user of the role submit":               {as(security.RoleUser, "sue"), submitter},
		"a user of the role admin":                {as(security.RoleUser, "ann"), admin},
		"the first administrator":                 {as(security.RoleUser, Admin), admin},
		"a user who was removed":                  {as(security.RoleUser, "bob"), nobody},
		"the namesake of one who was removed":     {as(security.RoleUser, "again"), nobody},
		"a user of an id that is a node's":        {as(security.RoleUser, core), nobody},
		"a core node":                             {as(security.RoleWorker, core), worker},
		"a task node":                             {as(security.RoleWorker, task), worker},
		"a free node of the pool":                 {as(security.RoleWorker, free), pooled},
		"a node that was removed":                 {as(security.RoleWorker, gone), nobody},
		"a node that was never admitted":          {as(security.RoleWorker, "i-000000000000000ff"), nobody},
		"a worker's certificate of a master's id": {as(security.RoleWorker, other), nobody},
		"a master":                                {as(security.RoleMaster, other), fellow},
		"a master that was removed":               {as(security.RoleMaster, goneMaster), nobody},
		"a master's certificate of a worker's id": {as(security.RoleMaster, core), nobody},
		"a master that was never admitted":        {as(security.RoleMaster, "i-000000000000000fe"), nobody},
		"a user whose certificate has expired":    {with(expired(security.RoleUser, "ann")), 0xff},
		"a node whose certificate has expired":    {with(expired(security.RoleWorker, core)), 0xff},
		"the administrator's expired certificate": {with(expired(security.RoleUser, Admin)), 0xff},
		"a master whose certificate has expired":  {with(expired(security.RoleMaster, other)), 0xff},
	}
	paths := slices.Sorted(maps.Keys(procedures))
	for page := range pages {
		if strings.HasSuffix(page, "/") {
			page += "linux-amd64"
		}
		paths = append(paths, page)
	}
	calls := 0
	for name, c := range callers {
		if c.is == 0xff { // TLS does not let it in
			_, err := c.client.Post(w.http.URL+HealthPath, "application/json", strings.NewReader("{}"))
			require.Error(t, err, name) // an alert, or that the connection was closed after one
			continue
		}
		for _, path := range append(paths, "/", "/metrics", "/debug/pprof/", "/millrace.v1.MillraceService/NoSuch", "/healthz/", BinariesPath) {
			status, said := ask(t, c.client, w.http.URL, path)
			calls++
			a, known := accessTo(path)
			refused := refusedAs(status, said)
			switch {
			case known && path == BinariesPath+"linux-amd64": // whoever it is, the token is the credential
				require.Equal(t, "unauthenticated", refused, "%s %s", name, path)
			case known && a.may&c.is != 0 && c.is == stranger: // the token, which is none, is what is wrong
				require.NotContains(t, said, "a client certificate of this site", "%s %s", name, path)
			case known && a.may&c.is != 0:
				require.Empty(t, refused, "%s may call %s: %d %s", name, path, status, said)
			case !known && c.is != stranger && c.is != nobody:
				require.Equal(t, http.StatusNotFound, status, "%s %s", name, path)
			case !known && c.is == nobody:
				require.Contains(t, []int{http.StatusNotFound, http.StatusUnauthorized}, status, "%s %s", name, path)
			case c.is == stranger || c.is == nobody:
				require.Equal(t, "unauthenticated", refused, "%s must not call %s: %d %s", name, path, status, said)
			default:
				require.Equal(t, "permission_denied", refused, "%s must not call %s: %d %s", name, path, status, said)
			}
		}
	}
	require.Greater(t, calls, 1000)
}

// issueAt makes a credential whose certificate ended an hour after a time.
func issueAt(t *testing.T, ca *security.CA, role security.Role, id string, at time.Time) security.Credential {
	t.Helper()
	key, csr, err := security.NewKey()
	require.NoError(t, err)
	cert, _, err := ca.Sign(csr, security.Identity{Site: ca.Site(), Role: role, ID: id}, nil, at, time.Hour)
	require.NoError(t, err)
	return security.Credential{CertPEM: cert, KeyPEM: key, CAPEM: ca.CertPEM()}
}

func TestNobodySpeaksForOthersButMasters(t *testing.T) {
	w := newWorld(t)
	w.apply(state.PutNode{Node: state.Node{ID: workerID, Role: state.RoleCore, Cluster: "j-DEFAULT"}})
	url := w.http.URL + apiconnect.MillraceServiceListUsersProcedure
	say := func(c *http.Client, identity string) int {
		req, err := http.NewRequest(http.MethodPost, url, strings.NewReader("{}"))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set(identityHeader, identity)
		req.Header.Set(issuedHeader, "1700000000")
		resp, err := c.Do(req)
		require.NoError(t, err)
		return errorless(t, resp)
	}
	as := func(role security.Role, id string) *http.Client {
		config, err := w.credential(role, id).ClientTLS(security.MasterName)
		require.NoError(t, err)
		return httpsClient(t, config)
	}
	require.Equal(t, http.StatusUnauthorized, say(w.stranger(), "millrace://ours/user/admin"))
	require.Equal(t, http.StatusForbidden, say(as(security.RoleUser, "alice"), "millrace://ours/user/admin"))
	require.Equal(t, http.StatusForbidden, say(as(security.RoleWorker, workerID), "millrace://ours/user/admin"))
	require.Equal(t, http.StatusOK, say(as(security.RoleMaster, masterID), "millrace://ours/user/admin"))
	require.Equal(t, http.StatusUnauthorized, say(as(security.RoleMaster, masterID), "nobody"))
	require.Equal(t, http.StatusUnauthorized, say(as(security.RoleMaster, masterID), "admin"))
}

func errorless(t *testing.T, resp *http.Response) int {
	t.Helper()
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode
}

func TestHealthIsForMembers(t *testing.T) {
	w := newWorld(t)
	config, err := w.credential(security.RoleUser, "alice").ClientTLS(security.MasterName)
	require.NoError(t, err)
	resp, err := httpsClient(t, config).Get(w.http.URL + HealthPath)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.JSONEq(t, `{"status":"ok","raft":"leader"}`, string(body))

	resp, err = w.stranger().Get(w.http.URL + HealthPath)
	require.NoError(t, err)
	require.Equal(t, http.StatusUnauthorized, errorless(t, resp))
}

func TestANodeReachesTheFilesOfItsOwnCluster(t *testing.T) {
	w := newWorld(t)
	w.apply(state.CreateCluster{Cluster: state.Cluster{ID: "j-OTHER", Name: "other"}})
	w.apply(state.PutNode{Node: state.Node{ID: workerID, Role: state.RoleTask, Cluster: "j-DEFAULT"}})
	reach := func(cluster string, writes bool) error { return nodeReaches(w.state.View(), workerID, cluster, writes) }
	require.NoError(t, reach("j-DEFAULT", true))
	require.Equal(t, connect.CodePermissionDenied, connect.CodeOf(reach("j-OTHER", false)))

	w.apply(state.SubmitJob{Job: state.Job{ID: "s-1", Cluster: "j-OTHER", Input: []string{"hdfs://j-OTHER/in"}, Output: "s3://out/1/"}})
	require.Error(t, reach("j-OTHER", false), "another cluster's job")
	w.apply(state.SubmitJob{Job: state.Job{ID: "s-2", Cluster: "j-DEFAULT", Input: []string{"hdfs://j-OTHER/in"}, Output: "s3://out/2/"}})
	require.NoError(t, reach("j-OTHER", false), "a job of its own reads there")
	require.Error(t, reach("j-OTHER", true), "and only reads")
	w.apply(state.SubmitJob{Job: state.Job{ID: "s-3", Cluster: "j-DEFAULT", Input: []string{"s3://in/"}, Output: "hdfs://j-OTHER/out/"}})
	require.NoError(t, reach("j-OTHER", true))
	require.Error(t, nodeReaches(w.state.View(), "i-000000000000000ff", "j-DEFAULT", false), "nobody's node")
}

func TestAuditOfCalls(t *testing.T) {
	w := newWorld(t)
	w.ready()
	job := w.submit(wordcount())
	_, err := w.user("alice").CancelJob(t.Context(), connect.NewRequest(&api.CancelJobRequest{Job: job.Id, Reason: "no"}))
	require.NoError(t, err)
	_, err = w.user("alice").RemoveUser(t.Context(), connect.NewRequest(&api.RemoveUserRequest{Name: "bob"}))
	requireProblems(t, err, client.ExitUnreachable, "user alice, of the role submit, may not do this: it takes the role admin")
	token := w.token(&api.CreateJoinTokenRequest{Role: "core", Uses: 3})
	_, err = w.user("alice").ListNodes(t.Context(), connect.NewRequest(&api.ListNodesRequest{}))
	require.NoError(t, err)
	_, err = w.join(machine(t, workerID), token.Token)
	require.NoError(t, err)
	_, err = w.user(Admin).DrainNode(t.Context(), connect.NewRequest(&api.DrainNodeRequest{Node: "nothing", DryRun: true}))
	require.Error(t, err, "what is only asked has no line")
	_, err = w.user(Admin).RemoveNode(t.Context(), connect.NewRequest(&api.RemoveNodeRequest{Node: "nothing"}))
	require.Error(t, err)
	_, err = w.stranger().Get(w.http.URL + "/etc/passwd")
	require.NoError(t, err)

	type line struct{ User, Node, Role, Procedure, Subject, Outcome string }
	var got []line
	for _, e := range w.audit.take() {
		require.Regexp(t, `^127\.0\.0\.1:\d+$`, e.Peer)
		require.Equal(t, w.time().UTC(), e.At)
		require.NotContains(t, e.Subject+e.Outcome, token.Token)
		require.Equal(t, strings.Contains(e.Outcome, "may not") || strings.Contains(e.Outcome, "is needed"), e.Refused)
		got = append(got, line{e.User, e.Node, e.Role, e.Procedure[strings.LastIndex(e.Procedure, "/")+1:], e.Subject, e.Outcome})
	}
	require.Equal(t, []line{
		{"alice", "", "submit", "SubmitJob", `name=wordcount input=["s3://input/a"] output=s3://out/x/`, "ok"},
		{"alice", "", "submit", "CancelJob", "job=" + job.Id + " reason=no", "ok"},
		{"alice", "", "submit", "RemoveUser", "", "user alice, of the role submit, may not do this: it takes the role admin"},
		{Admin, "", "admin", "CreateJoinToken", "role=core uses=3", "ok"},
		{"", "", "", "Join", "node_id=" + workerID + " name=host", "ok"},
		{Admin, "", "admin", "RemoveNode", "node=nothing", "not_found: no such node: nothing"},
		{"", "", "", "passwd", "", "a client certificate of this site is needed"},
	}, got)
}

// What a follower forwards the leader notes with the caller's own address.
func TestAuditOfAForwardedCall(t *testing.T) {
	w := newWorld(t)
	f := follower(t, w)
	_, err := f.user(Admin).RevokeJoinToken(t.Context(), connect.NewRequest(&api.RevokeJoinTokenRequest{Id: "t-none"}))
	require.Error(t, err)
	require.Empty(t, f.audit.take(), "it decided nothing")
	lines := w.audit.take()
	require.Len(t, lines, 1)
	require.Equal(t, Admin, lines[0].User)
	require.NotEmpty(t, lines[0].Peer)
}
