package service

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const root = "root:x:0:0:root:/root:/bin/sh\n"

func passwd(t *testing.T, h Host, lines string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(h.path("/etc"), 0o755))
	require.NoError(t, os.WriteFile(h.path("/etc/passwd"), []byte(lines), 0o644))
}

func TestAUserIsMadeWithWhatTheMachineHas(t *testing.T) {
	const comment = "made by millrace for jobs"
	for what, of := range map[string]struct {
		files []string
		group string
		calls []string
	}{
		"shadow": {
			files: []string{"/usr/sbin/useradd", "/usr/sbin/adduser", "/usr/sbin/addgroup", "/usr/sbin/nologin"},
			calls: []string{"/usr/sbin/useradd --system --no-create-home --home-dir / --shell /usr/sbin/nologin --comment " + comment + " --user-group jobs"},
		},
		"shadow, its group is there": {
			files: []string{"/sbin/useradd"}, group: "jobs:x:101:\n",
			calls: []string{"/sbin/useradd --system --no-create-home --home-dir / --shell /bin/false --comment " + comment + " --gid jobs jobs"},
		},
		"busybox": {
			files: []string{"/usr/sbin/adduser", "/usr/sbin/addgroup", "/sbin/nologin"},
			calls: []string{"/usr/sbin/addgroup -S jobs", "/usr/sbin/adduser -S -D -H -h / -s /sbin/nologin -g " + comment + " -G jobs jobs"},
		},
		"busybox, its group is there": {
			files: []string{"/bin/adduser", "/bin/addgroup"}, group: "jobs:x:101:\n",
			calls: []string{"/bin/adduser -S -D -H -h / -s /bin/false -g " + comment + " -G jobs jobs"},
		},
	} {
		t.Run(what, func(t *testing.T) {
			var calls []string
			h := host(t, &calls, of.files...)
			passwd(t, h, root)
			require.NoError(t, os.WriteFile(h.path("/etc/group"), []byte(of.group), 0o644))
			made, err := EnsureUser(t.Context(), h, "jobs")
			require.NoError(t, err)
			require.True(t, made)
			require.Equal(t, of.calls, calls)
		})
	}
}

func TestAUserThatIsThereStays(t *testing.T) {
	var calls []string
	h := host(t, &calls, "/usr/sbin/useradd", "/usr/sbin/userdel")
	passwd(t, h, root+"jobs:x:995:995:Jobs:/home/jobs:/bin/sh\nmill:x:994:994:"+madeByUs+":/:/usr/sbin/nologin\n")
	made, err := EnsureUser(t.Context(), h, "jobs")
	require.NoError(t, err)
	require.False(t, made)
	require.Empty(t, calls)

	removed, err := RemoveUsers(t.Context(), h)
	require.NoError(t, err)
	require.Equal(t, []string{"mill"}, removed, "what somebody else has made stays")
	require.Equal(t, []string{"/usr/sbin/userdel mill"}, calls)
}

func TestWhereNoUserCanBeMade(t *testing.T) {
	var calls []string
	h := host(t, &calls)
	passwd(t, h, root)
	_, err := EnsureUser(t.Context(), h, "jobs")
	require.ErrorIs(t, err, ErrNoUsers)
	for _, name := range []string{"", "Jobs", "-r", "a b", "a:b", strings.Repeat("a", 33)} {
		_, err = EnsureUser(t.Context(), h, name)
		require.ErrorContains(t, err, "a name has lower-case letters")
	}
	passwd(t, h, root+"mill:x:994:994:"+madeByUs+":/:/bin/false\n")
	_, err = RemoveUsers(t.Context(), h)
	require.ErrorContains(t, err, "remove user mill: this machine has no userdel or deluser to do it with")
	require.Empty(t, calls)

	refused := errors.New("cannot lock /etc/passwd")
	h = host(t, nil, "/usr/sbin/useradd")
	h.Run = func(context.Context, string, ...string) ([]byte, error) { return nil, refused }
	made, err := EnsureUser(t.Context(), h, "jobs")
	require.ErrorIs(t, err, refused)
	require.False(t, made)
}

// With the machine's own useradd, on files that are not the machine's.
func TestAUserIsMadeForReal(t *testing.T) {
	useradd, err := exec.LookPath("useradd")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("this needs root and useradd (apt-get install passwd)")
	}
	h := host(t, nil, "/usr/sbin/useradd", "/usr/sbin/userdel", "/usr/sbin/groupdel")
	h.Run = func(ctx context.Context, program string, args ...string) ([]byte, error) {
		return run(ctx, filepath.Join(filepath.Dir(useradd), filepath.Base(program)), append([]string{"--prefix", h.Root}, args...)...)
	}
	passwd(t, h, root)
	require.NoError(t, os.WriteFile(h.path("/etc/group"), []byte("root:x:0:\n"), 0o644))
	made, err := EnsureUser(t.Context(), h, "jobs")
	require.NoError(t, err)
	require.True(t, made)
	text, err := os.ReadFile(h.path("/etc/passwd"))
	require.NoError(t, err)
	require.Regexp(t, `(?m)^jobs:[x!]:\d+:\d+:`+madeByUs+`:/:/bin/false$`, string(text))
	made, err = EnsureUser(t.Context(), h, "jobs")
	require.NoError(t, err)
	require.False(t, made)

	removed, err := RemoveUsers(t.Context(), h)
	require.NoError(t, err)
	require.Equal(t, []string{"jobs"}, removed)
	for _, file := range []string{"/etc/passwd", "/etc/group"} {
		text, err = os.ReadFile(h.path(file))
		require.NoError(t, err)
		require.NotContains(t, string(text), "jobs:")
	}
}
