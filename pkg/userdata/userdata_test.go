package userdata

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/pkg/security"
)

var update = flag.Bool("update", false, "write the golden files anew")

// siteCA is any certificate: only its bytes count.
const siteCA = "-----BEGIN CERTIFICATE-----\nbWlsbHJhY2U=\n-----END CERTIFICATE-----\n"

func example() Spec {
	return Spec{
		Masters: []string{"https://10.0.0.1:7400", "https://m2.example.org:7400/"}, CAPEM: siteCA,
		Token:    "mr1.t-abcdefghijklm." + strings.Repeat("A", 43) + "." + strings.Repeat("B", 42) + "A",
		Binaries: map[string]string{"arm64": strings.Repeat("b", 64), "amd64": strings.Repeat("a", 64)},
		What:     "a task node of cluster default", Expires: time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC), Patience: 15 * time.Minute, Dir: "/var/lib/millrace",
	}
}

func TestTheScript(t *testing.T) {
	for name, change := range map[string]func(*Spec){
		"task.sh": func(*Spec) {},
		"folder.sh": func(s *Spec) {
			s.Dir, s.TaskUser, s.What = "/srv/millrace-2", "jobs", "a node of the pool\n# not a line of its own"
		},
	} {
		t.Run(name, func(t *testing.T) {
			spec := example()
			change(&spec)
			text, err := Script(spec)
			require.NoError(t, err)
			golden := filepath.Join("testdata", name)
			if *update {
				require.NoError(t, os.WriteFile(golden, []byte(text), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), text)
			require.True(t, strings.HasPrefix(text, "#!/bin/sh\n"), "cloud-init knows a script by that")
			require.Less(t, len(text), 16<<10, "what clouds take as user data")

			out, err := exec.Command("sh", "-n", golden).CombinedOutput()
			require.NoError(t, err, "%s", out)
			if _, err := exec.LookPath("shellcheck"); err != nil {
				t.Log("shellcheck is not here: the script was not held against it")
				return
			}
			out, err = exec.Command("shellcheck", "--shell=sh", golden).CombinedOutput()
			require.NoError(t, err, "%s", out)
		})
	}
}

func TestTheTokenIsShownToNobodyUnchecked(t *testing.T) {
	spec := example()
	text, err := Script(spec)
	require.NoError(t, err)
	token, err := security.ParseToken(spec.Token)
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(text, token.Secret), "it goes into a file, and nowhere else")
}

func TestWhatNoScriptIsMadeOf(t *testing.T) {
	for what, change := range map[string]func(*Spec){
		"not a join token":             func(s *Spec) { s.Token = s.Token[:len(s.Token)-5] },
		"no master given":              func(s *Spec) { s.Masters = nil },
		"is not of the form":           func(s *Spec) { s.Masters = []string{"https://10.0.0.1:7400'; reboot; '"} },
		"is no certificate":            func(s *Spec) { s.CAPEM = "" },
		"have no program":              func(s *Spec) { s.Binaries = nil },
		"no kind of machine is called": func(s *Spec) { s.Binaries = map[string]string{"abacus": strings.Repeat("a", 64)} },
		"from / on":                    func(s *Spec) { s.Dir = "/srv/it's here" },
		"no SHA-256":                   func(s *Spec) { s.Binaries["amd64"] = "$(reboot)" },
	} {
		spec := example()
		change(&spec)
		_, err := Script(spec)
		require.ErrorContains(t, err, what)
	}
}
