// Package userdata writes the script that makes a machine a node at its first boot: one POSIX shell script, which
// cloud-init takes as user data as it is. It is text in, text out; what the script does on the machine is in it.
package userdata

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"text/template"
	"time"

	"millrace/pkg/security"
)

// Spec is what goes into a script.
type Spec struct {
	Masters []string // https://host:port, all of them: the first that answers is taken
	Token   string   // join token
	CAPEM   string   // of the site: the script holds its fingerprint
	// Binaries are the SHA-256 of the programs that the masters have, in hex, by the machine's kind as Go calls it: amd64.
	Binaries map[string]string
	What     string        // what the machine becomes, for who reads the script: "a task node of cluster default"
	Expires  time.Time     // of the token
	Patience time.Duration // for the network and the masters
	Dir      string        // of what the machine keeps
	TaskUser string        // whom jobs' programs run as; "" = the usual one, as far as can be; none
}

//go:embed script.sh
var scriptText string

var script = template.Must(template.New("script").Parse(scriptText))

// dirForm are folders that need no quoting anywhere.
var dirForm = regexp.MustCompile(`^/[A-Za-z0-9._/-]+$`)

// userForm are names of users, or none, that need no quoting anywhere.
var userForm = regexp.MustCompile(`^([a-z_][a-z0-9_-]*)?$`)

var sha256Form = regexp.MustCompile(`^[0-9a-f]{64}$`)

// machines are the names by which `uname -m` knows what Go knows by others.
var machines = map[string]string{
	"amd64": "x86_64 | amd64", "arm64": "aarch64 | arm64", "riscv64": "riscv64", "ppc64le": "ppc64le", "s390x": "s390x", "arm": "armv6l | armv7l | armv8l",
}

// kind is one kind of machine in the script.
type kind struct{ Arch, Uname, SHA256 string }

// Script is the script. It holds the token: whoever reads it can join a node, until the token ends.
func Script(s Spec) (string, error) {
	token, err := security.ParseToken(s.Token)
	if err != nil {
		return "", fmt.Errorf("user data: %w", err)
	}
	fingerprint, err := Fingerprint(s.CAPEM)
	if err != nil {
		return "", err
	}
	if len(s.Masters) == 0 {
		return "", errors.New("user data: no master given")
	}
	masters := make([]string, len(s.Masters))
	for i, m := range s.Masters {
		u, err := url.Parse(m)
		if err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || strings.ContainsAny(u.Host, " '") {
			return "", fmt.Errorf("user data: master %q is not of the form https://host:port", m)
		}
		masters[i] = "https://" + u.Host
	}
	if !dirForm.MatchString(s.Dir) {
		return "", fmt.Errorf("user data: folder %q: from / on, of letters, digits and . _ - /", s.Dir)
	}
	if !userForm.MatchString(s.TaskUser) {
		return "", fmt.Errorf("user data: user %q: of lower-case letters, digits, hyphens and _", s.TaskUser)
	}
	kinds, err := kindsOf(s.Binaries)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = script.Execute(&b, map[string]any{
		"What": line(s.What), "Expires": s.Expires.UTC().Format(time.RFC3339), "Masters": strings.Join(masters, " "), "Token": token.String(),
		"Bearer": hex.EncodeToString(token.SecretHash()), "CA": fingerprint, "Kinds": kinds, "Patience": int(s.Patience.Seconds()), "Dir": s.Dir, "TaskUser": s.TaskUser,
	})
	return b.String(), err
}

// kindsOf sorts the programs by the kind of machine that they are for.
func kindsOf(binaries map[string]string) (kinds []kind, err error) {
	for arch, sum := range binaries {
		uname, ok := machines[arch]
		if !ok {
			return nil, fmt.Errorf("user data: no kind of machine is called %q", arch)
		}
		if !sha256Form.MatchString(sum) {
			return nil, fmt.Errorf("user data: %q is no SHA-256 of a program", sum)
		}
		kinds = append(kinds, kind{arch, uname, sum})
	}
	if len(kinds) == 0 {
		return nil, errors.New("user data: the masters have no program to hand out")
	}
	slices.SortFunc(kinds, func(a, b kind) int { return strings.Compare(a.Arch, b.Arch) })
	return kinds, nil
}

// Fingerprint is the SHA-256 of a CA's certificate, the first one of several, in hex.
func Fingerprint(caPEM string) (string, error) {
	block, _ := pem.Decode([]byte(caPEM))
	if block == nil || block.Type != "CERTIFICATE" {
		return "", errors.New("user data: the site's CA is no certificate")
	}
	sum := sha256.Sum256(block.Bytes)
	return hex.EncodeToString(sum[:]), nil
}

// line is text fit for a comment.
func line(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, text)
}
